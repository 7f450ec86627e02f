"""Which events a query of the full dialect wants, and what it makes of them."""

import json
import re
import time
from typing import Any, Dict, Optional

from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync import times
from ensign_sync.ensql import Column, Compare, Junction, Not, Plan, Predicate, Record, Select, parse_full
from ensign_sync.ensql.conditions import MAX_PATTERN
from ensign_sync.ensql.like import compile_like, fold
from ensign_sync.ids import RLID
from tests.size import by_size
from tests.tables import each

PAYLOAD: Dict[str, Any] = json.loads(
    r"""{"price": 10, "ratio": 2.5, "side": "buy", "ok": true, "off": false, "nil": null, "list": [1], "zero": 0,
    "at": "2023-11-20T12:00:00Z", "big": 9007199254740993, "nan": NaN, "inf": Infinity, "text": "10", "empty": "",
    "deep": {"er": {"est": 7}, "side": "in"}, "a.b": 1, "order_id": 5, "": 3, "n\u0000ul": "x\u0000y",
    "sur": "\ud800"}"""
)
META = {"side": "meta", "region": "eu", "count": "10", "nil": "meta", "deep.x": "dotted", "deep": "meta", "a.c": "1"}


def record(data: Any = PAYLOAD, meta: Any = META, committed_ns: Optional[int] = None, **changes: Any) -> Record:
    return Record(data, meta, "order", 2, bytes(10), committed_ns)._replace(**changes)


def wants(condition: str, subject: Optional[Record] = None, **params: Any) -> bool:
    return Plan(parse_full("SELECT * FROM x WHERE " + condition, params)).wants(subject or record())


TRUE = [
    "price = 10",
    "price = 10.0",
    "price = 1e1",
    "price != 11",
    "price <> 10.5",
    "price > 9.99",
    "price >= 10",
    "price < 11",
    "price <= 10",
    "ratio = 2.5",
    "ratio > 2",
    "ratio > -3",
    "zero = 0",
    "zero = -0.0",
    "big = 9007199254740993",
    "big != 9007199254740992",
    "big > 9007199254740992.0",
    "inf > 1e308",
    "side = 'buy'",
    "side != 'Buy'",
    "side > 'but'",
    "side < 'z'",
    "side >= 'buy'",
    "empty = ''",
    "empty < 'a'",
    "text = '10'",
    "text < '9'",
    "at >= '2023-11-20T12:00:00Z'",
    "at < '2023-11-21'",
    "ok = true",
    "ok != false",
    "off = FALSE",
    "off <> t",
    "deep.er.est = 7",
    "deep.side = 'in'",
    "\"a.b\" = 1",
    "order_id = 5",
    '"" = 3',
    "region = 'eu'",
    "count = '10'",
    "deep.x = 'dotted'",
    "a.c = '1'",
    "side LIKE 'b_y'",
    "side like '%u%'",
    "side not like 'B%'",
    "side ilike 'B%Y'",
    "region LIKE 'eu'",
    "NOT price = 11",
    "NOT (price = 11 OR side = 'sell')",
    "NOT (price = 10 AND side = 'sell')",
    "NOT NOT price = 10",
    "price = 11 OR side = 'buy' AND ok = true",
    "(price = 11 OR side = 'buy') AND ok = true",
    "missing = 1 OR price = 10",
    "price = 10 OR missing = 1",
    "NOT (missing = 1 AND price = 11)",
    '"n\x00ul" = \'x\x00y\'',
    "sur = '\ud800'",
    "sur LIKE '_'",
]
FALSE = [
    "price = 11",
    "price != 10",
    "price > 10",
    "price < 10",
    "big = 9007199254740992",
    "side = 'BUY'",
    "side != 'buy'",
    "ok = false",
    "ok != true",
    "deep.er.est = 8",
    "side LIKE 'BUY'",
    "side LIKE 'b'",
    "side ILIKE 's%'",
    "region = 'EU'",
    "price = 10 AND side = 'sell'",
    "NOT price = 10",
]
UNKNOWN = [
    # A missing field.
    *["missing = 1", "missing != 1", "missing LIKE '%'", "missing = true", "deep.nope = 1", "deep.er.est.x = 1"],
    *["price.x != 1", "a.b != 2", "Price != 1", "region.x != ''"],
    # Another kind.
    *["price = '10'", "price != '10'", "text = 10", "text != 10", "text > 9", "count > 9", "count != 10"],
    *["price != true", "ok = 1", "ok != 0", "ok < 2", "off = 0", "zero = false", "ok = 'true'", "ok != 'true'"],
    *["price LIKE '10'", "price LIKE '%'", "ok ILIKE '%'", "side LIKE 5", "side ILIKE true", "price LIKE 10"],
    *["nil = 'meta'", "nil != 1", "nil LIKE '%'", "list != 1", "list = 1", "deep != 'meta'", "deep LIKE '%'"],
    # Truth values have no order, and a NaN has none either.
    *["ok > false", "off <= true", "nan = 1", "nan != 1", "nan < 1", "nan >= 1"],
]


