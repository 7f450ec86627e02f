"""The full dialect of EnSQL: what it accepts, what it makes of it, and what it says about the rest."""

import enum
import itertools
import sys
import time
from typing import Any, List, Mapping, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync import times
from ensign_sync.ensql import Column, Compare, Junction, Not, Predicate, Select, explain, parse, parse_full, to_text
from ensign_sync.ensql.conditions import MAX_DEPTH, MAX_PATTERN
from ensign_sync.ensql.writer import _predicate as show
from ensign_sync.exceptions import EnSQLError, InvalidQueryError
from ensign_sync.ids import RLID
from tests.size import by_size
from tests.tables import each

EVENT = RLID("065wzsb8fc00001a")
NOON = times.parse("2023-11-20T12:00:00Z")

ACCEPTED: List[Tuple[str, Select]] = [
    ("SELECT * FROM x", Select("x")),
    ("select*from x;;", Select("x")),
    ("\u3000SELECT\t*\nFROM\r\nx\v; ;\n", Select("x")),
    ("SELECT *\u2003FROM\xa0x", Select("x")),
    ("Select a From x", Select("x", (Column(("a",)),))),
    ("SELECT a, b ,c FROM x", Select("x", (Column(("a",)), Column(("b",)), Column(("c",))))),
    ("SELECT a AS b, a as c FROM x", Select("x", (Column(("a",), "b"), Column(("a",), "c")))),
    ("SELECT a.b.c, a.b AS c FROM x", Select("x", (Column(("a", "b", "c")), Column(("a", "b"), "c")))),
    ("SELECT a . b FROM x", Select("x", (Column(("a", "b")),))),
    ('SELECT "a.b"."" FROM x', Select("x", (Column(("a.b", "")),))),
    ('SELECT "*", b AS "" FROM x', Select("x", (Column(("*",)), Column(("b",), "")))),
    ("SELECT a, a FROM x", Select("x", (Column(("a",)), Column(("a",))))),
    ("SELECT * FROM topic.schema", Select("topic", schema="schema")),
    ("SELECT * FROM topic.schema.23", Select("topic", schema="schema", major=23)),
    ("SELECT * FROM topic . schema . 007", Select("topic", schema="schema", major=7)),
    ("SELECT * FROM topic.*", Select("topic")),
    ("SELECT * FROM topic.*.*", Select("topic")),
    ("SELECT * FROM topic.schema.*", Select("topic", schema="schema")),
    ("SELECT * FROM topic.schema.4294967295", Select("topic", schema="schema", major=2**32 - 1)),
    ('SELECT * FROM topic."*"', Select("topic", schema="*")),
    ('SELECT * FROM "a.b c""d\'é\n"', Select("a.b c\"d'é\n")),
    ('SELECT * FROM """"', Select('"')),
    ('SELECT * FROM "SELECT"."FROM".1', Select("SELECT", schema="FROM", major=1)),
    ("SELECT * FROM x OFFSET 42", Select("x", offset=42)),
    ("SELECT * FROM x OFFSET 18446744073709551615", Select("x", offset=2**64 - 1)),
    ("SELECT * FROM x OFFSET '065wzsb8fc00001a'", Select("x", offset=EVENT)),
    ("SELECT * FROM x OFFSET '065WZSB8FC00001A'", Select("x", offset=EVENT)),
    ("SELECT * FROM x LIMIT 0", Select("x", limit=0)),
    ("SELECT * FROM x LIMIT 5 OFFSET 010", Select("x", limit=5, offset=10)),
    ("SELECT * FROM x BEFORE '2023-11-20T13:00:00.000+01:00'", Select("x", before=NOON)),
    ("SELECT * FROM x AFTER '065wzsb8fc00001a'", Select("x", after=EVENT)),
    ("SELECT * FROM x WHERE a = 1 LIMIT 2", Select("x", where=Compare(("a",), "=", 1), limit=2)),
]


@each("text, query", ACCEPTED)
def test_accepted(text: str, query: Select) -> None:
    """A query is carried whole: fields, aliases, topic, schema, version, condition, clauses."""
    assert parse_full(text) == query


NAMES = (
    *"orders Orders selects from_x limits likes assets order_id where1 offsets andy ilike2 t f true false TRUE".split(),
    *"not before after Not AFTER 9x 2023-10-01 n-1 _ x-y-z under_score größe 名前".split(),
)


@each("name", NAMES)
def test_name(name: str) -> None:
    """A word that is no keyword as a whole is a name in every place."""
    text = f"SELECT {name}, {name}.{name} AS {name}2 FROM {name}.{name} WHERE {name} = 1 AND {name}.{name} > 2 LIMIT 3"
    where = Junction("AND", (Compare((name,), "=", 1), Compare((name, name), ">", 2)))
    columns = (Column((name,)), Column((name, name), name + "2"))
    assert parse_full(text) == Select(name, columns, name, where=where, limit=3)


@each("word", "SELECT from WHERE As OFFSET limit AND or LIKE ilike".split())
def test_keyword_as_name(word: str) -> None:
    """A keyword is a name in double quotes, and in them alone."""
    quoted = f'"{word}"'
    text = "SELECT {0} AS {0} FROM {0}.{0} WHERE {0} = 1"
    where = Compare((word,), "=", 1)
    assert parse_full(text.format(quoted)) == Select(word, (Column((word,), word),), word, where=where)
    for name in (f"SELECT {word} FROM x", f"SELECT * FROM {word}", f"SELECT * FROM x WHERE {word} = 1"):
        refusal(name)


