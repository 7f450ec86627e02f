"""The subscribe stream of a subscription: from the wire into an inbox."""

import functools
import logging
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..exceptions import (
    EnsignClientClosingError,
    EnsignConnectionError,
    EnsignTimeoutError,
    UnknownTopicError,
)
from ..handover.clock import Clock, Deadline, Patience
from ..handover.inbox import Inbox
from ..ids import ULID, is_ulid
from ..protocol.frames import Delivery
from ..protocol.machine import Ended, Opened
from ..protocol.subscribe_stream import Delivered, SubscribeProtocol
from ..settings import Reconnect
from .driver import Hooks, Line, Stream, StreamDriver

logger = logging.getLogger("ensign_sync")


class SubscribeStream(Stream):
    """One subscriber over any number of connections. Any thread may call any method.

    Attributes:
        machine: See ``Stream``.
        inbox: Holds ``(Delivery, topic name)`` in the order of arrival.
        counts: received, acked, nacked.
    """

    machine: SubscribeProtocol

    def __init__(
        self,
        line: Line,
        topics: Sequence[str],
        inbox: Inbox,
        policy: Reconnect,
        hooks: Hooks,
        group: str = "",
        clock: Optional[Clock] = None,
    ) -> None:
        self.inbox = inbox
        self.counts: Dict[str, int] = {"received": 0, "acked": 0, "nacked": 0}
        self._wanted = tuple(topics)
        machine = SubscribeProtocol(str(ULID.new()), self._wanted, group)
        super().__init__(StreamDriver(machine, line, self._handle, policy, hooks, clock))
        self._changed = self._driver.changed
        self._names: Dict[bytes, str] = {}
        self._full_warned = False

    # what a user's thread calls

    def open(self, patience: Patience, endpoint: str) -> None:
        """Start, and block until the server has answered.

        Raises:
            UnknownTopicError: The server left out a topic that was asked for.
            EnsignError: What ended the stream, or EnsignTimeoutError when the patience ends first.
        """
        machine = self.machine
        in_time = self._driver.started_wait(lambda: machine.over or machine.opened, patience.remaining)
        if machine.failure is not None:
            if self._wanted and getattr(machine.failure, "code", None) == "FAILED_PRECONDITION":
                # Where it knows some of the topics the server leaves the others out; where none, it refuses.
                raise UnknownTopicError(", ".join(self._wanted)) from machine.failure
            raise machine.failure
        if machine.over:
            raise EnsignClientClosingError("the client was closed while the subscription opened")
        if not in_time:
            cause = self._driver.last_error
            if isinstance(cause, EnsignConnectionError):
                raise cause
            raise EnsignTimeoutError(f"no subscription to {endpoint} within {patience.seconds:.3g} s") from cause
        missing = missing_topics(self._wanted, machine.topics)
        if missing:
            raise UnknownTopicError(", ".join(missing))

    def ack(self, id: bytes) -> None:
        """Acknowledge an event; does not block. Without a connection the ack is dropped, as the server forgot us."""
        self._driver.change(functools.partial(self._answer, "acked", lambda machine: machine.ack(id)))

    def nack(self, id: bytes, code: int) -> None:
        """Refuse an event; does not block."""
        self._driver.change(functools.partial(self._answer, "nacked", lambda machine: machine.nack(id, code)))

    def close(self) -> None:
        """Cancel the stream and end the inbox; does not wait for the thread."""
        self._driver.change(lambda machine: None if machine.over else machine.close())
        self._driver.stop()
        self.inbox.close()

    def _answer(self, count: str, say: Callable[[Any], None], machine: Any) -> None:
        # The mutex is held, which the count needs as well: any thread may answer.
        if not machine.over:
            say(machine)
        self.counts[count] += 1

    # the reader thread

    def _handle(self, events: List[Any]) -> None:
        for event in events:
            kind = type(event)
            if kind is Delivered:
                self._deliver(event.delivery)
            elif kind is Opened:
                self._names = {id: name for name, id in event.topics.items()}
            elif kind is Ended and event.error is not None:
                self.inbox.close(event.error, drop=False)

    def _deliver(self, delivery: Delivery) -> None:
        self.counts["received"] += 1
        item = (delivery, self._names.get(delivery.topic_id, ""))
        size = len(delivery.payload)
        if self.inbox.put(item, size, _AT_ONCE):
            return
        if not self._full_warned and not self.inbox.closed:
            self._full_warned = True
            logger.warning(
                "the buffer of a subscription is full (%d events): the program is slower than its publishers; the"
                " server keeps 16,384 events for a subscriber and drops what comes beyond them",
                len(self.inbox),
            )
        self.inbox.put(item, size)


_AT_ONCE = Deadline(0.0)


def missing_topics(wanted: Sequence[str], have: Mapping[str, bytes]) -> Tuple[str, ...]:
    """Return what was asked for, by name or id, that a server's list of topics does not have."""
    ids = set(have.values())
    return tuple(
        topic for topic in wanted if topic not in have and not (is_ulid(topic) and ULID(topic).bytes in ids)
    )