@each("condition", TRUE)
def test_true(condition: str) -> None:
    """Such a condition is true, and its opposite is not."""
    assert wants(condition) is True
    assert wants(f"NOT ({condition})") is False


@each("condition", FALSE)
def test_false(condition: str) -> None:
    """Such a condition is not true, and its opposite is."""
    assert wants(condition) is False
    assert wants(f"NOT ({condition})") is True


@each("condition", UNKNOWN)
def test_unknown(condition: str) -> None:
    """A missing field and another kind match nothing, under no operator and not under NOT."""
    for text in (condition, f"NOT {condition}", f"NOT NOT {condition}", f"NOT (price = 10 AND {condition})"):
        assert wants(text) is False
    for text in (f"{condition} OR price = 10", f"NOT ({condition} AND price = 11)"):
        assert wants(text) is True


LOGIC = {True: "price = 10", False: "price = 11", None: "missing = 1"}


@each("left", LOGIC)
@each("right", LOGIC)
def test_three_values(left: Optional[bool], right: Optional[bool]) -> None:
    """AND, OR and NOT know unknown as SQL does."""
    values = (left, right)
    both = False if False in values else None if None in values else True
    either = True if True in values else None if None in values else False
    for operator, result in (("AND", both), ("OR", either)):
        text = f"{LOGIC[left]} {operator} {LOGIC[right]}"
        assert wants(text) is (result is True)
        assert wants(f"NOT ({text})") is (result is False)


@each("data", [None, 5, "side", True, [], [{"side": "buy"}], {}])
def test_payload_without_fields(data: Any) -> None:
    """A payload that is no object has no fields, so the metadata's count."""
    assert wants("side = 'meta'", record(data))
    assert wants("deep.x = 'dotted' AND NOT a.c = '2'", record(data))
    assert not wants("price != 1", record(data))
    assert not wants("side != 'meta'", record(data, meta={}))


def test_parameter() -> None:
    """The value of a parameter is compared as it is."""
    assert wants("price = :v", v=10)
    assert wants("side = :v", v=b"buy")
    assert wants("side LIKE :v", v="b%")
    assert not wants("side = :v", v="' OR price = 10 OR side = '")
    assert not wants("text = :v", v=10)


@each(
    "source, wanted",
    [
        ("x", True),
        ("x.*", True),
        ("x.*.*", True),
        ("x.order", True),
        ("x.order.*", True),
        ("x.order.2", True),
        ("x.order.1", False),
        ("x.Order", False),
        ("x.orders.2", False),
        ('x."*"', False),
    ],
)
def test_event_type(source: str, wanted: bool) -> None:
    """A schema keeps the events of that name, a version those of that major version."""
    assert Plan(parse_full("SELECT * FROM " + source)).wants(record()) is wanted


MILLISECONDS = 1700481600123
ID = RLID.of(MILLISECONDS, 5)
AT = "2023-11-20T12:00:00.123Z"


def between(clause: str, identifier: bytes = ID.bytes, committed_ns: Optional[int] = None) -> bool:
    return Plan(parse_full("SELECT * FROM x " + clause)).wants(record(id=identifier, committed_ns=committed_ns))


