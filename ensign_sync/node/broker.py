"""Stores what is published, in one order for the whole node, and passes it on to who waits for it.

One thread writes. What arrives while a transaction is written shares the next one. Streams and consumer groups are told
of what was stored by that thread, so what they do then is quick.
"""

import abc
import logging
import queue
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ..exceptions import NodeStorageError
from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn
from ..ids import RLID
from ..nack import INTERNAL, TOPIC_ARCHIVED, TOPIC_DELETED
from ..wire import codec, dedup
from .book import Book, Traits
from .clock import NodeClock
from .fault_state import FaultState
from .storage import Log, StoredEvent

logger = logging.getLogger("ensign_sync.node")

#: The real server's buffers hold this many events (docs/protocol.rst, "Subscribe stream").
BUFFER = 16_384

#: One transaction holds at most this many events or bytes: enough to share a commit, few enough not to delay one.
_BATCH_EVENTS = 2_000
_BATCH_BYTES = 8 * 2**20

#: With so many bytes waiting to be written streams are not read from.
_PRESSED_BYTES = 128 * 2**20


class Settled(NamedTuple):
    """What became of an event: stored at a time, or refused with a code."""

    local_id: bytes
    committed_ns: int = 0
    code: Optional[int] = None


class Live(NamedTuple):
    """A stored event on its way to subscribers: encoded for them, and where it stands in the log (-1 if nowhere)."""

    message: bytes
    topic: int
    position: int


class Source(abc.ABC):
    """Who hands in events."""

    @abc.abstractmethod
    def settled(self, outcomes: List[Settled]) -> None:
        """Learn what became of events, in their order."""


class Listener(abc.ABC):
    """Who wants the events of some topics as they are stored."""

    topics: Set[bytes]

    @abc.abstractmethod
    def offer(self, events: List[Live]) -> None:
        """Take events."""


class Incoming(NamedTuple):
    """An event to be stored: the number and id of its topic, who gave it, and who published it, encoded."""

    topic: int
    topic_id: bytes
    source: Source
    wrapper: codec.Wrapper
    publisher: bytes


class _Accepted(NamedTuple):
    """An event that goes to the log, and to the subscribers unless it is a duplicate."""

    event: StoredEvent
    topic_id: bytes
    is_duplicate: bool