@each("word", ["not", "NOT"])
def test_field_called_not(word: str) -> None:
    """NOT before an operator or a dot is a field."""
    for operator in ["=", "<>", ">", "LIKE"]:
        assert isinstance(where(f"{word} {operator} 'x'"), Compare)
    assert where(f"NOT {word}.a = 1") == Not(Compare((word, "a"), "=", 1))
    assert where(f"{word} {word} = 1") == Not(Compare((word,), "=", 1))


def where(text: str, params: Optional[Mapping[str, Any]] = None) -> Any:
    return parse_full("SELECT * FROM x WHERE " + text, params).where


def test_operator() -> None:
    """Every operator is known, in any case; ``<>`` is another word for ``!=``."""
    for text in "= != <> > >= < <= LIKE like Like ILIKE iLike".split():
        wanted = "!=" if text == "<>" else text.upper()
        assert where(f"a {text} 'x'") == where(f"a{'  ' if text[0].isalpha() else ''}{text}'x';")
        assert where(f"a {text} 'x'") == Compare(("a",), wanted, "x")


@each(
    "text, value",
    [
        ("0", 0),
        ("007", 7),
        ("-7", -7),
        ("-0", 0),
        ("12345678901234567890", 12345678901234567890),
        ("9" * 308, int("9" * 308)),
        ("0" * 5000 + "1", 1),
        ("1.5", 1.5),
        ("-1.50", -1.5),
        ("1e5", 1e5),
        ("-1.5E-3", -0.0015),
        ("2E+2", 200.0),
        ("''", ""),
        ("'a b'", "a b"),
        (r"'it\'s'", "it's"),
        (r"'\'\''", "''"),
        (r"'\\'x'", r"\'x"),
        (r"'a\b\n'", r"a\b\n"),
        ("'\"é€😀\n\x00\ud800\"'", '"é€😀\n\x00\ud800"'),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("fAlSe", False),
        ("t", True),
        ("F", False),
    ],
)
def test_value(text: str, value: Any) -> None:
    """A value is read with its kind: an integer, a float, a text, a truth value."""
    found = where(f"a ={text} AND b = 1")
    assert repr(found.terms[0].value) == repr(value)
    assert found == where(f"a = {text} AND b= 1")


@each(
    "text, tree",
    [
        ("a=1", "a = 1"),
        ("((a=1))", "a = 1"),
        ("a=1 and b=2 AND c=3", "a = 1 AND b = 2 AND c = 3"),
        ("a=1 or b=2 and c=3", "a = 1 OR b = 2 AND c = 3"),
        ("a=1 and b=2 or c=3 and d=4 or e=5", "a = 1 AND b = 2 OR c = 3 AND d = 4 OR e = 5"),
        ("(a=1 or b=2) and c=3", "(a = 1 OR b = 2) AND c = 3"),
        ("(a=1 and b=2) or c=3", "a = 1 AND b = 2 OR c = 3"),
        ("(a=1 and b=2) and c=3", "(a = 1 AND b = 2) AND c = 3"),
        ("a=1 or (b=2 or c=3)", "a = 1 OR (b = 2 OR c = 3)"),
        ("not a=1 and b=2", "NOT a = 1 AND b = 2"),
        ("not (a=1 and b=2) or c=3", "NOT (a = 1 AND b = 2) OR c = 3"),
        ("not not (not a=1)", "NOT NOT NOT a = 1"),
        ("a not like 'x' and b=2", "a NOT LIKE 'x' AND b = 2"),
        ("not a ilike 'x'", "a NOT ILIKE 'x'"),
        ("not a not like 'x'", "NOT a NOT LIKE 'x'"),
        ("((a=1 or (b=2)) and (not(c=3)or((d=4))))", "(a = 1 OR b = 2) AND (NOT c = 3 OR d = 4)"),
    ],
)
def test_precedence(text: str, tree: str) -> None:
    """NOT binds tighter than AND, AND tighter than OR, parentheses tightest."""
    assert show(where(text)) == tree
    assert where(text) == where(tree)


def test_tree() -> None:
    """Terms between the same parentheses are one junction, AND inside OR."""
    a, b, c = (Compare((name,), "=", 1) for name in "abc")
    assert where("a=1 AND b=1 AND c=1") == Junction("AND", (a, b, c))
    assert where("a=1 OR b=1 OR NOT c=1") == Junction("OR", (a, b, Not(c)))
    assert where("a=1 OR b=1 AND c=1") == Junction("OR", (a, Junction("AND", (b, c))))
    assert where("(a=1 OR b=1) AND c=1") == Junction("AND", (Junction("OR", (a, b)), c))
    assert where("NOT (a=1 OR b=1)") == Not(Junction("OR", (a, b)))


def test_order_of_clauses() -> None:
    """The clauses stand in any order behind the condition."""
    clauses = ["OFFSET 1", "limit 2", "BEFORE '2023-11-20T12:00:00Z'", "after '065wzsb8fc00001a'"]
    wanted = Select("x", where=Compare(("a",), "=", 1), before=NOON, after=EVENT, offset=1, limit=2)
    for order in itertools.permutations(clauses):
        assert parse_full(f"SELECT * FROM x WHERE a = 1 {' '.join(order)};") == wanted


class Side(enum.IntEnum):
    BUY = 1


class Name(str, enum.Enum):
    BOB = "bob"


