"""What the server's EnSQL parser accepts and refuses (docs/protocol.rst, section "EnSQL")."""

import pickle
from typing import Any, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.ensql import (
    Comparison,
    Condition,
    Field,
    Kind,
    Logical,
    ParserPanic,
    Query,
    is_queryable,
    parse,
)
from ensign_sync.exceptions import InvalidQueryError
from tests.tables import each


def compare(field: str, value: str, operator: str = "=", kind: Kind = Kind.NUMERIC) -> Comparison:
    return Comparison(field, operator, value, kind)


NAMES = (Field("name"), Field("age"), Field("color"))
ALIASED = (Field("name", "first_name"), Field("age"), Field("color", "favorite_color"))

ACCEPTED: List[Tuple[str, Query]] = [
    ("SELECT * FROM x", Query((), "x")),
    ("select*from x;", Query((), "x")),
    ("select*from qa;;", Query((), "qa")),
    ("SELECT * FROM x ; ;", Query((), "x")),
    ("SELECTa FROMx", Query((Field("a"),), "x")),
    ("  SELECT\t*\nFROM\r\nx\v", Query((), "x")),
    ("SELECT name FROM topic", Query(NAMES[:1], "topic")),
    ("SELECT name, age ,color FROM topic", Query(NAMES, "topic")),
    ("SELECT name AS first_name, age, color AS favorite_color FROM topic", Query(ALIASED, "topic")),
    ("SELECT a AS b, a AS c FROM x", Query((Field("a", "b"), Field("a", "c")), "x")),
    ("SELECT * FROM topic.schema", Query((), "topic", "schema")),
    ("SELECT * FROM topic.schema;", Query((), "topic", "schema")),
    ("SELECT * FROM topic.*", Query((), "topic", "*")),
    ("SELECT * FROM topic.schema.23;", Query((), "topic", "schema", 23)),
    ("SELECT * FROM topic . schema . 23", Query((), "topic", "schema", 23)),
    ("SELECT * FROM x.", Query((), "x")),
    ("SELECT * FROM x.y.", Query((), "x", "y")),
    ("SELECT * FROM topic OFFSET 42", Query((), "topic", offset=42)),
    ("SELECT * FROM topic LIMIT 42;", Query((), "topic", limit=42)),
    ("SELECT * FROM topic OFFSET 0 LIMIT 0", Query((), "topic", offset=0, limit=0)),
    ("SELECT * FROM topic LIMIT 42 OFFSET 23;", Query((), "topic", offset=23, limit=42)),
    ("SELECT * FROM t1.s.9 WHERE a=1 OFFSET 2 LIMIT 3", Query((), "t1", "s", 9, compare("a", "1"), 2, 3)),
    ("SELECT * 'FROM' x 'LIMIT' 5 ';'", Query((), "x", limit=5)),
]


@each("text, query", ACCEPTED)
def test_accepted(text: str, query: Query) -> None:
    """A valid query is carried whole: fields, aliases, topic, schema, version, condition, bounds."""
    assert parse(text) == query


@each(
    "text, value, kind",
    [
        (r"'it\'s'", r"it\'s", Kind.QUOTED),
        ("''", "", Kind.QUOTED),
        ("1-2.3.4", "1-2.3.4", Kind.NUMERIC),
        ("-1.5", "-1.5", Kind.NUMERIC),
        ("true", "true", Kind.BOOLEAN),
    ],
)
def test_comparison(text: str, value: str, kind: Kind) -> None:
    """A comparison carries the operator in upper case, and the text and kind of the value."""
    for operator in ["=", "!=", "<>", ">", ">=", "<", "<=", "LIKE", "ILIKE"]:
        where = parse(f"SELECT * FROM x WHERE a {operator.lower()} {text};").where
        assert where == Comparison("a", operator, value, kind)


def test_logical() -> None:
    """Terms are joined by AND and OR."""
    where = parse("SELECT * FROM x WHERE a1 = 1 and b2 > 2").where
    assert where == Logical("AND", compare("a1", "1"), compare("b2", "2", ">"))


def show(condition: Condition) -> str:
    if isinstance(condition, Comparison):
        return condition.field
    return f"({show(condition.left)} {condition.operator} {show(condition.right)})"


