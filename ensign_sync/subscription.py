"""A subscription: the events of some topics, one after the other."""

import logging
import queue
import threading
from typing import Any, Callable, Dict, List, Optional

from .events import Event, EventState
from .exceptions import EnsignClientClosingError, EnsignError, EnsignSettingsError
from .handover.clock import Deadline
from .handover.inbox import Inbox, InboxClosed
from .ids import ULID
from .nack import UNPROCESSED
from .streams.subscribing import SubscribeStream

logger = logging.getLogger("ensign_sync")


class Subscription:
    """Iterator and context manager over live events. Threads may share it: each event goes to one of them.

    With ``auto_ack`` an event handed out by iteration is acknowledged when the same thread asks for the next one; an
    exception in the loop body leaves it unacknowledged, and an ack or nack by hand comes first and wins.
    """

    def __init__(
        self,
        stream: SubscribeStream,
        inbox: Inbox,
        decode: Callable[[Any, str], Event],
        auto_ack: bool,
    ) -> None:
        """Wrap an open stream; made by ``Ensign.subscribe``."""
        self._stream = stream
        self._inbox = inbox
        self._decode = decode
        self._auto_ack = auto_ack
        self._handed_out = threading.local()
        # Decided inside: which of an ack and a nack of the same event is first.
        self._answering = threading.Lock()
        self._delivered = 0

    @property
    def topics(self) -> Dict[str, str]:
        """The topics of the subscription, name to id."""
        return {name: str(ULID(id)) for name, id in self._stream.topics.items()}

    def get(self, timeout: Optional[float] = None) -> Event:
        """Return the next event; blocks for at most ``timeout`` seconds, None until there is one.

        Raises:
            queue.Empty: None came in time.
            EnsignClientClosingError: The subscription is closed.
            EnsignError: What ended the subscription for good.
        """
        try:
            delivery, topic = self._inbox.get(None if timeout is None else Deadline(timeout))
        except TimeoutError:
            raise queue.Empty from None
        except InboxClosed as closed:
            if isinstance(closed.cause, EnsignError):
                raise closed.cause from None
            raise EnsignClientClosingError("the subscription is closed") from None
        return self._hand_out(delivery, topic)

    def get_nowait(self) -> Event:
        """Return the next event if it is there; else raise queue.Empty. Otherwise like ``get``."""
        return self.get(0.0)

    def get_batch(self, max_events: int, timeout: float) -> List[Event]:
        """Return what there is, up to ``max_events``; waits at most ``timeout`` seconds for the first."""
        if max_events < 1:
            raise ValueError(f"max_events must be at least 1, got {max_events}")
        try:
            first = self.get(timeout)
        except queue.Empty:
            return []
        return [first] + [self._hand_out(*item) for item in self._inbox.get_many(max_events - 1)]

    def ack(self, event: Event) -> bool:
        """Acknowledge an event; does not block. Returns False if it was refused before."""
        return self._answer(event, EventState.ACKED, lambda: self._stream.ack(bytes(event.id)))

    def nack(self, event: Event, code: int = UNPROCESSED) -> bool:
        """Refuse an event; does not block. Returns False if it was acknowledged before."""
        return self._answer(event, EventState.NACKED, lambda: self._stream.nack(bytes(event.id), int(code)))

    def close(self) -> None:
        """End the subscription: what was not handed out is dropped, unacknowledged.

        From any thread, any number of times. Waits up to 5 seconds for its threads.
        """
        self._stream.close()
        self._stream.join(Deadline(5.0))

    def stats(self) -> Dict[str, Any]:
        """Return counts: received, delivered, buffered, acked, nacked, reconnects, state, last_error."""
        error = self._stream.last_error
        return {
            **self._stream.counts,
            "delivered": self._delivered,
            "buffered": len(self._inbox),
            "reconnects": self._stream.reconnects,
            "state": self._stream.state,
            "last_error": str(error) if error is not None else None,
        }

    def __iter__(self) -> "Subscription":
        return self

    def __next__(self) -> Event:
        before = getattr(self._handed_out, "event", None)
        if before is not None:
            self._handed_out.event = None
            if before.state is EventState.SUBSCRIBED:
                self.ack(before)
        try:
            event = self.get()
        except EnsignClientClosingError:
            raise StopIteration from None
        if self._auto_ack:
            self._handed_out.event = event
        return event

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _hand_out(self, delivery: Any, topic: str) -> Event:
        event = self._decode(delivery, topic)
        event._handle = self
        self._delivered += 1
        return event

    def _answer(self, event: Event, state: EventState, tell: Callable[[], None]) -> bool:
        with self._answering:
            first = event._state is EventState.SUBSCRIBED
            if first:
                event._state = state
        if first and event.id is not None:
            tell()
        return event._state is state


def group_name(group: Any) -> str:
    """Return the name of a consumer group, which may be a text or have one; empty for none."""
    if group is None:
        return ""
    name = group if isinstance(group, str) else str(getattr(group, "name", "") or "")
    if not name:
        raise ValueError("consumer_group must be a name, or have one")
    logger.warning("the server ignores consumer groups: every subscriber of %r gets every event", name)
    return name


def refuse_unsupported(**given: Any) -> None:
    """Raise for arguments that a later version will honour: silence would look as if they worked."""
    start = given.pop("start")
    if not (isinstance(start, str) and start in ("recent", "latest")):
        raise EnsignSettingsError(
            f"start={start!r} is not available in this version: a subscription starts now ('latest');"
            " read earlier events with query('SELECT * FROM topic')"
        )
    for name, value in given.items():
        if value:
            raise EnsignSettingsError(f"{name} is not available in this version: leave it out of subscribe()")