@each(
    "given_value, value",
    [
        ("it's \\' :x", "it's \\' :x"),
        ("\\", "\\"),
        ("", ""),
        ("' OR a = a; --", "' OR a = a; --"),
        ("é".encode(), "é"),
        (7, 7),
        (-1.5, -1.5),
        (True, True),
        (False, False),
        (Side.BUY, 1),
        (Name.BOB, "bob"),
        (10**300, 10**300),
    ],
)
def test_parameter(given_value: Any, value: Any) -> None:
    """A parameter brings its value into the tree as it is, and never into the text."""
    found = where("a = :v OR b >:v", {"v": given_value})
    assert [repr(term.value) for term in found.terms] == [repr(value)] * 2
    assert {type(term.value) for term in found.terms} == {type(value)}


def test_parameters_of_clauses() -> None:
    """Parameters stand for the values of the clauses too."""
    text = "SELECT * FROM x OFFSET :offset LIMIT :limit BEFORE :before AFTER :after"
    params = {"offset": EVENT.bytes, "limit": 3, "before": "2023-11-20T12:00:00Z", "after": str(EVENT)}
    assert parse_full(text, params) == Select("x", offset=EVENT, limit=3, before=NOON, after=EVENT)
    params.update(offset=4, after=EVENT.bytes)
    assert parse_full(text, params).offset == 4


@each("name", ["v", "V", "v-1", "order", "select", "1", "größe"])
def test_name_of_parameter(name: str) -> None:
    """The name of a parameter is any word, in its case."""
    assert where(f"a = :{name}", {name: 1}) == Compare(("a",), "=", 1)
    assert f'parameter "{name}" has no value' in refusal(f"SELECT * FROM x WHERE a = :{name}", {name + "x": 1})


def refusal(text: Any, params: Any = None) -> str:
    with pytest.raises(InvalidQueryError) as caught:
        parse_full(text, params)
    assert caught.value.details == str(caught.value)
    assert isinstance(caught.value, EnSQLError)
    assert caught.value.details.encode("utf-8")
    return caught.value.details


KINDS = "a parameter is a text, a number, a boolean or bytes"


@each(
    "text, params, details",
    [
        ("a = :v", None, 'syntax error at position 26 near ":v": parameter "v" has no value'),
        ("a = :v", {}, 'syntax error at position 26 near ":v": parameter "v" has no value'),
        ("a = :v", {"v": None}, 'parameter "v" is of type NoneType: ' + KINDS),
        ("a = :v", {"v": [1]}, 'parameter "v" is of type list: ' + KINDS),
        ("a = 1", {"v": [1]}, 'parameter "v" is of type list: ' + KINDS),
        ("a = :v", {"v": NOON}, 'parameter "v" is of type Instant: ' + KINDS),
        ("a = :v", {"v": float("nan")}, 'parameter "v" is not a finite number, or too large for one'),
        ("a = :v", {"v": -float("inf")}, 'parameter "v" is not a finite number, or too large for one'),
        ("a = :v", {"v": 10**400}, 'parameter "v" is not a finite number, or too large for one'),
        ("a = :v", {1: 1}, "the name of a parameter is a text, got int"),
        ("a = :v", [("v", 1)], "parameters are a mapping of names to values, got list"),
        (
            "a = :v",
            {"v": b"\xff"},
            'syntax error at position 26 near ":v": the bytes of the parameter are no text in UTF-8',
        ),
        (
            "a LIKE :v",
            {"v": "x" * (MAX_PATTERN + 1)},
            'syntax error at position 29 near ":v": a pattern has at most 10000 characters',
        ),
        ("a = 1 LIMIT :v", {"v": "1"}, 'syntax error at position 34 near ":v": invalid limit'),
        ("a = 1 LIMIT :v", {"v": True}, 'syntax error at position 34 near ":v": invalid limit'),
        ("a = 1 LIMIT :v", {"v": 1.0}, 'syntax error at position 34 near ":v": could not parse limit'),
        ("a = 1 OFFSET :v", {"v": -1}, 'syntax error at position 35 near ":v": could not parse offset'),
        ("a = 1 OFFSET :v", {"v": True}, 'syntax error at position 35 near ":v": invalid offset'),
    ],
)
def test_refused_parameter(text: str, params: Any, details: str) -> None:
    """A parameter that is missing, superfluous or of no use is refused by its name."""
    assert refusal("SELECT * FROM x WHERE " + text, params) == details


MOMENT = "expected an RFC 3339 time with its zone, or the id of an event"
DEEP = "more than 100 parentheses or NOTs inside each other"
NO_IDENTIFIER = "where clause predicates expressions must start with an identifier"
JUNK = "cannot append or update condition in group"
QUOTES = "invalid where clause (double quotes are for names)"