@each(
    "text, tree",
    [
        ("a AND b AND c", "((a AND b) AND c)"),
        ("a OR b OR c", "((a OR b) OR c)"),
        ("a OR b AND c", "(a OR (b AND c))"),
        ("a AND b OR c AND d", "((a AND b) OR (c AND d))"),
        ("(a OR b) AND c", "((a OR b) AND c)"),
        ("a AND (b OR c) AND d", "((a AND (b OR c)) AND d)"),
        ("(a)", "a"),
        ("(a AND (b OR (c AND d)))", "(a AND (b OR (c AND d)))"),
        ("(a AND (b))", "(a AND b)"),
        ("(a OR (b AND c", "(a OR (b AND c))"),
        ("(a OR b LIMIT 1", "(a OR b)"),
        ("(a OR b) OFFSET 1", "(a OR b)"),
    ],
)
def test_precedence(text: str, tree: str) -> None:
    """AND binds tighter than OR, parentheses bind tightest and need not be closed."""
    for name in "abcd":
        text = text.replace(name, name + "=1")
    where = parse("SELECT * FROM x WHERE " + text).where
    assert where is not None
    assert show(where) == tree


SYNTAX_ERRORS = [
    # What the statement is.
    ("WHERE", 0, "WHERE", "invalid query type"),
    ("foo", 0, "foo", "invalid query type"),
    ("INSERT INTO x", 0, "INSERT", "invalid query type"),
    ("'SELECT' * FROM x", 0, "SELECT", "invalid query type"),
    ("-- c", 0, "--", "invalid query type"),
    # Fields.
    ("SELECT 1234 FROM topic", 7, "1234", "invalid field identifier"),
    ("SELECT 'name' FROM topic", 7, "name", "invalid field identifier"),
    ("SELECT 'unclosed", 7, "", "invalid field identifier"),
    ("SELECT order_id FROM x", 7, "OR", "invalid field identifier"),
    ("SELECT t FROM x", 7, "t", "invalid field identifier"),
    ("SELECT *", 8, "", "invalid select fields statement"),
    ("SELECT name age color FROM topic", 12, "age", "invalid select fields statement"),
    ("SELECT name AS n age FROM topic", 17, "age", "invalid select fields statement"),
    ("SELECT a AS b AS c FROM x", 14, "AS", "invalid select fields statement"),
    ("SELECT COUNT(*) FROM x", 12, "(", "invalid select fields statement"),
    ('SELECT "a" FROM x', 7, "", "invalid select fields statement"),
    ("SELECT\xa0* FROM x", 6, "", "invalid select fields statement"),
    ("SELECT name AS 1234 FROM topic", 15, "1234", "invalid alias identifier"),
    ("SELECT a AS", 11, "", "invalid alias identifier"),
    ("SELECT * AS foo FROM topic", 12, "foo", "cannot alias *"),
    # The topic.
    ("SELECT * FROM", 13, "", "invalid topic identifier"),
    ("SELECT * FROM 1234", 14, "1234", "invalid topic identifier"),
    ("SELECT * FROM 9x", 14, "9", "invalid topic identifier"),
    ("SELECT * FROM 'qa'", 14, "qa", "invalid topic identifier"),
    ("SELECT * FROM orders", 14, "OR", "invalid topic identifier"),
    ("SELECT * FROM t", 14, "t", "invalid topic identifier"),
    ("SELECT * FROM 'é\n\"' x", 14, 'é\\n\\"', "invalid topic identifier"),
    ("SELECT * FROM topic 1234", 20, "1234", "invalid from clause"),
    ("SELECT * FROM topic SELECT", 20, "SELECT", "invalid from clause"),
    ("SELECT * FROM qa x", 17, "x", "invalid from clause"),
    ("SELECT * FROM x -- c", 16, "--", "invalid from clause"),
    ("SELECT * FROM x ORDER BY a", 16, "OR", "invalid from clause"),
    ("SELECT * FROM x.* y", 18, "y", "invalid from clause"),
    ("SELECT * FROM x.y 'é' 1", 18, "é", "invalid from clause"),
    ("SELECT * FROM x.y.1 .", 20, ".", "invalid from clause"),
    ("SELECT * FROM topic.AS", 20, "AS", "invalid schema identifier"),
    ("SELECT * FROM topic.42", 20, "42", "invalid schema identifier"),
    ("SELECT * FROM topic.'schema'", 20, "schema", "invalid schema identifier"),
    ("SELECT * FROM topic.*.42", 21, ".", "cannot specify version for * schema"),
    ("SELECT * FROM a.b.c", 18, "c", "invalid version identifier"),
    ("SELECT * FROM topic.schema.WHERE", 27, "WHERE", "invalid version identifier"),
    ("SELECT * FROM topic.schema.'42'", 27, "42", "invalid version identifier"),
    ("SELECT * FROM topic.schema.42.12", 27, "42.12", "could not parse schema version"),
    ("SELECT * FROM topic.schema.-7", 27, "-7", "could not parse schema version"),
    # The condition.
    ("SELECT * FROM x WHERE", 21, "", "invalid where clause"),
    ("SELECT * FROM x WHERE 1 = a", 22, "1", "invalid where clause"),
    ("SELECT * FROM x WHERE t = 1", 22, "t", "invalid where clause"),
    ("SELECT * FROM x WHERE a", 23, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a.b = 1", 23, ".", "invalid where clause"),
    ("SELECT * FROM x WHERE a IN 1", 24, "IN", "invalid where clause"),
    ("SELECT * FROM x WHERE a =", 25, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a = 'x", 26, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a = null", 26, "null", "invalid where clause"),
    ("SELECT * FROM x WHERE a = ?", 26, "", "invalid where clause"),
    ("SELECT * FROM x WHERE k = $1", 26, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a = 1 AND", 31, "", "invalid where clause"),
    ("SELECT * FROM x WHERE a = 'é' AND 1", 35, "1", "invalid where clause"),
    ("SELECT * FROM x WHERE ((a = 1))", 24, "(", "where clause predicates expressions must start with an identifier"),
    ("SELECT * FROM x WHERE (1 = a)", 25, "1", "where clause predicates expressions must start with an identifier"),
    ("SELECT * FROM x WHERE (", 23, "", "where clause predicates expressions must start with an identifier"),
    ("SELECT * FROM x WHERE a AND b", 28, "AND", "where clause expressions require comparison operators"),
    ("SELECT * FROM x WHERE a = 1 'OR' b", 33, "OR", "where clause predicates require logical operators"),
    ("SELECT * FROM x WHERE a = 1e5", 29, "e5", "cannot append or update condition in group"),
    ("SELECT * FROM x WHERE a = 1 = 2", 30, "=", "cannot append or update condition in group"),
    ("SELECT * FROM x WHERE a = 1 (b = 2)", 29, "(", "cannot append or update condition in group"),
    ("SELECT * FROM x WHERE (a = 1))", 30, ")", "cannot close expression parentheses"),
    ("SELECT * FROM x WHERE a = 1)", 28, ")", "cannot close expression parentheses"),
    # The bounds.
    ("SELECT * FROM x OFFSET", 22, "", "invalid offset"),
    ("SELECT * FROM topic OFFSET abcd", 27, "abcd", "invalid offset"),
    ("SELECT * FROM x OFFSET '01abc'", 23, "01abc", "invalid offset"),
    ("SELECT * FROM topic OFFSET -42", 27, "-42", "could not parse offset"),
    ("SELECT * FROM x OFFSET 1.5", 23, "1.5", "could not parse offset"),
    ("SELECT * FROM x OFFSET 18446744073709551616", 23, "18446744073709551616", "could not parse offset"),
    ("SELECT * FROM topic OFFSET 32 WHERE", 30, "WHERE", "invalid offset clause"),
    ("SELECT * FROM x OFFSET 1 OFFSET 1", 25, "OFFSET", "invalid offset clause"),
    ("SELECT * FROM topic OFFSET 5 LIMIT 3 OFFSET 6", 44, "6", "offset has already been set"),
    ("SELECT * FROM topic LIMIT abcd", 26, "abcd", "invalid limit"),
    ("SELECT * FROM topic LIMIT '100'", 26, "100", "invalid limit"),
    ("SELECT * FROM x LIMIT -5", 22, "-5", "could not parse limit"),
    ("SELECT * FROM topic LIMIT 7.77", 26, "7.77", "could not parse limit"),
    ("SELECT * FROM x LIMIT 5 WHERE a = 1", 24, "WHERE", "invalid limit clause"),
    ("SELECT * FROM x LIMIT 1 LIMIT 1", 24, "LIMIT", "invalid limit clause"),
    ("SELECT * FROM x LIMIT 1 y", 24, "y", "invalid limit clause"),
    ("SELECT * FROM topic LIMIT 5 OFFSET 3 LIMIT 6", 43, "6", "limit has already been set"),
    # A quote that nothing closes, where the query might end.
    ("SELECT * FROM TOPIC 'unclosed", 20, "'uncl", "quoted string missing closing quote"),
    ("SELECT * FROM x; '", 17, "'", "quoted string missing closing quote"),
    ("SELECT * FROM x WHERE (a = 1) 'ééé", 30, "'éé", "quoted string missing closing quote"),
    ("SELECT * FROM x LIMIT 1 '€€", 24, r"'€\xe2", "quoted string missing closing quote"),
]


def refusal(text: str) -> str:
    with pytest.raises(InvalidQueryError) as caught:
        parse(text)
    assert type(caught.value) is InvalidQueryError
    assert caught.value.details == str(caught.value)
    return caught.value.details


@each("around", ["{}", "\u3000\n{} "])
def test_syntax_error(around: str) -> None:
    """A syntax error has the server's words, with the byte position in the trimmed text."""
    words = [f'syntax error at position {place} near "{near}": {why}' for _, place, near, why in SYNTAX_ERRORS]
    assert [refusal(around.format(error[0])) for error in SYNTAX_ERRORS] == words


UNHANDLED = 'parser has reached an unhandled state: expected ")" but received '


@each(
    "text, details",
    [
        ("", "empty query is invalid"),
        (" \n", "empty query is invalid"),
        ("SELECT", "topic name cannot be empty"),
        ("SELECT a,", "topic name cannot be empty"),
        ("SELECT FROM topic", "SELECT requires field projection or *"),
        ("SELECT a, FROM x", "SELECT requires field projection or *"),
        ("SELECT assigned FROM x", "SELECT requires field projection or *"),
        ("SELECT *, name FROM topic", "cannot select * and specify fields"),
        ("SELECT *, * FROM topic", "cannot select * and specify fields"),
        ("SELECT * FROM x WHERE (a = 1) b", UNHANDLED + '"b"'),
        ("SELECT * FROM x WHERE (a = 1) = 2", UNHANDLED + '"="'),
        ("SELECT * FROM x WHERE (a = 1) 'é\"'", UNHANDLED + r'"é\""'),
    ],
)
def test_error_without_position(text: str, details: str) -> None:
    """Some errors of the server have no position."""
    assert refusal(text) == details


@each(
    "text, position, near",
    [
        ('SELECT * FROM "x"', 14, r"\"x\""),
        ("SELECT * FROM `x`", 14, "`x`"),
        ("SELECT * FROM @x", 14, "@x"),
        ("SELECT * FROM é", 14, "é"),
        ("SELECT * FROM x; y", 17, "y"),
        ("SELECT * FROM qa; x", 18, "x"),
        ("SELECT * FROM x /* c */", 16, "/* c */"),
        ('SELECT * FROM x "', 16, r"\""),
        ("SELECT * FROM x #", 16, "#"),
        ("SELECT * FROM x ''", 16, "''"),
        ("SELECT * FROM x.@", 16, "@"),
        ("SELECT * FROM x WHERE a = 1 ?", 28, "?"),
        ("SELECT * FROM x WHERE (a = 1) ?", 30, "?"),
        ("SELECT * FROM x LIMIT 1; SELECT * FROM x", 25, "SELECT * FROM x"),
        ("SELECT * FROM x OFFSET 1 LIMIT 1 " + "€" * 7, 33, "€€€€€€" + r"\xe2\x82"),
    ],
)
def test_panic(text: str, position: int, near: str) -> None:
    """Where the server's parser panics, the error says so by its type and shows the place."""
    with pytest.raises(ParserPanic) as caught:
        parse(text)
    wanted = "the name of a topic" if position == 14 else "the end of the query"
    assert caught.value.details.startswith(f'syntax error at position {position} near "{near}": expected {wanted} (')
    assert "cannot be quoted" in caught.value.details


def test_panic_is_picklable() -> None:
    """The error survives a trip to another process."""
    error = pickle.loads(pickle.dumps(ParserPanic("why")))
    assert (type(error), error.details) == (ParserPanic, "why")


@each(
    "text, version",
    [
        ("0", 0),
        ("00", 0),
        ("23", 23),
        ("007", 7),
        ("010", 8),
        ("4294967295", 2**32 - 1),
        ("4294967296", None),
        ("037777777777", 2**32 - 1),
        ("040000000000", None),
        ("08", None),
        ("09", None),
        ("1-2", None),
        ("9" * 5000, None),
    ],
)
def test_version(text: str, version: Any) -> None:
    """A version is a number of 32 bits, octal after a leading zero."""
    query = f"SELECT * FROM x.y.{text} LIMIT 1"
    if version is None:
        with pytest.raises(InvalidQueryError, match="could not parse schema version$"):
            parse(query)
    else:
        assert parse(query).version == version


@each("word", ["offset", "limit"])
@each(
    "text, number",
    [
        ("0", 0),
        ("010", 10),
        ("08", 8),
        ("0" * 5000 + "1", 1),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("9" * 5000, None),
        ("-0", None),
        ("1.0", None),
    ],
)
def test_bounds(word: str, text: str, number: Any) -> None:
    """OFFSET and LIMIT take a decimal number of 64 bits."""
    query = f"SELECT * FROM x {word} {text}"
    if number is None:
        with pytest.raises(InvalidQueryError, match=f"could not parse {word}$"):
            parse(query)
    else:
        assert getattr(parse(query), word) == number


def test_queryable() -> None:
    """A name of letters, digits, underscores and minus signs can be queried."""
    names = ["x-y-z", "under_score", "xorders", "n-1", "e9", "truely", "UPPER", "x", "_1", "tRUE"]
    assert [name for name in names if is_queryable(name)] == names


UNQUERYABLE = [
    *"orders Orders selects from_x limits likes assets where1 offsets andy ilike2 t f true false TRUE".split(),
    *"a.b a.b.c a. .a 9x -x 1 `x` @x x; x;; é xé * select".split(),
    *['"x"', "", " ", " x", "x ", "x y", "x limit 1", "x where a = 1", "\ud800"],
]


def test_not_queryable() -> None:
    """A name cannot be queried that begins like a reserved word or holds anything else, a dot included."""
    assert [name for name in UNQUERYABLE if is_queryable(name)] == []


def test_long_query() -> None:
    """The depth and length of a condition are not limited by the stack."""
    deep = " OR ".join(["(a = 1"] * 1010) + ")" * 1010
    assert isinstance(parse("SELECT * FROM x WHERE " + deep).where, Logical)


FRAGMENTS = [
    *"SELECT * FROM x WHERE a = 1 AND OR LIKE ( ) , . ; 'q' '' ' - -7 1.2 08 t AS OFFSET LIMIT 5 é @".split(" "),
    *["\\'", '"', "\x85", "\ud800"],
]
BEGINNINGS = ["", "SELECT ", "SELECT * FROM x ", "SELECT * FROM x WHERE (a = 1 "]
PARTS = st.lists(st.sampled_from(FRAGMENTS), max_size=12)


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(BEGINNINGS), st.sampled_from(["", " "]), PARTS)
def test_any_text(beginning: str, space: str, parts: List[str]) -> None:
    """Any text gives a query with a topic, or InvalidQueryError with a text that can be sent."""
    try:
        assert parse(beginning + space.join(parts)).topic
    except InvalidQueryError as error:
        assert error.details.encode("utf-8")


def test_any_character() -> None:
    """Any character in any place is read or refused."""
    others = [0x131, 0x17F, 0x1680, 0x2028, 0x3000, 0xD800, 0xDC80, 0xFEFF, 0xFFFF, 0x1F600, 0x10FFFF]
    for code in list(range(0x100)) + others:
        for beginning in BEGINNINGS[2:]:
            try:
                parse(f"{beginning}{chr(code)}'{chr(code)}")
            except InvalidQueryError as error:
                assert error.details.encode("utf-8")
