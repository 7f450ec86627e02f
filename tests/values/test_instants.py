"""Instants: datetimes with nanoseconds, and their RFC 3339 text."""

import copy
import pickle
from datetime import date, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ensign_sync import times
from ensign_sync.times import Instant
from tests.size import by_size
from tests.tables import each

QUICK = settings(max_examples=by_size(10, 50, 500, 5_000), deadline=None)
FIRST = -62_135_596_800 * 10**9
LAST = 253_402_300_800 * 10**9 - 1
NANOSECONDS = st.integers(FIRST, LAST)
PLUS_TWO = timezone(timedelta(hours=2))


@QUICK
@given(NANOSECONDS)
@example(0)
@example(-1)
@example(FIRST)
@example(LAST)
def test_nanoseconds_are_kept(ns):
    """An instant has exactly the nanoseconds it was made of, as one number and in two parts."""
    instant = Instant.from_ns(ns)
    assert instant.ns == ns
    assert 0 <= instant.nanos < 10**9
    assert instant.seconds * 10**9 + instant.nanos == ns
    assert Instant.from_parts(instant.seconds, instant.nanos).ns == ns
    assert instant.utcoffset() == timedelta(0)


@QUICK
@given(NANOSECONDS)
def test_copies_are_exact(ns):
    """Pickling and both kinds of copy keep type, zone and nanoseconds."""
    instant = Instant.from_ns(ns)
    copies = [pickle.loads(pickle.dumps(instant, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in [*copies, copy.copy(instant), copy.deepcopy(instant), copy.deepcopy([instant])[0]]:
        assert type(other) is Instant
        assert (other.ns, other.tzinfo) == (ns, timezone.utc)


@each(
    ("ns", "seconds", "nanos", "text"),
    [
        (0, 0, 0, "1970-01-01T00:00:00Z"),
        (1, 0, 1, "1970-01-01T00:00:00.000000001Z"),
        (1_700_000_000_123_456_789, 1_700_000_000, 123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1_700_000_000_120_000_000, 1_700_000_000, 120_000_000, "2023-11-14T22:13:20.12Z"),
        (-1, -1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
        (-1_500_000_000, -2, 500_000_000, "1969-12-31T23:59:58.5Z"),
        (951_782_400 * 10**9, 951_782_400, 0, "2000-02-29T00:00:00Z"),
        (LAST, LAST // 10**9, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
        (FIRST, FIRST // 10**9, 0, "0001-01-01T00:00:00Z"),
    ],
)
def test_known_instants(ns, seconds, nanos, text):
    """The parts and the text of known instants, before 1970 too; the year has four digits."""
    instant = Instant.from_ns(ns)
    assert (instant.seconds, instant.nanos) == (seconds, nanos)
    assert times.to_rfc3339(instant) == text
    assert times.parse(text).ns == ns


@each("ns", [LAST + 1, FIRST - 1, 10**30, -(10**30)])
def test_beyond_the_calendar(ns):
    """What no year from 1 to 9999 holds is a ValueError that names it."""
    with pytest.raises(ValueError, match=str(ns)):
        Instant.from_ns(ns)
    with pytest.raises(ValueError, match="outside the years"):
        Instant.from_parts(*divmod(ns, 10**9))


@each(
    ("seconds", "nanos", "ns"),
    [(0, 0, None), (0, 1, 1), (1, 0, 10**9), (-1, 0, -(10**9)), (10**15, 0, None), (-(10**15), 5, None)],
)
def test_maybe_instant(seconds, nanos, ns):
    """The zero timestamp and one outside the calendar are None."""
    instant = times.maybe_instant(seconds, nanos)
    assert (instant and instant.ns) == ns


@each("at", [datetime(2023, 1, 1), Instant(2023, 1, 1)], ids=["datetime", "instant"])
def test_naive_is_refused(at):
    """A datetime without a zone is a ValueError that shows it and says what to write."""
    with pytest.raises(ValueError, match=r"2023, 1, 1.*no time zone.*timezone\.utc"):
        Instant.from_datetime(at)


def test_zone_without_offset_is_refused():
    """A datetime whose zone knows no offset is naive as well, whatever zone this machine has."""

    class Nowhere(tzinfo):
        def utcoffset(self, dt):
            return None

    with pytest.raises(ValueError, match="no time zone"):
        Instant.from_datetime(datetime(2023, 1, 1, tzinfo=Nowhere()))


@each(
    "at", [datetime(1, 1, 1, tzinfo=PLUS_TWO), datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=2)))]
)
def test_datetime_beyond_the_calendar(at):
    """An aware datetime that no year of UTC holds is a ValueError, as everywhere here."""
    with pytest.raises(ValueError):
        Instant.from_datetime(at)


@QUICK
@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(PLUS_TWO)))
def test_from_datetime(at):
    """An aware datetime of any zone becomes the same instant in UTC."""
    instant = Instant.from_datetime(at)
    assert instant == at
    assert instant.tzinfo is timezone.utc
    assert instant.ns == (at - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1) * 1000


def test_from_datetime_keeps_an_instant():
    """An instant given as a datetime keeps its nanoseconds."""
    assert Instant.from_datetime(Instant.from_ns(1_234_567_891)).ns == 1_234_567_891


def test_is_a_datetime():
    """An instant compares, subtracts and formats as the datetime it is."""
    instant = Instant.from_ns(1_700_000_000_123_456_789)
    plain = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=timezone.utc)
    assert isinstance(instant, datetime)
    assert instant == plain and hash(instant) == hash(plain)
    assert instant - plain == timedelta(0)
    assert instant < plain + timedelta(microseconds=1)
    assert str(instant) == str(plain) == "2023-11-14 22:13:20.123456+00:00"
    assert instant.isoformat() == plain.isoformat()
    assert instant.date() == date(2023, 11, 14)
    assert f"{instant:%H:%M}" == "22:13"


