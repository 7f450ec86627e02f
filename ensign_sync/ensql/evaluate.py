"""Tell which events a query of the full dialect wants, and make the rows that it asks for.

What a field is: a key of the decoded payload, if that is an object, and each further part of a dotted field a key of
the object below; where the payload has no such field, the metadata of that name, dots included.

What a comparison says: numbers compare as numbers, texts as texts, character by character, truth values only by ``=``
and ``!=``. A comparison with a missing field, a null, an object or an array, or with a value of another kind, is
*unknown*, also under ``!=`` and LIKE. The logic is that of SQL: NOT leaves unknown as it is, AND and OR look at the
other side, and an event is wanted only if the whole condition is true.

When an event was stored is its ``committed_ns`` where that is given. Else it is the time in its id, which has
milliseconds, and the other time of the comparison counts by its millisecond too. AFTER a time takes what was stored at
that time or later, and BEFORE what was stored earlier, so two queries that share a time share no event and miss none.
AFTER and BEFORE an event leave out the event itself; OFFSET starts with it. The same words mean the same for the start
of a subscription.
"""

import operator
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ensign_sync.ids import RLID
from ensign_sync.times import Instant

from .like import compile_like
from .tree import Compare, Moment, Not, Path, Predicate, Select


class Record(NamedTuple):
    """What the evaluator knows of an event.

    Attributes:
        data: The decoded JSON payload; None, which has no fields either, if it is no JSON.
        meta: The metadata.
        schema: The name of the event type.
        major: Its major version.
        id: The 10 bytes of the event's id.
        committed_ns: When it was stored, in nanoseconds since 1970, if that is known.
    """

    data: Any
    meta: Mapping[str, str]
    schema: str
    major: int
    id: bytes
    committed_ns: Optional[int] = None


Test = Callable[[Record], bool]

_MISSING = object()


def _getter(path: Path) -> Callable[[Record], Any]:
    """Return what gets a field of a record, ``_MISSING`` if there is none."""
    name = ".".join(path)
    if len(path) > 1:
        return lambda record: _deep(record, path, name)

    def get(record: Record) -> Any:
        data = record.data
        if isinstance(data, dict) and name in data:
            return data[name]
        return record.meta.get(name, _MISSING)

    return get


def _deep(record: Record, path: Path, name: str) -> Any:
    data = record.data
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return record.meta.get(name, _MISSING)
        data = data[part]
    return data


def _never(record: Record) -> bool:
    return False


def _differ(one: Any, other: Any) -> bool:
    # Not "!=": a NaN, which Python's JSON reads, is no number and so differs from none.
    return bool(one < other or one > other)


_TESTS: Dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": _differ,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
}
_OPPOSITES = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def _comparison(compare: Compare, negated: bool) -> Test:
    """Return the test of a comparison, or of its opposite; unknown is false for both."""
    wanted = compare.value
    get = _getter(compare.path)
    if compare.operator in ("LIKE", "ILIKE"):
        if not isinstance(wanted, str):
            return _never
        return _pattern(get, compile_like(wanted, compare.operator == "ILIKE"), negated)
    sign = _OPPOSITES[compare.operator] if negated else compare.operator
    if isinstance(wanted, bool):
        if sign not in ("=", "!="):
            return _never
        true = wanted is (sign == "=")
        return lambda record: get(record) is true
    return _ordered(get, _TESTS[sign], wanted, (str,) if isinstance(wanted, str) else (int, float))


def _pattern(get: Callable[[Record], Any], matches: Callable[[str], bool], negated: bool) -> Test:
    def test(record: Record) -> bool:
        value = get(record)
        return isinstance(value, str) and matches(value) is not negated

    return test


def _ordered(
    get: Callable[[Record], Any], holds: Callable[[Any, Any], bool], wanted: Any, kinds: Tuple[type, ...]
) -> Test:
    def test(record: Record) -> bool:
        value = get(record)
        # By the type itself, since a bool is an int to isinstance().
        return type(value) in kinds and holds(value, wanted)

    return test


def _compiled(predicate: Predicate, negated: bool = False) -> Test:
    """Return the test of a condition, or of its opposite.

    NOT is moved down to the comparisons, where it picks the opposite operator. By the laws of De Morgan, which hold
    for three truth values too, what is left needs no third one: unknown is false on its way up.
    """
    if isinstance(predicate, Not):
        return _compiled(predicate.term, not negated)
    if isinstance(predicate, Compare):
        return _comparison(predicate, negated)
    tests = [_compiled(term, negated) for term in predicate.terms]
    return _every(tests) if (predicate.operator == "AND") is not negated else _some(tests)


def _every(tests: List[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(record: Record) -> bool:
        for one in tests:  # noqa: SIM110 - all() of a generator costs twice as much
            if not one(record):
                return False
        return True

    return test


def _some(tests: List[Test]) -> Test:
    def test(record: Record) -> bool:
        for one in tests:  # noqa: SIM110 - any() of a generator costs twice as much
            if one(record):
                return True
        return False

    return test


def _event_type(schema: str, major: Optional[int]) -> Test:
    if major is None:
        return lambda record: record.schema == schema
    return lambda record: record.schema == schema and record.major == major


def _stored_before(moment: Instant) -> Callable[[Record], Optional[bool]]:
    """Return what tells whether an event was stored before a time; None if its own time is unknown."""
    nanoseconds, milliseconds = moment.ns, moment.ns // 1_000_000

    def stored_before(record: Record) -> Optional[bool]:
        if record.committed_ns is not None:
            return record.committed_ns < nanoseconds
        if len(record.id) != RLID.size:
            return None
        return int.from_bytes(record.id[:6], "big") < milliseconds

    return stored_before


def _before(moment: Moment) -> Test:
    if isinstance(moment, RLID):
        limit = moment.bytes
        return lambda record: len(record.id) == RLID.size and record.id < limit
    stored_before = _stored_before(moment)
    return lambda record: stored_before(record) is True


def _after(moment: Moment) -> Test:
    if isinstance(moment, RLID):
        limit = moment.bytes
        return lambda record: len(record.id) == RLID.size and record.id > limit
    stored_before = _stored_before(moment)
    return lambda record: stored_before(record) is False


class Plan:
    """A query made ready to look at many events. It keeps no state, so any thread may use it.

    Attributes:
        select: The query.
        wants: Tells whether an event has the schema and version, lies where BEFORE and AFTER want it, and meets the
            condition. OFFSET and LIMIT, which count events, are not looked at.
    """

    wants: Test

    def __init__(self, select: Select) -> None:
        self.select = select
        tests = []
        if select.schema:
            tests.append(_event_type(select.schema, select.major))
        if select.before is not None:
            tests.append(_before(select.before))
        if select.after is not None:
            tests.append(_after(select.after))
        if select.where is not None:
            tests.append(_compiled(select.where))
        self.wants = _every(tests) if tests else lambda record: True
        self._columns = [(column.name, _getter(column.path)) for column in select.columns]

    def project(self, record: Record) -> Optional[Dict[str, Any]]:
        """Return the selected fields under their names, without those that are missing; None for ``SELECT *``."""
        if not self._columns:
            return None
        found = [(name, get(record)) for name, get in self._columns]
        return {name: value for name, value in found if value is not _MISSING}