@each("step", [-1, 0, 1])
def test_before_and_after_an_event(step: int) -> None:
    """BEFORE and AFTER an event are about the order of ids and leave the event itself out."""
    other = RLID.of(MILLISECONDS, 5 + step)
    assert between(f"AFTER '{other}'") is (step < 0)
    assert between(f"BEFORE '{other}'") is (step > 0)
    assert between(f"AFTER '{other}' BEFORE '{RLID.of(MILLISECONDS + 1, 0)}'") is (step < 0)


@each(
    "time, after",
    [
        ("2023-11-20T12:00:00.122Z", True),
        (AT, True),
        ("2023-11-20T13:00:00.123+01:00", True),
        ("2023-11-20T12:00:00.123999999Z", True),
        ("2023-11-20T12:00:00.124Z", False),
        ("0001-01-01T00:00:00Z", True),
        ("9999-12-31T23:59:59Z", False),
    ],
)
def test_before_and_after_a_time(time: str, after: bool) -> None:
    """The time in an id has milliseconds; AFTER takes those of the time itself, BEFORE the rest."""
    assert between(f"AFTER '{time}'") is after
    assert between(f"BEFORE '{time}'") is not after


@each(
    "time, after",
    [
        ("2023-11-20T12:00:01.000000001Z", True),
        ("2023-11-20T12:00:01.000000002Z", True),
        ("2023-11-20T12:00:01.000000003Z", False),
    ],
)
def test_committed(time: str, after: bool) -> None:
    """A time of storage that is given goes before that in the id, and has nanoseconds."""
    committed = times.parse("2023-11-20T12:00:01.000000002Z").ns
    assert between(f"AFTER '{time}'", committed_ns=committed) is after
    assert between(f"BEFORE '{time}'", committed_ns=committed) is not after
    assert between(f"AFTER '{time}'", b"", committed) is after


def test_no_time() -> None:
    """An event without a known place is neither before nor after anything."""
    for clause in (f"AFTER '{AT}'", f"BEFORE '{AT}'", f"AFTER '{RLID(bytes(10))}'", f"BEFORE '{ID}'"):
        assert not between(clause, b"")
        assert not between(clause, bytes(9) + b"12")


def test_all_conditions() -> None:
    """Schema, place and condition must all hold; OFFSET and LIMIT are not looked at."""
    text = f"SELECT * FROM x.order WHERE price = 10 AFTER '{AT}' BEFORE '2023-11-20T12:00:01Z' LIMIT 0 OFFSET 9"
    plan = Plan(parse_full(text))
    good = record(id=ID.bytes)
    assert plan.wants(good)
    for bad in ({"schema": "x"}, {"id": bytes(10)}, {"id": b"\xff" * 10}, {"data": {"price": 1}}):
        assert not plan.wants(good._replace(**bad))
    assert plan.select.limit == 0


@each(
    "columns, row",
    [
        ("*", None),
        ("price", {"price": 10}),
        ("price AS p, side AS price", {"p": 10, "price": "buy"}),
        ("price, price AS p", {"price": 10, "p": 10}),
        ("missing, price", {"price": 10}),
        ("missing AS m", {}),
        ("nil, list, ok", {"nil": None, "list": [1], "ok": True}),
        ("deep", {"deep": PAYLOAD["deep"]}),
        ("deep.er.est, deep.er AS d", {"deep.er.est": 7, "d": {"est": 7}}),
        ("deep.x, deep.nope, price.x", {"deep.x": "dotted"}),
        ('region, "a.b", a.b AS "x y"', {"region": "eu", "a.b": 1}),
    ],
)
def test_project(columns: str, row: Any) -> None:
    """A row has the selected fields under their names, those that are missing left out."""
    assert Plan(parse_full(f"SELECT {columns} FROM x")).project(record()) == row


def test_project_without_fields() -> None:
    """A payload that is no object gives what the metadata has."""
    plan = Plan(parse_full("SELECT side, price, region AS r FROM x"))
    assert plan.project(record([1])) == plan.project(record(None)) == {"side": "meta", "r": "eu"}
    assert plan.project(record(None, meta={})) == {}