@each("by", [timedelta(seconds=1), timedelta(days=-3, microseconds=5)])
def test_sum_is_the_right_time(by):
    """Adding and subtracting a timedelta moves the instant by it, on each Python."""
    instant = Instant.from_ns(1_700_000_000_123_456_000)
    plain = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=timezone.utc)
    assert instant + by == by + instant == plain + by
    assert instant - by == plain - by
    assert (instant + by) - instant == by


def test_sum_stays_an_instant():
    """What comes of adding and subtracting a timedelta is an instant with the same nanoseconds, on each Python."""
    instant = Instant.from_ns(1_700_000_000_123_456_789)
    for moved in (instant + timedelta(seconds=1), timedelta(seconds=1) + instant, instant - timedelta(seconds=-1)):
        assert type(moved) is Instant
        assert moved.ns == instant.ns + 10**9


@each(
    "elsewhere",
    [Instant.from_ns(1_700_000_000 * 10**9).astimezone(PLUS_TWO), Instant(2023, 11, 15, 0, 13, 20, tzinfo=PLUS_TWO)],
    ids=["astimezone", "constructor"],
)
def test_text_of_another_zone(elsewhere):
    """An instant that was moved to another zone is still written in UTC, since the text ends in Z."""
    assert times.to_rfc3339(elsewhere) == "2023-11-14T22:13:20Z"


class Fixed(tzinfo):
    """A zone one hour east that reckons as zoneinfo does: by addition."""

    def utcoffset(self, dt):
        return timedelta(hours=1)

    def dst(self, dt):
        return timedelta(0)

    def tzname(self, dt):
        return "Fixed"

    def fromutc(self, dt):
        return dt + timedelta(hours=1)


@each("zone", [Fixed(), timezone(timedelta(hours=1))], ids=["own", "standard"])
def test_another_zone(zone):
    """An instant can be shown in any zone: the same time, on that zone's clock."""
    instant = Instant.from_ns(1_700_000_000_123_456_789)
    moved = instant.astimezone(zone)
    assert moved == instant
    assert moved.tzinfo is zone
    assert str(moved) == "2023-11-14 23:13:20.123456+01:00"
    assert str(moved + timedelta(hours=1)) == "2023-11-15 00:13:20.123456+01:00"


def test_sum_of_a_naive_one():
    """A sum does not guess a zone where there is none."""
    assert Instant(2023, 1, 1) + timedelta(days=1) == datetime(2023, 1, 2)


def test_naive_utc():
    """ToDatetime is a naive datetime in UTC, as a protobuf timestamp gives it."""
    assert Instant.from_ns(1_500_000_999).ToDatetime() == datetime(1970, 1, 1, 0, 0, 1, 500_000)
    assert Instant(1970, 1, 1, 2, tzinfo=PLUS_TWO).ToDatetime() == datetime(1970, 1, 1)


def test_now():
    """The present instant is an Instant that lies between two looks at the same clock."""
    before = times.time_ns()
    instant = times.now()
    assert type(instant) is Instant
    assert before <= instant.ns <= times.time_ns()


TEXTS = [
    ("1970-01-01T00:00:01Z", 10**9),
    ("1970-01-01t00:00:01z", 10**9),
    ("1970-01-01 00:00:01Z", 10**9),
    ("  1970-01-01T00:00:01Z\n", 10**9),
    ("1970-01-01T02:00:01+02:00", 10**9),
    ("1969-12-31T23:30:01-00:30", 10**9),
    ("1970-01-01T00:00:00.5Z", 5 * 10**8),
    ("1970-01-01T00:00:00.000000001+00:00", 1),
    ("1970-01-01T00:00:00.123456789Z", 123_456_789),
    ("1969-12-31T23:59:59.9Z", -(10**8)),
    ("2024-02-29T00:00:00Z", 1_709_164_800 * 10**9),
]


def test_parse():
    """RFC 3339 in any zone, with up to nine digits of fraction, in either case, with a space for the T."""
    for text, ns in TEXTS:
        assert times.parse(text).ns == ns, text


NO_TIMES = [
    "",
    "yesterday",
    "2023-01-01",
    "2023-01-01T00:00:00",
    "2023-01-01T00:00Z",
    "2023-01-01T00:00:00.Z",
    "2023-01-01T00:00:00.1234567890Z",
    "2023-01-01T00:00:00+0100",
    "2023-1-1T00:00:00Z",
    "12023-01-01T00:00:00Z",
    "2023-01-01T00:00:00Z tomorrow",
    "2023-13-01T00:00:00Z",
    "2023-02-30T00:00:00Z",
    "2023-02-29T00:00:00Z",
    "2023-01-01T24:00:00Z",
    "2023-01-01T00:00:60Z",
    "2023-01-01T00:00:00+25:00",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
]


def test_parse_refuses():
    """What is no RFC 3339 time, or no time of the calendar, is a ValueError that quotes it."""
    for text in NO_TIMES:
        with pytest.raises(ValueError) as caught:
            times.parse(text)
        assert repr(text) in str(caught.value)


@QUICK
@given(NANOSECONDS)
@example(FIRST)
def test_text_round_trip(ns):
    """What is written is read back as the same nanosecond, in every year."""
    assert times.parse(times.to_rfc3339(Instant.from_ns(ns))).ns == ns


def test_text_of_a_datetime():
    """A plain datetime is written in UTC, and refused when it is naive."""
    assert times.to_rfc3339(datetime(2023, 1, 1, 2, tzinfo=PLUS_TWO)) == "2023-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="no time zone"):
        times.to_rfc3339(datetime(2023, 1, 1))
