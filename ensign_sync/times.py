"""Instants with nanoseconds.

The wire carries nanoseconds and Python's datetime stops at microseconds. An Instant is an aware datetime in UTC
that keeps the rest, and also answers to the field names of a protobuf timestamp.
"""

import calendar
import re
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Optional, Tuple, Union

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RFC3339 = re.compile(r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})$")


class Instant(datetime):
    """A point in time, UTC and aware, exact to the nanosecond.

    Attributes:
        seconds: Whole seconds since 1970.
        nanos: Nanoseconds within that second.
    """

    _below_microsecond = 0

    @classmethod
    def from_ns(cls, nanoseconds: int) -> "Instant":
        """Make the instant that lies this many nanoseconds after 1970 (ValueError beyond the year 9999)."""
        micros, rest = divmod(nanoseconds, 1000)
        try:
            at = _EPOCH + timedelta(microseconds=micros)
        except OverflowError as error:
            raise ValueError(f"{nanoseconds} ns is outside the years 1 to 9999") from error
        return cls._of(at, rest)

    @classmethod
    def from_parts(cls, seconds: int, nanos: int) -> "Instant":
        """Make an instant from the two fields of a protobuf timestamp."""
        return cls.from_ns(seconds * 1_000_000_000 + nanos)

    @classmethod
    def from_datetime(cls, at: datetime) -> "Instant":
        """Convert any aware datetime; a naive one is a ValueError, since its time zone is anybody's guess."""
        if at.tzinfo is None or at.utcoffset() is None:
            raise ValueError(f"{at!r} has no time zone: use datetime.now(timezone.utc) or .astimezone()")
        try:
            utc = at.astimezone(timezone.utc)
        except OverflowError as error:
            raise ValueError(f"{at!r} is outside the years 1 to 9999 in UTC") from error
        return cls._of(utc, getattr(at, "_below_microsecond", 0))

    @classmethod
    def _of(cls, at: datetime, rest: int) -> "Instant":
        self = cls(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, at.tzinfo, fold=at.fold)
        self._below_microsecond = rest
        return self

    @property
    def seconds(self) -> int:
        """Whole seconds since 1970."""
        return calendar.timegm(self.utctimetuple())

    @property
    def nanos(self) -> int:
        """Nanoseconds within the second."""
        return self.microsecond * 1000 + self._below_microsecond

    @property
    def ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.seconds * 1_000_000_000 + self.nanos

    def ToDatetime(self) -> datetime:  # noqa: N802 - the name of protobuf's Timestamp
        """Return a naive UTC datetime, as a protobuf timestamp does."""
        return datetime(*self.utctimetuple()[:6], microsecond=self.microsecond)

    def __add__(self, other: timedelta) -> "Instant":
        # Python 3.7 would return a plain datetime, and later ones forget the nanoseconds.
        later: Any = datetime.__add__(self, other)
        if later is NotImplemented:
            return later  # type: ignore[no-any-return]
        # The zone stays: time zones themselves add to an instant to convert it.
        return Instant._of(later, self._below_microsecond)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + -other if isinstance(other, timedelta) else datetime.__sub__(self, other)

    def __reduce_ex__(self, protocol: Any) -> Tuple[Any, ...]:
        return (Instant.from_ns, (self.ns,))


def now() -> Instant:
    """Return the present instant."""
    return Instant.from_ns(time_ns())


def time_ns() -> int:
    """Return nanoseconds since 1970 by the wall clock."""
    return time.time_ns()


def parse(text: str) -> Instant:
    """Read an RFC 3339 time with up to nine digits of fraction; ValueError names what was wrong."""
    match = _RFC3339.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2023-11-20T10:00:00Z")
    day, clock, fraction, zone = match.groups()
    zone = "+0000" if zone in "Zz" else zone.replace(":", "")
    try:
        whole = datetime.strptime(f"{day}T{clock}{zone}", "%Y-%m-%dT%H:%M:%S%z")
        seconds = calendar.timegm(whole.utctimetuple())
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time that a calendar has: {error}") from error
    return Instant.from_parts(seconds, int((fraction or "0").ljust(9, "0")))


def to_rfc3339(at: Union[Instant, datetime]) -> str:
    """Write an instant as RFC 3339 with nanoseconds, trailing zeros cut."""
    instant = Instant.from_datetime(at)
    fraction = f".{instant.nanos:09d}".rstrip("0").rstrip(".")
    return instant.replace(microsecond=0, tzinfo=None).isoformat() + fraction + "Z"


#: A point in time as it is kept: nanoseconds since 1970, the bytes of a protobuf timestamp, or a finished instant.
#: Most are never looked at, and an instant takes as long to make as everything else that an event needs.
Kept = Union[int, bytes, Instant, datetime, None]


def instant_of(kept: Kept) -> Optional[Instant]:
    """Return what is kept as an instant; None for 'not set' and for what no calendar has."""
    if kept is None or type(kept) is Instant:
        return kept
    if isinstance(kept, datetime):
        return Instant.from_datetime(kept)
    try:
        ns = kept if isinstance(kept, int) else ns_of_timestamp(kept)
        return Instant.from_ns(ns) if ns else None
    except ValueError:
        return None


def ns_of_timestamp(data: bytes) -> int:
    """Return the nanoseconds since 1970 of an encoded protobuf timestamp; ValueError if it is none."""
    parts = {0x08: 0, 0x10: 0}  # the tags of seconds and nanos
    at, end = 0, len(data)
    while at < end:
        tag, value, shift = data[at], 0, 0
        at += 1
        while at < end and data[at] > 127:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
        if at >= end or tag not in parts or shift > 63:
            raise ValueError(f"{data!r} is no timestamp")
        value |= data[at] << shift
        at += 1
        parts[tag] = value - (1 << 64) if value >= 1 << 63 else value
    return parts[0x08] * 1_000_000_000 + parts[0x10]


def maybe_instant(seconds: int, nanos: int) -> Optional[Instant]:
    """Make an instant, or None for the zero timestamp that stands for 'not set' or one that no calendar has."""
    return instant_of(seconds * 1_000_000_000 + nanos)