@each(
    "pattern, text, like, ilike",
    [
        ("", "", True, True),
        ("", "a", False, False),
        ("abc", "abc", True, True),
        ("abc", "ABC", False, True),
        ("abc", "abcd", False, False),
        ("%", "", True, True),
        ("%", "a\nb", True, True),
        ("%%", "a", True, True),
        ("_", "", False, False),
        ("_", "\n", True, True),
        ("_", "😀", True, True),
        ("_%", "", False, False),
        ("%__", "a", False, False),
        ("a%", "abc", True, True),
        ("%c", "abc", True, True),
        ("a%c", "ac", True, True),
        ("ab%bc", "abc", False, False),
        ("a_%_c", "abc", False, False),
        ("a_%_c", "abbc", True, True),
        ("%b%b%", "abc", False, False),
        ("%_b_%", "aabb", True, True),
        ("%b_%_b", "abcb", False, False),
        ("%a_b%", "aacb", True, True),
        (".*", "abc", False, False),
        ("a.c%", "abc", False, False),
        (r"a\%", r"a\b", True, True),
        ("GRÖSSE%", "größer", False, False),
        ("GRÖßE", "größe", False, True),
        ("_", "ß", True, True),
        ("ẞ", "ß", False, True),
        ("ΣΑΣ", "σας", False, True),
        ("i%", "İstanbul", False, False),
        ("_stanbul", "İstanbul", True, True),
        ("\ud800%", "\ud800\x00", True, True),
    ],
)
def test_like(pattern: str, text: str, like: bool, ilike: bool) -> None:
    """``%`` is any run, ``_`` one character; LIKE knows cases, ILIKE does not, character by character."""
    assert compile_like(pattern)(text) is like
    assert compile_like(pattern, ignore_case=True)(text) is ilike


def test_fold_keeps_the_length() -> None:
    """Without cases every character is still one, and whatever stands around it makes no difference."""
    for code in range(0x11000):
        character = chr(code)
        assert len(fold(character)) == 1
        assert fold(character + "ß") == fold(character) + "ß"
    assert not {fold(chr(code)) for code in range(0x11000) if chr(code) not in "%_"} & set("%_")


PROPERTY = settings(max_examples=by_size(100, 50, 1000, 40000), deadline=None, database=None, derandomize=True)


@PROPERTY
@given(st.text("ab%_", max_size=12), st.text("ab", max_size=14))
def test_like_as_a_regular_expression(pattern: str, text: str) -> None:
    """A pattern says what the plain regular expression says."""
    expression = "".join({"%": ".*", "_": "."}.get(character, character) for character in pattern)
    assert compile_like(pattern)(text) is (re.fullmatch(expression, text, re.DOTALL) is not None)


@PROPERTY
@given(st.text("ab_", min_size=1, max_size=6), st.integers(60, 400), st.text("ab", max_size=20))
def test_like_after_many_tries(segment: str, run: int, end: str) -> None:
    """The same holds for long texts in which a segment nearly matches again and again."""
    text = "ab" * run + end
    for pattern in (f"%{segment}b", f"%{segment}%", f"a%{segment}{segment}%b%", f"%b{segment}_b%"):
        expression = "".join({"%": ".*?", "_": "."}.get(character, character) for character in pattern)
        assert compile_like(pattern)(text) is (re.fullmatch(expression, text) is not None)