SYNTAX_ERRORS = [
    # What the statement is.
    ("WHERE", 0, "WHERE", "invalid query type"),
    ("foo", 0, "foo", "invalid query type"),
    ("SELECTa FROM x", 0, "SELECTa", "invalid query type"),
    ("'SELECT' * FROM x", 0, "SELECT", "invalid query type"),
    ('"SELECT" * FROM x', 0, "SELECT", "invalid query type"),
    ("ſelect * from x", 0, "ſelect", "invalid query type"),
    ("; SELECT * FROM x", 0, ";", "invalid query type"),
    # Fields.
    ("SELECT 1234 FROM x", 7, "1234", "invalid field identifier"),
    ("SELECT 'a' FROM x", 7, "a", "invalid field identifier"),
    ("SELECT -a FROM x", 7, "-a", "invalid field identifier"),
    ("SELECT AND FROM x", 7, "AND", "invalid field identifier"),
    ("SELECT a. FROM x", 10, "FROM", "invalid field identifier"),
    ("SELECT a.* FROM x", 9, "*", "invalid field identifier"),
    ("SELECT a.1 FROM x", 9, "1", "invalid field identifier"),
    ("SELECT :a FROM x", 7, ":a", "invalid field identifier"),
    ("SELECT é名, @ FROM x", 14, "@", "invalid field identifier"),
    ("SELECT *", 8, "", "invalid select fields statement"),
    ("SELECT a b FROM x", 9, "b", "invalid select fields statement"),
    ("SELECT a AS b c FROM x", 14, "c", "invalid select fields statement"),
    ("SELECT a AS b AS c FROM x", 14, "AS", "invalid select fields statement"),
    ("SELECT a AS b.c FROM x", 13, ".", "invalid select fields statement"),
    ("SELECT COUNT(*) FROM x", 12, "(", "invalid select fields statement"),
    ("SELECT DISTINCT a FROM x", 16, "a", "invalid select fields statement"),
    ("SELECT a AS 1 FROM x", 12, "1", "invalid alias identifier"),
    ("SELECT a AS", 11, "", "invalid alias identifier"),
    ("SELECT * AS foo FROM x", 12, "foo", "cannot alias *"),
    ("SELECT a, b AS a FROM x", 10, "b", "another field has this name in the result: use an alias"),
    ('SELECT a.b, "a.b" FROM x', 12, "a.b", "another field has this name in the result: use an alias"),
    # The topic.
    ("SELECT * FROM", 13, "", "invalid topic identifier"),
    ("SELECT * FROM 1234", 14, "1234", "invalid topic identifier"),
    ("SELECT * FROM 'qa'", 14, "qa", "invalid topic identifier"),
    ("SELECT * FROM --", 14, "--", "invalid topic identifier"),
    ("SELECT * FROM @x", 14, "@", "invalid topic identifier"),
    ("SELECT * FROM `x`", 14, "`", "invalid topic identifier"),
    ("SELECT * FROM OR", 14, "OR", "invalid topic identifier"),
    ("SELECT * FROM topic 1234", 20, "1234", "invalid from clause"),
    ("SELECT * FROM x y", 16, "y", "invalid from clause"),
    ("SELECT * FROM x, y", 15, ",", "invalid from clause"),
    ("SELECT * FROM x -- c", 16, "--", "invalid from clause"),
    ("SELECT * FROM x /* c */", 16, "/", "invalid from clause"),
    ("SELECT * FROM x ORDER BY a", 16, "ORDER", "invalid from clause"),
    ("SELECT * FROM x.y.1 .", 20, ".", "invalid from clause"),
    ("SELECT * FROM x.*.*.*", 19, ".", "invalid from clause"),
    ("SELECT * FROM x.", 16, "", "invalid schema identifier"),
    ("SELECT * FROM x.42", 16, "42", "invalid schema identifier"),
    ("SELECT * FROM x.as", 16, "AS", "invalid schema identifier"),
    ('SELECT * FROM x.""', 16, "", "invalid schema identifier"),
    ("SELECT * FROM x.*.42", 17, ".", "cannot specify version for * schema"),
    ("SELECT * FROM a.b.c", 18, "c", "invalid version identifier"),
    ("SELECT * FROM a.b.", 18, "", "invalid version identifier"),
    ("SELECT * FROM a.b.'4'", 18, "4", "invalid version identifier"),
    ("SELECT * FROM a.b.4.2", 18, "4.2", "could not parse schema version"),
    ("SELECT * FROM a.b.-7", 18, "-7", "could not parse schema version"),
    ("SELECT * FROM a.b.4294967296", 18, "4294967296", "could not parse schema version"),
    # The condition.
    ("SELECT * FROM x WHERE", 21, "", "invalid where clause"),
    ("SELECT * FROM x WHERE LIMIT 1", 22, "LIMIT", "invalid where clause"),
    ("SELECT * FROM x WHERE 1 = a", 22, "1", "invalid where clause"),
    ("SELECT * FROM x WHERE a", 23, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a. = 1", 25, "=", "invalid where clause"),
    ("SELECT * FROM x WHERE a IN 1", 24, "IN", "invalid where clause"),
    ("SELECT * FROM x WHERE a == 1", 25, "=", "invalid where clause"),
    ("SELECT * FROM x WHERE a =", 25, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a = b", 26, "b", "invalid where clause"),
    ("SELECT * FROM x WHERE a = falſe", 26, "falſe", "invalid where clause"),
    ("SELECT * FROM x WHERE a = null", 26, "null", "invalid where clause"),
    ("SELECT * FROM x WHERE a = ?", 26, "?", "invalid where clause"),
    ("SELECT * FROM x WHERE a = $1", 26, "$", "invalid where clause"),
    ("SELECT * FROM x WHERE a = : b", 26, ":", "invalid where clause"),
    ("SELECT * FROM x WHERE a = 1-2", 26, "1-2", "invalid where clause"),
    ("SELECT * FROM x WHERE a = - 1", 26, "-", "invalid where clause"),
    ("SELECT * FROM x WHERE a = .5", 26, ".", "invalid where clause"),
    ("SELECT * FROM x WHERE a = (1)", 26, "(", "invalid where clause"),
    ('SELECT * FROM x WHERE a = "b"', 26, "b", QUOTES),
    ("SELECT * FROM x WHERE a = 1e999", 26, "1e999", "number out of range"),
    ("SELECT * FROM x WHERE a = " + "9" * 309, 26, "9" * 40 + "…", "number out of range"),
    ("SELECT * FROM x WHERE a = -" + "9" * 5000, 26, "-" + "9" * 39 + "…", "number out of range"),
    ("SELECT * FROM x WHERE a = 1 AND", 31, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a = 'é' AND 1", 35, "1", "invalid where clause"),
    ("SELECT * FROM x WHERE NOT", 25, "", "invalid where clause"),
    ("SELECT * FROM x WHERE NOT 1", 26, "1", "invalid where clause"),
    ("SELECT * FROM x WHERE a NOT = 1", 28, "=", "expected LIKE or ILIKE"),
    ("SELECT * FROM x WHERE a NOT", 27, "", "expected LIKE or ILIKE"),
    ("SELECT * FROM x WHERE (1 = a)", 23, "1", NO_IDENTIFIER),
    ("SELECT * FROM x WHERE (", 23, "", NO_IDENTIFIER),
    ("SELECT * FROM x WHERE a = 1 AND ()", 33, ")", NO_IDENTIFIER),
    ("SELECT * FROM x WHERE a AND b", 24, "AND", "where clause expressions require comparison operators"),
    ("SELECT * FROM x WHERE a = 1 b", 28, "b", JUNK),
    ("SELECT * FROM x WHERE a = 1 'OR' b", 28, "OR", JUNK),
    ("SELECT * FROM x WHERE a = 1 NOT b = 2", 28, "NOT", JUNK),
    ("SELECT * FROM x WHERE a = 1 = 2", 28, "=", JUNK),
    ("SELECT * FROM x WHERE a = 1 (b = 2)", 28, "(", JUNK),
    ("SELECT * FROM x WHERE (a = 1) b", 30, "b", JUNK),
    ("SELECT * FROM x WHERE (a = 1 b)", 29, "b", JUNK),
    ("SELECT * FROM x WHERE a = 1 #", 28, "#", JUNK),
    ("SELECT * FROM x WHERE (a = 1))", 29, ")", "cannot close expression parentheses"),
    ("SELECT * FROM x WHERE a = 1)", 27, ")", "cannot close expression parentheses"),
    ("SELECT * FROM x WHERE (a = 1", 28, "", 'expected ")"'),
    ("SELECT * FROM x WHERE (a = 1;", 28, ";", 'expected ")"'),
    ("SELECT * FROM x WHERE ((a = 1) LIMIT 1", 31, "LIMIT", 'expected ")"'),
    ("SELECT * FROM x WHERE (a = 1 after ''", 29, "after", 'expected ")"'),
    ("SELECT * FROM x WHERE " + "(" * 101, 122, "(", DEEP),
    ("SELECT * FROM x WHERE " + "NOT " * 101 + "a = 1", 422, "NOT", DEEP),
    ("SELECT * FROM x WHERE " + "NOT (a = 1 OR " * 51 + "a = 1", 722, "NOT", DEEP),
    # The clauses.
    ("SELECT * FROM x OFFSET", 22, "", "invalid offset"),
    ("SELECT * FROM x OFFSET abcd", 23, "abcd", "invalid offset"),
    ("SELECT * FROM x OFFSET true", 23, "true", "invalid offset"),
    ("SELECT * FROM x OFFSET -42", 23, "-42", "could not parse offset"),
    ("SELECT * FROM x OFFSET 1.5", 23, "1.5", "could not parse offset"),
    ("SELECT * FROM x OFFSET 1e3", 23, "1e3", "could not parse offset"),
    ("SELECT * FROM x OFFSET 18446744073709551616", 23, "18446744073709551616", "could not parse offset"),
    (
        *("SELECT * FROM x OFFSET '01abc'", 23, "01abc"),
        "could not parse offset: expected a number, or the id of an event",
    ),
    (
        *("SELECT * FROM x OFFSET '2023-11-20T12:00:00Z'", 23, "2023-11-20T12:00:00Z"),
        "could not parse offset: expected a number, or the id of an event (AFTER takes a time)",
    ),
    ("SELECT * FROM x OFFSET 32 WHERE", 26, "WHERE", "invalid offset clause"),
    ("SELECT * FROM x OFFSET 1 LIMIT 3 OFFSET 6", 40, "6", "offset has already been set"),
    ("SELECT * FROM x LIMIT abcd", 22, "abcd", "invalid limit"),
    ("SELECT * FROM x LIMIT '100'", 22, "100", "invalid limit"),
    ("SELECT * FROM x LIMIT -5", 22, "-5", "could not parse limit"),
    ("SELECT * FROM x LIMIT 7.77", 22, "7.77", "could not parse limit"),
    ("SELECT * FROM x LIMIT 5 WHERE a = 1", 24, "WHERE", "invalid limit clause"),
    ("SELECT * FROM x LIMIT 1 y", 24, "y", "invalid limit clause"),
    ("SELECT * FROM x LIMIT 1 LIMIT 2", 30, "2", "limit has already been set"),
    ("SELECT * FROM x BEFORE", 22, "", "invalid before: " + MOMENT),
    ("SELECT * FROM x AFTER 5", 22, "5", "invalid after: " + MOMENT),
    ("SELECT * FROM x AFTER '2023-11-20'", 22, "2023-11-20", "could not parse after: " + MOMENT),
    ("SELECT * FROM x AFTER '2023-11-20T12:00:00'", 22, "2023-11-20T12:00:00", "could not parse after: " + MOMENT),
    ("SELECT * FROM x AFTER '2023-02-30T12:00:00Z'", 22, "2023-02-30T12:00:00Z", "could not parse after: " + MOMENT),
    ("SELECT * FROM x AFTER '065wzsb8fc00001u'", 22, "065wzsb8fc00001u", "could not parse after: " + MOMENT),
    ("SELECT * FROM x BEFORE '065wzsb8fc00001a' y", 42, "y", "invalid before clause"),
    (
        *("SELECT * FROM x BEFORE '065wzsb8fc00001a' BEFORE '065wzsb8fc00001a'", 49, "065wzsb8fc00001a"),
        "before has already been set",
    ),
    # The end.
    ("SELECT * FROM x; y", 17, "y", "expected the end of the query"),
    ("SELECT * FROM x; SELECT * FROM x", 17, "SELECT", "expected the end of the query"),
    ("SELECT * FROM x LIMIT 1; OFFSET 2", 25, "OFFSET", "expected the end of the query"),
    # Quotes that nothing closes.
    ("SELECT * FROM x WHERE a = 'x", 26, "'x", "quoted string missing closing quote"),
    (r"SELECT * FROM x WHERE a = 'C:\dir\'", 26, r"'C:\\d", "quoted string missing closing quote"),
    ("SELECT * FROM TOPIC 'unclosed", 20, "'uncl", "quoted string missing closing quote"),
    ("SELECT * FROM x LIMIT 1 '€€€€€", 24, "'€€€€", "quoted string missing closing quote"),
    ('SELECT * FROM "x', 14, r"\"x", "quoted name missing closing quote"),
    ('SELECT * FROM "x""', 14, r"\"x\"\"", "quoted name missing closing quote"),
]


@each("around", ["{}", "\u3000\n{} "])
def test_syntax_error(around: str) -> None:
    """A syntax error has the form of the server, with the byte position in the trimmed text and the reason."""
    words = [f'syntax error at position {place} near "{near}": {why}' for _, place, near, why in SYNTAX_ERRORS]
    assert [refusal(around.format(error[0])) for error in SYNTAX_ERRORS] == words


@each(
    "text, details",
    [
        ("", "empty query is invalid"),
        (" \n", "empty query is invalid"),
        ("SELECT", "topic name cannot be empty"),
        ("SELECT a,", "topic name cannot be empty"),
        ('SELECT * FROM ""', "topic name cannot be empty"),
        ("SELECT FROM x", "SELECT requires field projection or *"),
        ("SELECT a, FROM x", "SELECT requires field projection or *"),
        ("SELECT *, a FROM x", "cannot select * and specify fields"),
        ("SELECT a, * FROM x", "cannot select * and specify fields"),
        ("SELECT *, * FROM x", "cannot select * and specify fields"),
        (b"SELECT * FROM x", "a query is a text, got bytes"),
        (None, "a query is a text, got NoneType"),
    ],
)
def test_error_without_position(text: Any, details: str) -> None:
    """Some errors have no position, most as the server's."""
    assert refusal(text) == details


def test_depth() -> None:
    """Parentheses and NOTs go as deep as the limit, on a stack that is nearly used up, too."""

    def parse_below(frames: int, text: str) -> Select:
        return parse_below(frames - 1, text) if frames else parse_full(text)

    texts = ["(" * MAX_DEPTH + "a = 1" + ")" * MAX_DEPTH, "NOT " * MAX_DEPTH + "a = 1"]
    texts.append("NOT (" * (MAX_DEPTH // 2) + "a NOT LIKE '' OR b = 1" + ")" * (MAX_DEPTH // 2))
    deep = sys.getrecursionlimit() - len(traceback_names()) - 60
    for text in texts:
        query = parse_below(deep, "SELECT * FROM x WHERE " + text)
        assert parse_full(to_text(query)) == query


def traceback_names() -> List[str]:
    frame, names = sys._getframe(), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return names


def test_longest_pattern() -> None:
    """A pattern may be as long as the limit, and a text that is no pattern may be longer."""
    assert where("a LIKE '" + "%" * MAX_PATTERN + "'").value == "%" * MAX_PATTERN
    assert where("a = '" + "%" * MAX_PATTERN + "%'").value == "%" * MAX_PATTERN + "%"


def test_flat_depth() -> None:
    """What stands side by side has no depth."""
    terms = " AND ".join(["NOT (a = 1)"] * 1000)
    assert len(where(terms).terms) == 1000


MEGA = 2**20
LONG = {
    "text": ("SELECT * FROM x WHERE a = '" + r"\'" * (MEGA // 2) + "'", "'" * (MEGA // 2)),
    "unclosed": ("SELECT * FROM x WHERE a = '" + r"\'" * (MEGA // 2), None),
    "name": ('SELECT * FROM "' + '""' * (MEGA // 2) + '"', '"' * (MEGA // 2)),
    "unclosed name": ('SELECT * FROM "' + '""' * (MEGA // 2), None),
    "digits": ("SELECT * FROM x WHERE a = " + "9" * MEGA, None),
    "digits and minus": ("SELECT * FROM x WHERE a = " + "9-" * (MEGA // 2), None),
    "fraction": ("SELECT * FROM x WHERE a = 0." + "0" * MEGA, 0.0),
    "parentheses": ("SELECT * FROM x WHERE " + "(" * MEGA, None),
    "spaces": (" " * MEGA + "SELECT * FROM x" + " " * MEGA + "WHERE a = 1" + " " * MEGA, 1),
    "junk": ("SELECT * FROM x " + "€" * MEGA, None),
    "time": ("SELECT * FROM x AFTER '" + "1" * MEGA + "'", None),
    "parameter": ("SELECT * FROM x WHERE a = :" + "v" * MEGA, None),
    "terms": ("SELECT * FROM x WHERE " + "a = 1 AND " * (MEGA // 100) + "b = 2", MEGA // 100 + 1),
}


def test_long() -> None:
    """A query of a megabyte takes little time, and its error is short."""
    for name, (text, wanted) in LONG.items():
        start = time.process_time()
        if wanted is None:
            assert len(refusal(text)) < 500, name
        else:
            query = parse_full(text)
            value = getattr(query.where, "value", query.topic)
            assert wanted == (len(query.where.terms) if isinstance(query.where, Junction) else value), name
        assert time.process_time() - start < 30, name


STRICT = [
    "SELECT * FROM x",
    "select*from qa;;",
    "SELECT name AS first_name, age, color AS favorite_color FROM topic",
    "SELECT * FROM topic.schema.23 OFFSET 3",
    "SELECT * FROM topic.* LIMIT 4 OFFSET 2",
    "SELECT before, after, not FROM before WHERE after = 1 OR not = 2",
    "SELECT * FROM t1.s.9 WHERE a=1 OFFSET 2 LIMIT 3",
]


@each("text", STRICT)
def test_as_strict(text: str) -> None:
    """What the strict dialect takes, without its peculiarities, means the same here."""
    strict, full = parse(text), parse_full(text)
    assert (strict.topic, strict.schema.strip("*"), strict.version) == (full.topic, full.schema, full.major)
    assert [(field.name, field.alias) for field in strict.fields] == [(".".join(c.path), c.alias) for c in full.columns]
    assert (strict.offset, strict.limit) == (full.offset, full.limit)


def test_writes_plain() -> None:
    """The canonical form has keywords in upper case, quotes where they are needed and the clauses in one order."""
    text = (
        "select \"a\".b as \"c\", \"order by\", \"limit\" from \"x\".\"s\".01 where ((not (\"a\">:v or b<>'it\\'s'))) "
        "limit 1 offset 2 before '2023-11-20T13:00:00+01:00' after '065WZSB8FC00001A';"
    )
    assert to_text(parse_full(text, {"v": 1.0})) == (
        "SELECT a.b AS c, \"order by\", \"limit\" FROM x.s.1 WHERE NOT (a > 1.0 OR b != 'it\\'s')"
        " AFTER '065wzsb8fc00001a' BEFORE '2023-11-20T12:00:00Z' OFFSET 2 LIMIT 1"
    )


def test_explains() -> None:
    """The plan has a line for each step."""
    assert explain(parse_full("SELECT * FROM orders")).split("\n") == [
        "topic:  orders",
        "offset: the first event",
        "schema: any",
        "time:   any",
        "filter: none",
        "fields: * (the whole event)",
        "limit:  none",
    ]
    text = "SELECT a.b AS c FROM \"my topic\".s.2 WHERE a='x' or not b=true BEFORE '065wzsb8fc00001a' OFFSET 5 LIMIT 0"
    assert explain(parse_full(text)).split("\n") == [
        'topic:  "my topic"',
        "offset: behind the first 5 stored events",
        "schema: s, major version 2",
        "time:   before '065wzsb8fc00001a'",
        "filter: a = 'x' OR NOT b = true",
        "fields: a.b AS c",
        "limit:  0",
    ]
    text = "SELECT * FROM x OFFSET '065wzsb8fc00001a' AFTER '2023-11-20T12:00:00Z' BEFORE '2023-11-20T12:00:01.5Z'"
    plan = explain(parse_full(text))
    assert "offset: event '065wzsb8fc00001a'\n" in plan
    assert "time:   after '2023-11-20T12:00:00Z' and before '2023-11-20T12:00:01.5Z'\n" in plan


# Random trees, written to text in two ways.

WORDS = st.sampled_from(
    [*NAMES, "a", "b", "SELECT", "like", "a.b", "", "*", 'x"y', '"', "it's", "é \n\x00", "-x", "12", "1e5"]
)
NAME = WORDS | st.text(max_size=5)
PATH = st.lists(NAME, min_size=1, max_size=3).map(tuple)
TEXT = st.text(max_size=8).filter(lambda text: not text.endswith("\\"))
NUMBER = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.binary(min_size=10, max_size=10).map(RLID) | st.integers(0, 2**61).map(times.Instant.from_ns)
UINT64 = st.integers(0, 2**64 - 1)


def comparisons() -> "st.SearchStrategy[Predicate]":
    operator = st.sampled_from("= != > >= < <= LIKE ILIKE".split())
    return st.builds(Compare, PATH, operator, TEXT | NUMBER | st.booleans())


def junctions(inner: "st.SearchStrategy[Predicate]") -> "st.SearchStrategy[Predicate]":
    terms = st.lists(inner, min_size=2, max_size=4).map(tuple)
    return st.builds(Not, inner) | st.builds(Junction, st.sampled_from(["AND", "OR"]), terms)


def distinct(columns: List[Column]) -> bool:
    return len({column.name for column in columns}) == len(columns)


SELECTS = st.builds(
    Select,
    topic=NAME.filter(bool),
    columns=st.lists(st.builds(Column, PATH, st.none() | NAME), max_size=3).filter(distinct).map(tuple),
    schema=st.just("") | NAME,
    where=st.none() | st.recursive(comparisons(), junctions, max_leaves=8),
    before=st.none() | MOMENTS,
    after=st.none() | MOMENTS,
    offset=st.none() | UINT64 | st.binary(min_size=10, max_size=10).map(RLID),
    limit=st.none() | UINT64,
).flatmap(lambda s: st.builds(s._replace, major=(st.none() | st.integers(0, 2**32 - 1)) if s.schema else st.none()))

PROPERTY = settings(max_examples=by_size(60, 30, 500, 20000), deadline=None, database=None, derandomize=True)


@PROPERTY
@given(SELECTS)
def test_written_and_read(query: Select) -> None:
    """The canonical form of any query parses to that query, kinds of values included, and is canonical."""
    text = to_text(query)
    assert repr(parse_full(text)) == repr(query)
    assert to_text(parse_full(text)) == text
    assert show(query.where) in explain(query) if query.where else "filter: none" in explain(query)


class Scribe:
    """Writes a query in one of the many ways in which it can be written; values go into parameters at times."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.params: dict = {}

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def keyword(self, word: str) -> str:
        return self.one_of(word, word.lower(), word.title()) + self.one_of(" ", "\n", "\t\xa0 ")

    def value(self, value: Any) -> str:
        if self.one_of(True, False) or (isinstance(value, str) and value.endswith("\\")):
            name = f"p{len(self.params)}"
            self.params[name] = value
            return f":{name}"
        if isinstance(value, str):
            return "'" + value.replace("'", "\\'") + "'"
        return self.keyword(str(value)) if isinstance(value, bool) else repr(value)

    def predicate(self, predicate: Predicate) -> str:
        if isinstance(predicate, Compare):
            space = self.one_of(" ", "  ", "\n")
            path = f"{self.one_of('', ' ')}.".join('"' + part.replace('"', '""') + '"' for part in predicate.path)
            operator = self.one_of("!=", "<>") if predicate.operator == "!=" else self.keyword(predicate.operator)
            text = f"{path}{space}{operator}{self.value(predicate.value)}"
        elif isinstance(predicate, Not):
            return self.keyword("NOT") + f"({self.predicate(predicate.term)})"
        else:
            joint = " " + self.keyword(predicate.operator)
            text = joint.join(f"({self.predicate(term)})" for term in predicate.terms)
        return f"({text})" if self.one_of(True, False, False) else text


@PROPERTY
@given(st.data(), st.recursive(comparisons(), junctions, max_leaves=6))
def test_said_in_many_ways(data: Any, predicate: Predicate) -> None:
    """The case of keywords, white space, superfluous parentheses and parameters make no difference."""
    scribe = Scribe(data.draw)
    text = scribe.predicate(predicate)
    assert repr(where(text, scribe.params)) == repr(predicate)


SOUP = (
    *"SELECT * FROM x WHERE a = 1 AND OR NOT LIKE <> >= ( ) , . ; : :v 'q' '' ' \" \"n\" - -7 1.2 1e5 1e999".split(" "),
    *"08 t true AS OFFSET LIMIT 5 BEFORE AFTER '2023-11-20T12:00:00Z' '065wzsb8fc00001a' é @ ? \\ \\'".split(" "),
    *["\x00", "\x85", "\ud800", "\u2028", "٣", "½", "'٢٠٢٣-11-20T12:00:00Z'", "'9999-12-31T23:59:59-14:00'"],
)
BEGINNINGS = ["", "SELECT ", "SELECT * FROM x ", "SELECT * FROM x WHERE (a = 1 ", "SELECT * FROM x AFTER '"]
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers())


def survives(text: str, params: Optional[Mapping[str, Any]] = None) -> None:
    try:
        query = parse_full(text, params)
    except InvalidQueryError as error:
        assert error.details.encode("utf-8")
    else:
        assert query.topic
        assert explain(query)


@PROPERTY
@given(st.sampled_from(BEGINNINGS), st.sampled_from(["", " "]), st.lists(st.sampled_from(SOUP), max_size=14), VALUES)
def test_any_tokens(beginning: str, space: str, parts: List[str], value: Any) -> None:
    """Any sequence of tokens gives a query with a topic, or InvalidQueryError with a text that can be sent."""
    survives(beginning + space.join(parts), {"v": value})


@PROPERTY
@given(st.sampled_from(BEGINNINGS), st.text(), st.none() | st.dictionaries(st.text(), VALUES, max_size=2))
def test_any_text(beginning: str, text: str, params: Any) -> None:
    """Any text and any parameters do the same."""
    survives(beginning + text, params)


def test_any_character() -> None:
    """Any character in any place is read or refused."""
    others = [0x131, 0x17F, 0x1680, 0x2028, 0x3000, 0xD800, 0xDC80, 0xFEFF, 0xFFFF, 0x1F600, 0x10FFFF]
    for code in list(range(0x100)) + others:
        for beginning in BEGINNINGS:
            survives(f"{beginning}{chr(code)}'{chr(code)}")