class Broker:
    """One writer thread, a queue before it, and the listeners behind it. Any thread may call any method.

    Attributes:
        stored: How many events were stored since the start.
    """

    def __init__(
        self,
        log: Log,
        book: Book,
        clock: NodeClock,
        faults: FaultState,
        strict: bool,
        on_stored: Callable[[Set[int]], None],
    ) -> None:
        """Start; ``on_stored`` is told the numbers of topics that have new events."""
        self._log, self._book, self._clock, self._faults, self._strict = log, book, clock, faults, strict
        self._on_stored = on_stored
        self._queue: Any = queue.SimpleQueue()
        # Guards the listeners and the count of bytes.
        self._lock = threading.Lock()
        self._listeners: Dict[bytes, List[Listener]] = {}
        self._bytes = 0
        self._killed = False
        self.stored = 0
        self._sequence = 0
        last = log.last_id()
        # The counter begins again, so that only a later time is above every id that is stored, wherever the clock goes.
        self._last_ms = RLID(last).milliseconds + 1 if last else 0
        clock.start_after(self._last_ms)
        self._thread = spawn("node-writer", self._run)

    @property
    def is_pressed(self) -> bool:
        """Whether so much waits to be written that no more should be taken in."""
        return self._bytes > _PRESSED_BYTES

    def publish(self, event: Incoming) -> None:
        """Have an event stored; never blocks."""
        with self._lock:
            self._bytes += len(event.wrapper.payload)
        self._queue.put(event)

    def run(self, function: Callable[[], None]) -> None:
        """Have a function called by the writer thread, between two transactions."""
        self._queue.put(function)

    def subscribe(self, listener: Listener) -> None:
        """Pass on to a listener what is stored from now on."""
        with self._lock:
            for topic_id in listener.topics:
                self._listeners[topic_id] = [*self._listeners.get(topic_id, ()), listener]

    def unsubscribe(self, listener: Listener) -> None:
        """Pass nothing more on to a listener."""
        with self._lock:
            for topic_id in listener.topics:
                left = [other for other in self._listeners.get(topic_id, ()) if other is not listener]
                if left:
                    self._listeners[topic_id] = left
                else:
                    self._listeners.pop(topic_id, None)

    def close(self, deadline: Deadline) -> None:
        """Store what was handed in, then stop."""
        self._queue.put(None)
        gather([self._thread], deadline)

    def kill(self, deadline: Deadline) -> None:
        """Stop, and forget what is not yet stored, as a process that is killed does."""
        self._killed = True
        self.close(deadline)

    # the writer thread

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None or self._killed:
                return
            batch, then = self._fill(first)
            try:
                if batch:
                    self._commit(batch)
                if then is not None:
                    then()
            except Exception:
                logger.exception("the writer of the log met what it did not expect; it goes on")
            if then is None:
                return

    def _fill(self, item: Any) -> Tuple[List[Incoming], Any]:
        """Collect what waits for a transaction, and what is to be done after it: a function, or None for the end."""
        batch: List[Incoming] = []
        size = 0
        while isinstance(item, Incoming):
            batch.append(item)
            size += len(item.wrapper.payload)
            if len(batch) >= _BATCH_EVENTS or size >= _BATCH_BYTES:
                return batch, _nothing
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, _nothing
        return batch, item

    def _commit(self, batch: List[Incoming]) -> None:
        now = self._clock.now_ns()
        steps_back = self._strict and now // 1_000_000 < self._last_ms
        outcomes: Dict[Source, List[Settled]] = {}
        accepted: List[_Accepted] = []
        seen: Dict[Tuple[int, bytes], bytes] = {}
        size = 0
        for event in batch:
            local_id = event.wrapper.local_id
            size += len(event.wrapper.payload)
            taken = self._accept(event, now, seen)
            if isinstance(taken, int):
                settled = Settled(local_id, code=taken)
            else:
                accepted.append(taken)
                settled = Settled(local_id, now)
            outcomes.setdefault(event.source, []).append(settled)
        try:
            events = [item.event for item in accepted]
            positions = self._insert(events) if steps_back else self._log.append(events)
        except NodeStorageError as error:
            logger.error("%s; %d events were refused", error, len(batch))
            outcomes = {source: [Settled(o.local_id, code=INTERNAL) for o in of] for source, of in outcomes.items()}
            accepted, positions = [], []
        with self._lock:
            self._bytes -= size
        self.stored += len(accepted)
        # First to the subscribers, then the acks: who publishes and then looks has been served.
        self._pass_on(accepted, positions)
        if not self._killed:
            for source, settled_events in outcomes.items():
                source.settled(settled_events)

    def _accept(self, event: Incoming, now: int, seen: Dict[Tuple[int, bytes], bytes]) -> Any:
        """Return the event as it is stored, or the code with which it is refused."""
        traits: Optional[Traits] = None
        if not self._strict:  # the real server takes events of archived and of destroyed topics
            traits = self._book.traits(event.topic)
            if traits is None:
                return TOPIC_DELETED
            if traits.readonly:
                return TOPIC_ARCHIVED
        id = self._next_id(now)
        payload = event.wrapper.payload
        try:
            stored = event.wrapper.stored(id, event.publisher)
        except Exception:
            logger.exception("an event could not be encoded for storing")
            return INTERNAL
        print_, original = b"", b""
        if traits is not None and traits.deduplicates:
            print_ = dedup.fingerprint(traits.policy, payload)
            original = self._original(event.topic, print_, seen)
            if original and dedup.equal(traits.policy, codec.decode_row(original).payload, payload):
                stored, print_ = dedup.mark(traits.policy, original, stored), b""
            else:
                seen[event.topic, print_], original = stored, b""
        return _Accepted(StoredEvent(event.topic, id, stored, now, print_), event.topic_id, bool(original))

    def _original(self, topic: int, print_: bytes, seen: Dict[Tuple[int, bytes], bytes]) -> bytes:
        """Return the stored event with a fingerprint, or nothing."""
        if (topic, print_) in seen:
            return seen[topic, print_]
        position = self._log.find(topic, print_)
        there = None if position is None else self._log.event_at(topic, position)
        return there.wrapper if there is not None else b""

    def _next_id(self, now: int) -> bytes:
        """Return the id of the next event: its time, and the counter of all events of this process."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        milliseconds = now // 1_000_000
        if not self._strict:
            # Never backwards: the order of the ids is the order of the log, also when the clock was set back.
            milliseconds = max(milliseconds, self._last_ms + (self._sequence == 0))
        self._last_ms = max(milliseconds, self._last_ms)
        return milliseconds.to_bytes(6, "big") + self._sequence.to_bytes(4, "big")

    def _insert(self, events: List[StoredEvent]) -> List[int]:
        """Store events of a clock that was set back: the real server's log is in the order of the ids."""
        by_topic: Dict[int, List[StoredEvent]] = {}
        for event in events:
            by_topic.setdefault(event.topic, []).append(event)
        found = {number: iter(self._log.insert(number, of_topic)) for number, of_topic in by_topic.items()}
        return [next(found[event.topic]) for event in events]

    def _pass_on(self, accepted: List[_Accepted], positions: List[int]) -> None:
        if not accepted:
            return
        with self._lock:
            by_topic = dict(self._listeners)  # the lists in it are replaced, never changed
        boxes: Dict[Listener, List[Live]] = {}
        for item, position in zip(accepted, positions):
            to = by_topic.get(item.topic_id)
            if to and not item.is_duplicate and not self._faults.hides_event():
                event = item.event
                live = Live(codec.encode_live(event.wrapper, event.committed_ns), event.topic, position)
                for listener in to:
                    boxes.setdefault(listener, []).append(live)
        for listener, events in boxes.items():
            listener.offer(events)
        self._on_stored({item.event.topic for item in accepted})


def _nothing() -> None:
    """There is nothing to do after this transaction."""
