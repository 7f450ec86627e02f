"""The subscribe stream of a subscription: from the wire, and from the log, into an inbox."""

import contextlib
import logging
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..exceptions import (
    EnsignClientClosingError,
    EnsignConnectionError,
    EnsignTimeoutError,
    UnknownTopicError,
)
from ..handover.clock import Clock, Deadline, Patience
from ..handover.inbox import Inbox
from ..handover.locking import Signal, holding
from ..ids import ULID, is_ulid
from ..protocol.frames import Delivery
from ..protocol.machine import Ended, Lost, Opened, State
from ..protocol.subscribe_stream import Delivered, SubscribeProtocol
from ..settings import Reconnect, Redeliver
from .driver import StreamDriver
from .healing import Healing
from .heartbeat import Heard
from .line import Hooks, Line
from .progress import Progress
from .redelivery import Redelivery
from .stream import Stream

logger = logging.getLogger("ensign_sync")


_OPEN = State.OPEN


class SubscribeStream(Stream):
    """One subscriber over any number of connections. Any thread may call any method.

    Attributes:
        machine: See ``Stream``.
        inbox: Holds ``(Delivery, topic name, how often it was refused)``.
        counts: acked, nacked.
        received: How many events arrived live.
        ended: Set when nothing more will arrive.
        healing: What reads from the log what the stream leaves out; None in a consumer group that the server keeps.
        progress: What was acknowledged.
        redelivery: What has events delivered again; None where the server does it.
    """

    machine: SubscribeProtocol

    def __init__(
        self,
        line: Line,
        topics: Sequence[str],
        inbox: Inbox,
        policy: Reconnect,
        hooks: Hooks,
        progress: Progress,
        group: str = "",
        clock: Optional[Clock] = None,
    ) -> None:
        self.inbox = inbox
        self.progress = progress
        self.counts: Dict[str, int] = {"acked": 0, "nacked": 0}
        self.received = 0
        self.ended = Signal()
        self._working = 0
        self.healing: Optional[Healing] = None
        self._deliver: Callable[[Delivery], None] = self._deliver_all
        self.redelivery: Optional[Redelivery] = None
        self._wanted = tuple(topics)
        machine = SubscribeProtocol(str(ULID.new()), self._wanted, group)
        super().__init__(StreamDriver(machine, line, self._handle, policy, hooks, clock, self._receive))
        self._mutex = self._driver.mutex
        self._names: Dict[bytes, str] = {}
        self.reopen = self._driver.reconnect

    def heal(self, healing: Healing, redelivery: Redelivery) -> None:
        """Have the log read for what the stream leaves out, and events delivered again; to be said before it opens."""
        self.healing, self.redelivery = healing, redelivery
        self._deliver = healing.live

    # what a user's thread calls

    def open(self, patience: Patience, endpoint: str) -> None:
        """Start, and block until the server has answered and what is published from now on is sure to be delivered.

        Raises:
            UnknownTopicError: The server left out a topic that was asked for.
            EnsignError: What ended the stream, or EnsignTimeoutError when the patience ends first.
        """
        machine = self.machine
        in_time = self._driver.started_wait(lambda: machine.over or machine.opened, patience.remaining)
        self._raise_what_ended_it()
        if not in_time:
            cause = self._driver.last_error
            if isinstance(cause, EnsignConnectionError):
                raise cause
            raise EnsignTimeoutError(f"no subscription to {endpoint} within {patience.seconds:.3g} s") from cause
        missing = missing_topics(self._wanted, machine.topics)
        if missing:
            raise UnknownTopicError(", ".join(missing))
        patience.progress()
        if self.healing is not None:
            self.healing.begin(machine.topics, patience, lambda: machine.over)
            self._raise_what_ended_it()
        self.progress.start()

    def _raise_what_ended_it(self) -> None:
        machine = self.machine
        if machine.failure is not None:
            if self._wanted and getattr(machine.failure, "code", None) == "FAILED_PRECONDITION":
                # Where it knows some of the topics the server leaves the others out; where none, it refuses.
                raise UnknownTopicError(", ".join(self._wanted)) from machine.failure
            raise machine.failure
        if machine.over:
            raise EnsignClientClosingError("the client was closed while the subscription opened")

    def ack(self, topic: str, id: bytes) -> None:
        """Acknowledge an event; returns when a checkpoint that is saved at once has it.

        Without a connection the server is not told, as it forgot us.

        Raises:
            CheckpointError: It could not be saved; the event is acknowledged.
        """
        with self._mutex: self._ack(id)  # noqa: E701 - see handover/locking.py
        if self.progress.keeps:
            self.progress.done(topic, id)

    def _ack(self, id: bytes) -> None:
        self.counts["acked"] += 1
        machine = self.machine
        if not machine.over:
            machine.ack(id)
            self._driver.flush()

    def nack(
        self, delivery: Delivery, topic: str, code: int, refused: int, policy: Optional[Redeliver] = None
    ) -> None:
        """Refuse an event, which was refused so often before; does not block."""
        self._answer("nacked", self.machine.nack, delivery.id, code)
        redelivery = self.redelivery
        if redelivery is None or not redelivery.takes(delivery, topic, code, refused, policy):
            self.progress.done(topic, delivery.id)

    def stop(self) -> None:
        """Cancel the stream, read no more and end the inbox; what was handed out can still be acknowledged."""
        self._driver.change(lambda machine: None if machine.over else machine.close())
        self._driver.stop()
        self._end()
        self.inbox.close()

    def close(self) -> None:
        """Do that, and be done with the checkpoint too; does not wait for the threads.

        The checkpoint is let go of when nobody works any more on what was handed out.
        """
        self.stop()
        if not self._working:
            self.progress.close()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Keep the checkpoint in use until this ends, even if the stream is closed meanwhile."""
        self._begin_to_work(1)
        try:
            yield
        finally:
            if not self._begin_to_work(-1) and self.over:
                self.progress.close()

    @holding("_mutex")
    def _begin_to_work(self, more: int) -> int:
        self._working += more
        return self._working

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the threads; returns the names of those that did not stop."""
        healers = self.healing.join(deadline) if self.healing is not None else []
        return [*super().join(deadline), *healers]

    @holding("_mutex")
    def _answer(self, count: str, say: Callable[..., None], *what: Any) -> None:
        self.counts[count] += 1
        if not self.machine.over:
            say(*what)
            self._driver.flush()

    def _end(self) -> None:
        self.ended.set()
        self.forsake()
        if self.healing is not None:
            self.healing.close()
        if self.redelivery is not None:
            self.redelivery.close()

    def owes(self) -> bool:
        """Tell whether it is open: it may be silent for ever, and then only asking tells whether it lives."""
        return self.machine.state is _OPEN

    def heard(self) -> Heard:
        """Return how many events came."""
        return Heard(self.received, self._driver.connections)

    def signs(self) -> Any:
        """Return something else whenever anything was received, on the stream or of the log."""
        return super().signs(), self.healing.signs() if self.healing is not None else None

    # the reader thread

    def _receive(self, frame: Any) -> bool:
        """Take an event on the short way, if it is one and the stream is open."""
        if type(frame) is not Delivery or self.machine.state is not _OPEN:
            return False
        self.received += 1
        self._deliver(frame)
        return True

    def _handle(self, events: List[Any]) -> None:
        for event in events:
            kind = type(event)
            if kind is Delivered:
                self._receive(event.delivery)
            elif kind is Opened:
                self._names = {id: name for name, id in event.topics.items()}
                if self.healing is not None:
                    self.healing.opened(event.topics)
            elif kind is Lost and self.healing is not None:
                self.healing.lost()
            elif kind is Ended and event.error is not None:
                self._end()
                self.inbox.close(event.error, drop=False)

    def _deliver_all(self, delivery: Delivery) -> None:
        item = (delivery, self._names.get(delivery.topic_id, ""), 0)
        size = len(delivery.payload)
        if not self.inbox.has_room(size):
            self.inbox.wait_for_room(size)
        self.inbox.put(item, size)


def missing_topics(wanted: Sequence[str], have: Mapping[str, bytes]) -> Tuple[str, ...]:
    """Return what was asked for, by name or id, that a server's list of topics does not have."""
    ids = set(have.values())
    return tuple(
        topic for topic in wanted if topic not in have and not (is_ulid(topic) and ULID(topic).bytes in ids)
    )