HOSTILE = [
    ("%a" * (MAX_PATTERN // 2), "a"),
    ("%a" * (MAX_PATTERN // 2 - 1) + "%b", "a"),
    ("%a_" * (MAX_PATTERN // 3 - 1) + "b%", "a"),
    ("%" + "a_" * (MAX_PATTERN // 2 - 2) + "b%", "a"),
    ("%" + "_a" * (MAX_PATTERN // 2 - 2) + "b%", "a"),
    ("%" + "aab_" * (MAX_PATTERN // 4 - 1) + "%", "aabaaba"),
    ("%_" * (MAX_PATTERN // 2), "a"),
    ("%" + "_" * (MAX_PATTERN - 2) + "%", "a"),
    ("%ß_" * (MAX_PATTERN // 3), "ßa"),
]


def test_like_is_quick() -> None:
    """No pattern takes long for a long text, and none tries one way after the other."""
    for pattern, unit in HOSTILE:
        text = unit * (by_size(2**18, 2**18, 2**20, 2**22) // len(unit))
        for ignore_case in (False, True):
            start = time.process_time()
            compile_like(pattern, ignore_case)(text)
            assert time.process_time() - start < 30, pattern[:20]


# Any condition, against the definition with three values written down plainly.

NAME = st.sampled_from(["a", "b", "c", "a.b"])
SCALAR = st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, float("nan"), "", "a", "B", "ab"])
WANTED = st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "a", "b%", "_", "AB"])
DATA = st.dictionaries(NAME, SCALAR | st.none() | st.dictionaries(NAME, SCALAR) | st.just([1]), max_size=3) | SCALAR
PATHS = st.lists(NAME, min_size=1, max_size=2).map(tuple)
COMPARES = st.builds(Compare, PATHS, st.sampled_from("= != > >= < <= LIKE ILIKE".split()), WANTED)


def joined(inner: "st.SearchStrategy[Predicate]") -> "st.SearchStrategy[Predicate]":
    terms = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, inner) | st.builds(Junction, st.sampled_from(["AND", "OR"]), terms)


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, (int, float)) and value == value else "none"


def plainly(predicate: Predicate, data: Any, meta: Dict[str, str]) -> Optional[bool]:
    if isinstance(predicate, Not):
        value = plainly(predicate.term, data, meta)
        return None if value is None else not value
    if isinstance(predicate, Junction):
        values = [plainly(term, data, meta) for term in predicate.terms]
        decisive = predicate.operator == "OR"
        return decisive if decisive in values else None if None in values else not decisive
    value, path = data, list(predicate.path)
    while path and isinstance(value, dict) and path[0] in value:
        value = value[path.pop(0)]
    if path:
        value = meta.get(".".join(predicate.path))
    return compared(value, predicate.operator, predicate.value)


def compared(value: Any, operator: str, wanted: Any) -> Optional[bool]:
    if kind(value) == "none" or kind(value) != kind(wanted):
        return None
    if operator in ("LIKE", "ILIKE"):
        expression = "".join({"%": ".*", "_": "."}.get(character, character) for character in str(wanted))
        flags = re.IGNORECASE if operator == "ILIKE" else 0
        return bool(re.fullmatch(expression, value, flags)) if kind(value) == "text" else None
    if kind(value) == "truth" and operator not in ("=", "!="):
        return None
    return {
        "=": value == wanted,
        "!=": value != wanted,
        "<": value < wanted,
        "<=": value <= wanted,
        ">": value > wanted,
        ">=": value >= wanted,
    }[operator]


@PROPERTY
@given(st.recursive(COMPARES, joined, max_leaves=8), DATA, st.dictionaries(NAME, st.sampled_from(["", "a", "AB"])))
def test_as_defined(predicate: Predicate, data: Any, meta: Dict[str, str]) -> None:
    """Any condition says of any event what the definition says."""
    subject = record(data, meta)
    value = plainly(predicate, data, meta)
    assert Plan(Select("x", where=predicate)).wants(subject) is (value is True)
    assert Plan(Select("x", where=Not(predicate))).wants(subject) is (value is False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | NAME, inner, max_size=3),
    max_leaves=6,
)


@PROPERTY
@given(st.recursive(COMPARES, joined, max_leaves=4), JSON, st.dictionaries(NAME, st.text()), st.binary(max_size=12))
def test_any_event(predicate: Predicate, data: Any, meta: Dict[str, str], identifier: bytes) -> None:
    """Any event whatsoever is wanted or not, and gives a row."""
    select = Select("x", (Column(("a", "b")), Column(("c",))), where=predicate, after=ID, before=times.parse(AT))
    plan = Plan(select)
    subject = record(data, meta, id=identifier)
    assert plan.wants(subject) in (True, False)
    assert set(plan.project(subject) or {}) <= {"a.b", "c"}


def test_deep_conditions() -> None:
    """The deepest condition that the parser takes can be evaluated."""
    deep = "NOT (price = 11 OR " * 50 + "price = 10" + ")" * 50
    assert wants(deep)
    flat = " OR ".join(["price = 11"] * 20000)
    assert not wants(flat)
    assert wants(flat + " OR price = 10")
