"""Which of the events that were sent before an outage the server has stored: it is looked for in the log.

An event in doubt carries a key that no other has (``wire/keys.py``). It was stored lately if it was, so each topic is
read from a little before then to its end. The handler of the connection that was lost may still store what it had read
when the log is looked at first; so that is done again after a while, until a look finds nothing more.
"""

import logging
from typing import Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import EnsignClientClosingError, EnsignError, EnsignSettingsError
from ..handover.clock import Clock, Patience
from ..handover.watchdog import Watchdog, Watched
from ..ids import RLID, ULID, is_ulid
from ..protocol import retry
from ..protocol.catchup_values import AT_THE_END
from ..protocol.frames import Delivery
from ..protocol.publish_stream import Doubt
from ..protocol.search import Search
from ..protocol.start import LONGEST_COMMIT, before_milliseconds
from ..settings import Reconnect
from ..times import Kept, instant_of
from ..wire.keys import key_of
from .log import NEVER, Log

logger = logging.getLogger("ensign_sync")

#: Between two looks pass so many seconds at least, and so many round trips.
PAUSE_SECONDS, PAUSE_ROUND_TRIPS = 0.2, 3

#: How long a read may give no row, in seconds.
PATIENCE = 30.0

#: The pauses between looks that fail.
_PAUSES = Reconnect(initial=0.05, maximum=5.0)

#: More of the log is not read for the sake of a clock that may have been set, in seconds.
_LONG_AGO = 600.0

#: A topic that the server calls invalid so often in a row is no more.
_MOST_REFUSALS = 3


class Question(NamedTuple):
    """Which of these events are in the log.

    Attributes:
        doubts: The events.
        topics: The topics that the stream has, name to id.
        wanted: Tells whether somebody still wants to know.
        wait: Waits so many seconds, or until nobody wants to know.
        tell: Is told why it takes so long.
        found: Is told what a look found, by local id with the time, after each that was completed.
        progress: Is told when a part of a look was done.
    """

    doubts: Sequence[Doubt]
    topics: Mapping[str, bytes]
    wanted: Callable[[], bool]
    wait: Callable[[float], None]
    tell: Callable[[EnsignError], None]
    found: Callable[[Mapping[bytes, Kept]], None]
    progress: Callable[[], None]


class _Tools(NamedTuple):
    """What is needed to look."""

    log: Log
    watchdog: Watchdog
    clock: Clock


class _Place(NamedTuple):
    """The last row of a topic that was seen: its number and the id of its event."""

    row: int
    id: Optional[bytes]


class _Looked(NamedTuple):
    """When a look was begun that came to its end, and the keys of the events that it did not find."""

    at: float
    left: FrozenSet[bytes]


