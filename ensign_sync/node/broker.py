"""Stores what is published, in one order for the whole node, and passes it on to who waits for it."""

import queue
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Set

from ..exceptions import NodeStorageError
from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn
from ..ids import RLID
from .storage import Log, StoredEvent

#: The real server's buffers hold this many events (docs/protocol.rst, "Subscribe stream").
BUFFER = 16_384

#: One transaction holds at most this many events or bytes: enough to share a commit, few enough not to delay one.
_BATCH_EVENTS = 2_000
_BATCH_BYTES = 8 * 2**20


class Incoming(NamedTuple):
    """An event to be stored.

    Attributes:
        topic: The number of its topic in the log; -1 if the topic is gone.
        topic_id: The id of its topic.
        size: How many bytes it has, roughly.
        stored: Given the event's id, returns the bytes to store.
        done: Called once, with the time of the commit in nanoseconds, or with an error.
    """

    topic: int
    topic_id: bytes
    size: int
    stored: Callable[[bytes], bytes]
    done: Callable[[Any], None]


class Outgoing(NamedTuple):
    """A stored event on its way to a subscriber."""

    wrapper: bytes
    committed_ns: int


class Mailbox:
    """The events that wait for one subscriber. Beyond its size they are dropped, as the real server does."""

    def __init__(self, topics: Iterable[bytes]) -> None:
        self.topics: Set[bytes] = set(topics)
        self.dropped = 0
        self._queue: Any = queue.SimpleQueue()

    def offer(self, event: Outgoing) -> None:
        """Put an event in, or drop it."""
        if self._queue.qsize() >= BUFFER:
            self.dropped += 1
        else:
            self._queue.put(event)

    def take(self) -> Optional[Outgoing]:
        """Wait for the next event; None means the end."""
        event: Optional[Outgoing] = self._queue.get()
        return event

    def end(self) -> None:
        """Wake the taker for good."""
        self._queue.put(None)


class Broker:
    """One writer thread, a bounded queue before it, and the mailboxes behind it."""

    def __init__(self, log: Log, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._log = log
        self._now_ns = now_ns
        self._incoming: queue.Queue[Optional[Incoming]] = queue.Queue(BUFFER)
        self._lock = threading.Lock()
        self._mailboxes: Dict[bytes, List[Mailbox]] = {}
        self._sequence = 0
        self._last_ms = RLID(log.last_id()).milliseconds if log.last_id() else 0
        self._thread = spawn("node-writer", self._run)

    def publish(self, event: Incoming) -> None:
        """Have an event stored; blocks while the queue is full."""
        self._incoming.put(event)

    def subscribe(self, mailbox: Mailbox) -> None:
        """Pass on to a mailbox what is committed from now on."""
        with self._lock:
            for topic_id in mailbox.topics:
                self._mailboxes.setdefault(topic_id, []).append(mailbox)

    def unsubscribe(self, mailbox: Mailbox) -> None:
        """Pass nothing more on to a mailbox."""
        with self._lock:
            for topic_id in mailbox.topics:
                left = [other for other in self._mailboxes.get(topic_id, ()) if other is not mailbox]
                if left:
                    self._mailboxes[topic_id] = left
                else:
                    self._mailboxes.pop(topic_id, None)

    def close(self, deadline: Deadline) -> None:
        """Store what was handed in, then stop."""
        self._incoming.put(None)
        gather([self._thread], deadline)

    # the writer thread

    def _run(self) -> None:
        over = False
        while not over:
            first = self._incoming.get()
            if first is None:
                return
            batch, over = self._fill([first])
            self._commit(batch)

    def _fill(self, batch: List[Incoming]) -> Any:
        size = batch[0].size
        while len(batch) < _BATCH_EVENTS and size < _BATCH_BYTES:
            try:
                event = self._incoming.get_nowait()
            except queue.Empty:
                break
            if event is None:
                return batch, True
            batch.append(event)
            size += event.size
        return batch, False

    def _commit(self, batch: List[Incoming]) -> None:
        now = self._now_ns()
        events = [self._stored(event, now) for event in batch]
        try:
            there = self._log.append(events)
        except NodeStorageError as error:
            for event in batch:
                event.done(error)
            return
        for event, stored, exists in zip(batch, events, there):
            # First to the subscribers, then the ack: who publishes and then looks has been served.
            if exists:
                self._pass_on(event.topic_id, Outgoing(stored.wrapper, now))
            event.done(now if exists else KeyError(event.topic_id))

    def _stored(self, event: Incoming, now: int) -> StoredEvent:
        self._sequence += 1
        # Never backwards: the order of the ids is the order of the log, also when the clock was set back.
        self._last_ms = max(self._last_ms, now // 1_000_000)
        id = RLID.of(self._last_ms, self._sequence).bytes
        return StoredEvent(event.topic, id, event.stored(id), now)

    def _pass_on(self, topic_id: bytes, event: Outgoing) -> None:
        with self._lock:
            mailboxes = self._mailboxes.get(topic_id, ())
            for mailbox in mailboxes:
                mailbox.offer(event)
