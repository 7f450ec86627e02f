"""Where a subscription begins in the log of a topic, from what the program says."""

from datetime import datetime
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

from ..exceptions import EnsignSettingsError
from ..ids import RLID, ULID, is_ulid
from ..times import Instant
from .catchup_values import AT_THE_END, BEFORE_ALL

#: Between the time in the id of an event and the one at which it was stored pass at most so many milliseconds.
LONGEST_COMMIT = 10_000

_WAYS = (
    "'recent', 'latest', 'earliest', the id of an event, a datetime with a time zone, or a mapping from topics to these"
)


class Start(NamedTuple):
    """Begin after this id; ``recent`` adds what the client itself published lately.

    ``moment``, in nanoseconds, is what the program said: an event gets its id some time before it is stored, so reading
    begins that much earlier, and what turns out to lie before the moment is left out.
    """

    floor: bytes
    recent: bool = False
    moment: Optional[int] = None

    def leaves_out(self, id: bytes, committed_ns: Optional[int]) -> bool:
        """Tell whether an event behind the floor lies before the start all the same."""
        if self.moment is None:
            return False
        milliseconds, limit = int.from_bytes(id[:6], "big"), self.moment // 1_000_000
        if milliseconds > limit:
            return False  # it was not stored before it had its id
        return milliseconds < limit if committed_ns is None else committed_ns < self.moment


RECENT = Start(AT_THE_END, True)
_NAMED = {"recent": RECENT, "latest": Start(AT_THE_END), "earliest": Start(BEFORE_ALL)}


class Starts:
    """The start of each topic.

    Raises:
        EnsignSettingsError: (a ValueError) It cannot be understood.
    """

    def __init__(self, given: Any, topics: Sequence[str]) -> None:
        self._default = RECENT
        self._of: Dict[str, Start] = {}
        if isinstance(given, Mapping):
            self._of = {str(topic): parse(start) for topic, start in given.items()}
            unknown = [topic for topic in self._of if topics and topic not in topics]
            if unknown:
                raise EnsignSettingsError(
                    f"start names {', '.join(unknown)}, and the subscription is to {', '.join(topics)}: use the names"
                    " or ids that it is made with"
                )
        else:
            self._default = parse(given)

    def of(self, name: str, id: bytes) -> Start:
        """Return where a topic begins; it may have been named by its id."""
        by_name = self._of.get(name)
        if by_name is not None:
            return by_name
        for topic, start in self._of.items():
            if is_ulid(topic) and ULID(topic).bytes == id:
                return start
        return self._default


def parse(start: Any) -> Start:
    """Understand a start of one topic."""
    if isinstance(start, str):
        if start in _NAMED:
            return _NAMED[start]
        if len(start) != RLID.length:
            raise EnsignSettingsError(f"start={start!r} is not understood: expected {_WAYS}")
    if isinstance(start, datetime):
        return _from(start)
    if isinstance(start, (str, bytes, bytearray, RLID)):
        try:
            return Start(RLID(start if not isinstance(start, bytearray) else bytes(start)).bytes)
        except ValueError as error:
            raise EnsignSettingsError(f"start={start!r} is not the id of an event: {error}") from error
    raise EnsignSettingsError(f"start={start!r} is not understood: expected {_WAYS}")


def _from(moment: datetime) -> Start:
    if moment.tzinfo is None:
        raise EnsignSettingsError(
            f"start={moment!r} has no time zone: give it one, for example with .replace(tzinfo=timezone.utc)"
        )
    instant = moment if isinstance(moment, Instant) else Instant.from_datetime(moment)
    return Start(before_milliseconds(instant.ns // 1_000_000 - LONGEST_COMMIT), moment=instant.ns)


def before_milliseconds(milliseconds: int) -> bytes:
    """Return the largest id of a time before; none for times before 1970."""
    if milliseconds <= 0:
        return BEFORE_ALL
    return RLID.of(min(milliseconds, 2**48) - 1, 0xFFFFFFFF).bytes