class Doubts:
    """Looks for events in the log. Any thread may call any method."""

    def __init__(self, log: Log, watchdog: Watchdog, clock: Optional[Clock] = None) -> None:
        self._tools = _Tools(log, watchdog, clock or Clock())
        # Where to begin to read, of topics that are still asked for: when the first event in doubt was made, and the
        # place. Connections that break one after the other need not have it searched for each time.
        self._beginnings: Dict[bytes, Tuple[float, _Place]] = {}
        self._looked: Dict[bytes, _Looked] = {}  # the last look at each of them
        self._round_trip = 0.0  # how long a server took to answer, the last time

    def check(self, name: str, id: bytes, timeout: float) -> None:
        """See whether the log of a topic can be read.

        Raises:
            EnsignSettingsError: It cannot: no query can name the topic, or the key may not.
            EnsignError: The server does not answer, or otherwise than expected.
        """
        log, patience = self._tools.log, Patience(timeout, timeout, self._tools.clock)
        spelled = log.way(name, id, patience.remaining())
        if spelled is None:
            raise EnsignSettingsError(
                f"idempotent publishing looks for its events in the log, and no query can name the topic {name}: give"
                " the topic another name, or publish with idempotent=False"
            )
        try:
            _one_row(log, spelled, 0, patience.remaining())
        except EnsignError as error:
            if error.code not in NEVER:
                raise
            raise EnsignSettingsError(
                f"idempotent publishing looks for its events in the log, and this key may not read {name} ({error}):"
                " use a key with the permission topics:read or subscriber, or publish with idempotent=False"
            ) from error

    def stored(self, question: Question) -> Optional[Dict[bytes, Kept]]:
        """Return the local ids of those that are stored, with the time; None if nobody wants to know any more.

        Blocks until the log was read, however long that fails.
        """
        by_topic: Dict[Tuple[str, bytes], List[Doubt]] = {}
        for doubt in question.doubts:
            topic = find_topic(doubt.topic, question.topics)
            if topic is not None:
                by_topic.setdefault(topic, []).append(doubt)
        looks = [
            _Look(self._tools, name, id, doubts, question, self._beginnings)
            for (name, id), doubts in by_topic.items()
        ]
        left = looks
        while True:
            left = [look for look in left if not self._found_all(look, question)]
            if not question.wanted():
                return None
            if not left:
                self._beginnings.clear()
                self._looked.clear()
                return {id: committed for look in looks for id, committed in look.found.items()}
            question.wait(self._pause)

    @property
    def _pause(self) -> float:
        return max(PAUSE_SECONDS, PAUSE_ROUND_TRIPS * self._round_trip)

    def _found_all(self, look: "_Look", question: Question) -> bool:
        """Look once; returns whether no other look at this topic is needed.

        That is so if one before it, long enough ago and perhaps for an earlier connection, left no less: since then
        nothing was sent.
        """
        began, sought = self._tools.clock.now(), frozenset(look.sought)
        if not self._look(look, question):
            return False
        question.found(look.found)
        question.progress()
        self._round_trip = look.round_trip or self._round_trip
        left, earlier = frozenset(look.sought), self._looked.get(look.id)
        self._looked[look.id] = _Looked(began, left)
        if not left:
            return True
        return earlier is not None and left == sought and left <= earlier.left and began - earlier.at >= self._pause

    def _look(self, look: "_Look", question: Question) -> bool:
        """Look once, trying again while that fails; returns False if nobody wants to know any more."""
        failures = refusals = 0
        while question.wanted():
            try:
                look.look()
                return True
            except EnsignClientClosingError:
                return False
            except EnsignError as error:
                refusals = refusals + 1 if error.code == "INVALID_ARGUMENT" else 0
                if error.code in NEVER or refusals > _MOST_REFUSALS:
                    look.give_up(error)
                    return True
                question.tell(error)
                level = logging.WARNING if failures == _MOST_REFUSALS else logging.INFO
                logger.log(
                    level, "the log could not be read for the events in doubt, which is tried again: %s", error
                )
            question.wait(retry.interval(failures, _PAUSES))
            failures += 1
        return False


class _Look:
    """The events of one topic, and how far its log was read for them.

    Attributes:
        id: The id of the topic.
        sought: The local ids of those that were not found so far, by their keys.
        found: When the others were stored, by their local ids.
        round_trip: How long the server took to answer, in seconds.
    """

    def __init__(
        self,
        tools: _Tools,
        name: str,
        id: bytes,
        doubts: Sequence[Doubt],
        question: Question,
        beginnings: Dict[bytes, Tuple[float, _Place]],
    ) -> None:
        self.sought: Dict[bytes, bytes] = {doubt.payload.key: doubt.local_id for doubt in doubts}
        self.found: Dict[bytes, Kept] = {}
        self.round_trip = 0.0
        self._log, self._watchdog, self._clock = tools
        self._name, self.id = name, id
        self._made = [doubt.payload.made for doubt in doubts]
        self._first_made = min(made.now for made in self._made)
        self._question, self._beginnings = question, beginnings
        self._spelled: Optional[str] = None
        self._place: Optional[_Place] = None

    def look(self) -> None:
        """Read what is new since the last time; raises EnsignError."""
        if not self.sought:
            return
        if self._spelled is None:
            self._spelled = self._log.way(self._name, self.id, PATIENCE)
        if self._spelled is None:
            self.give_up(None)
            return
        if self._place is None:
            made, place = self._beginnings.get(self.id, (float("inf"), None))
            self._place = place if made <= self._first_made else None
        if self._place is None or not self._read_on(self._spelled, self._place):
            self._place = self._beginning(self._spelled)
            self._beginnings[self.id] = (self._first_made, self._place)
            if not self._read_on(self._spelled, self._place):
                error = EnsignError(f"the log of {self._name} changed while it was looked at")
                error.retriable = True
                self._place = None
                raise error

    def give_up(self, error: Optional[EnsignError]) -> None:
        """What cannot be looked for is taken as not stored."""
        logger.warning(
            "events of %s that may have been stored are sent again, since the log cannot be read: %s",
            self._name,
            error or "no query can name the topic",
        )
        self.sought.clear()

    def _read_on(self, spelled: str, place: _Place) -> bool:
        """Read from a place to the end; False if that is not where it was."""
        patience = Patience(None, PATIENCE, self._clock)
        rows = self._log.rows(spelled, max(place.row, 0), False, True)
        watched = Watched(patience.remaining, rows.cancel)
        self._watchdog.add(watched)
        row, last, expected = max(place.row, 0) - 1, place.id, place.id
        try:
            for delivery in rows:
                patience.progress()
                row += 1
                if expected is not None and delivery.id != expected:
                    return False
                expected, last = None, delivery.id
                self._see(delivery)
        finally:
            self._watchdog.remove(watched)
            rows.cancel()
        if expected is not None:
            return False
        self._place = _Place(row, last)
        return True

    def _see(self, delivery: Delivery) -> None:
        key = key_of(delivery.payload)
        local_id = self.sought.pop(key, None) if key is not None else None
        if local_id is not None:
            at = delivery.committed
            # Some servers do not say when; then it is the time of the id.
            self.found[local_id] = at if at is not None else RLID(delivery.id).milliseconds * 1_000_000

    def _beginning(self, spelled: str) -> _Place:
        """Find a row that is not after the first of the events, if it is there at all."""
        hint = self._log.counts([self.id], PATIENCE).get(self.id, 0)
        end = self._search(spelled, Search(AT_THE_END, hint - 1, exact=True))
        if end.id is None:
            return _Place(-1, None)
        since = self._earliest(RLID(end.id).milliseconds) - LONGEST_COMMIT
        return self._search(spelled, Search(before_milliseconds(since), end.row))

    def _earliest(self, last: int) -> int:
        """Return a time before the first of the events, by the server's clock, from that of the last in the log.

        All are later than what had been acknowledged before them. Where that is long ago, or nothing had been: the
        server's clock says what the last event says, or more, and so long ago the first was made by our clocks, of
        which one stands still while the machine sleeps and the other may be set.
        """
        now, time = self._clock.now(), self._clock.time()
        age = max(max(now - made.now, time - made.time) for made in self._made)
        by_age = last - int(age * 1000)
        acked = [instant_of(made.acked) for made in self._made]
        if None in acked:
            return by_age
        by_ack = min(at.ns for at in acked if at is not None) // 1_000_000
        return by_ack if last - by_ack < _LONG_AGO * 1000 else max(by_ack, by_age)

    def _search(self, spelled: str, search: Search) -> _Place:
        while True:
            if not self._question.wanted():
                raise EnsignClientClosingError("nobody wants to know any more")
            began = self._clock.now()
            row = _one_row(self._log, spelled, search.probe, PATIENCE)
            self.round_trip = self._clock.now() - began
            if search.tell(row.id if row is not None else None):
                self._question.progress()
                return _Place(search.last_row, search.last_id)


def _one_row(log: Log, spelled: str, offset: int, timeout: float) -> Optional[Delivery]:
    rows = log.rows(spelled, offset, True, True, timeout)
    try:
        return next(iter(rows), None)
    finally:
        rows.cancel()


def find_topic(given: str, topics: Mapping[str, bytes]) -> Optional[Tuple[str, bytes]]:
    """Return the name and the id of a topic that is given by either, None if it is not there."""
    if given in topics:
        return given, topics[given]
    id = ULID(given).bytes if is_ulid(given) else None
    return next(((name, other) for name, other in topics.items() if other == id), None)
