"""A subscription: the events of some topics, one after the other."""

import logging
import queue
import threading
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from . import ensql
from .checkpoint import FileCheckpoint
from .events import Event, EventState
from .exceptions import (
    CouldNotAck,
    EnsignClientClosingError,
    EnsignError,
    EnsignSettingsError,
    InvalidQueryError,
)
from .handover.clock import Deadline, Patience
from .handover.crew import run_crew
from .handover.inbox import Hand, Inbox, InboxClosed
from .ids import RLID, ULID
from .nack import DELIVER_AGAIN_ANY, UNPROCESSED
from .settings import Redeliver
from .streams.connection import Connection, Subscribed
from .streams.healing import GapDoor
from .streams.log import Way
from .streams.subscribing import SubscribeStream

logger = logging.getLogger("ensign_sync")

_SUBSCRIBED, _ACKED, _NACKED = EventState.SUBSCRIBED, EventState.ACKED, EventState.NACKED


class Gap(NamedTuple):
    """Events that a subscription did not get, or may not have got, and cannot get any more.

    Attributes:
        topic: The name of the topic.
        after_id: They come after this event, None if nothing came before them.
        before_id: They come before this one, None if that is not known.
        certain: Whether there were any for sure.
        reason: What happened.
    """

    topic: str
    after_id: Optional[RLID]
    before_id: Optional[RLID]
    certain: bool
    reason: str


class Subscription:
    """Iterator and context manager over events. Threads may share it: each event goes to one of them.

    With ``auto_ack`` an event handed out by iteration is acknowledged when the same thread asks for the next one; an
    exception in the loop body leaves it unacknowledged, and an ack or nack by hand comes first and wins.

    Every event after the start arrives once, in the order of its topic; what the server does not deliver is read from
    its log (docs/subscribing.rst). With a checkpoint that holds across restarts of the program.
    """

    def __init__(
        self,
        stream: SubscribeStream,
        inbox: Inbox,
        decode: Callable[[Any, str], Event],
        auto_ack: bool,
        wanted: Optional[ensql.Filter] = None,
    ) -> None:
        """Wrap an open stream; made by ``Ensign.subscribe``."""
        self._stream = stream
        self._inbox = inbox
        self._decode = decode
        self._auto_ack = auto_ack
        self._wanted = wanted
        self._handed_out = threading.local()
        # Decided inside: which of an ack and a nack of the same event is first.
        self._answering = threading.Lock()
        self._filtering = threading.Lock()
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
        hand: Hand = []
        try:
            return self._next(None if timeout is None else Deadline(timeout), hand)
        except BaseException as error:
            self._put_back(hand, error)
            raise

    def _next(self, deadline: Optional[Deadline], hand: Hand) -> Event:
        while True:
            try:
                item = self._inbox.get(deadline, hand)
            except TimeoutError:
                raise queue.Empty from None
            except InboxClosed as closed:
                if isinstance(closed.cause, EnsignError):
                    raise closed.cause from None
                raise EnsignClientClosingError("the subscription is closed") from None
            event = self._hand_out(item)
            if event is not None:
                return event
            hand.clear()

    def _put_back(self, hand: Hand, error: BaseException) -> None:
        """Put back what an interrupt, such as Ctrl-C, kept from being handed out."""
        if hand and not isinstance(error, Exception):
            self._inbox.put_back(hand)

    def get_nowait(self) -> Event:
        """Return the next event if it is there; else raise queue.Empty. Otherwise like ``get``."""
        return self.get(0.0)

    def get_batch(self, max_events: int, timeout: float) -> List[Event]:
        """Return what there is, up to ``max_events``; waits at most ``timeout`` seconds for the first."""
        if max_events < 1:
            raise ValueError(f"max_events must be at least 1, got {max_events}")
        hand: Hand = []
        try:
            first = self._next(Deadline(timeout), hand)
            rest = map(self._hand_out, self._inbox.get_many(max_events - 1, hand))
            return [first, *(event for event in rest if event is not None)]
        except queue.Empty:
            return []
        except BaseException as error:
            self._put_back(hand, error)
            raise

    def ack(self, event: Event) -> bool:
        """Acknowledge an event; it does not come again, also after a restart if there is a checkpoint.

        Blocks only while a checkpoint is written that is saved at once. Returns False if it was refused before, or if
        the subscription is closed and its checkpoint takes no more: then it comes again.

        Raises:
            CheckpointError: The checkpoint could not be written.
        """
        stream = self._stream
        if stream.progress.closed and event._state is _SUBSCRIBED:
            return False
        before = event._state
        try:
            if self._answered(event, _ACKED):
                delivery, topic, _ = event._delivered
                stream.ack(topic, delivery.id)
        except Exception:
            raise
        except BaseException:  # an interrupt: nobody may have been told, so it can be said again
            if before is _SUBSCRIBED:
                event._state = _SUBSCRIBED
            raise
        return event._state is _ACKED

    def nack(self, event: Event, code: int = UNPROCESSED) -> bool:
        """Refuse an event; does not block. Returns False if it was acknowledged before.

        With DELIVER_AGAIN_ANY or DELIVER_AGAIN_NOT_ME it is delivered again after a while, see ``redeliver``; with any
        other code it is done with.
        """
        before = event._state
        try:
            if self._answered(event, _NACKED):
                delivery, topic, refused = event._delivered
                self._stream.nack(delivery, topic, int(code), refused)
        except Exception:
            raise
        except BaseException:  # as in ack
            if before is _SUBSCRIBED:
                event._state = _SUBSCRIBED
            raise
        return event._state is EventState.NACKED

    def run(
        self,
        handler: Callable[[Event], Any],
        workers: int = 1,
        retry: Optional[Redeliver] = None,
    ) -> None:
        """Call ``handler(event)`` for each event until the subscription is closed, by any thread; blocks so long.

        An event whose handler returns is acknowledged, unless the handler did so itself or refused it. One whose
        handler raises is refused, and with ``retry`` delivered again.

        Args:
            handler: With several workers it must be safe to call from several threads.
            workers: One keeps the order of each topic and runs on the calling thread; several run as many events at
                once, in no order.
            retry: How often and when an event comes again whose handler raised. None refuses it for good.

        Raises:
            EnsignError: What ended the subscription for good.
            KeyboardInterrupt: In the calling thread; the subscription is closed before.
        """
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if retry is not None:
            _check_redeliver("retry", retry)
        in_order = workers == 1

        def work() -> None:
            while True:
                try:
                    event = self.get()
                except EnsignClientClosingError:
                    return
                while event is not None and not self._handled(handler, event, retry, in_order):
                    event = self._once_more(event, retry)  # type: ignore[assignment]

        try:
            # What is being handled when the subscription is closed is still acknowledged, also in the checkpoint.
            with self._stream.working():
                run_crew(work, workers, self._stream.close)
        finally:
            self.close()

    def _handled(
        self, handler: Callable[[Event], Any], event: Event, retry: Optional[Redeliver], in_order: bool
    ) -> bool:
        """Have an event handled; returns False if that is to be tried again here and now, for the sake of the order."""
        try:
            handler(event)
        except Exception:
            logger.exception("the handler of a subscription raised, and the event is refused: %s", event.id)
            if event._state is not EventState.SUBSCRIBED:
                return True
            delivery, topic, refused = event._delivered
            if retry is not None and in_order and refused + 1 < retry.attempts:
                return False
            if self._answered(event, _NACKED):
                code = UNPROCESSED if retry is None else DELIVER_AGAIN_ANY
                self._stream.nack(delivery, topic, int(code), refused, retry)
        else:
            if event._state is EventState.SUBSCRIBED:
                self.ack(event)
        return True

    def _once_more(self, event: Event, retry: Optional[Redeliver]) -> Optional[Event]:
        """Wait, and return the event as it was; None if the subscription was closed meanwhile."""
        assert retry is not None
        delivery, topic, refused = event._delivered
        if self._stream.ended.wait(retry.pause(refused)):
            return None
        return self._made((delivery, topic, refused + 1))

    def close(self) -> None:
        """End the subscription: what was not handed out is dropped, unacknowledged.

        From any thread, any number of times. Waits up to 5 seconds for its threads, and saves the checkpoint.
        """
        self._stream.close()
        self._stream.join(Deadline(5.0))

    def stats(self) -> Dict[str, Any]:
        """Return counts: received, delivered, buffered, acked, nacked, redelivered, dead, gaps, reads and others.

        ``received`` is what came live, ``reads`` how often the log was asked, and ``behind`` the topics that are being
        read from it.
        """
        stream = self._stream
        error = stream.last_error or (stream.healing.last_error if stream.healing is not None else None)
        healing, redelivery = stream.healing, stream.redelivery
        return {
            **stream.counts,
            "received": stream.received,
            "delivered": self._delivered,
            "buffered": len(self._inbox),
            "redelivered": redelivery.redelivered if redelivery is not None else 0,
            "dead": redelivery.dead if redelivery is not None else 0,
            "gaps": healing.gaps if healing is not None else 0,
            "reads": healing.reads if healing is not None else 0,
            "behind": healing.behind if healing is not None else [],
            "reconnects": stream.reconnects,
            "state": stream.state,
            "last_error": str(error) if error is not None else None,
        }

    def __iter__(self) -> "Subscription":
        return self

    def __next__(self) -> Event:
        handed_out = self._handed_out.__dict__  # of this thread
        hand: Hand = []
        try:
            before = handed_out.get("event")
            if before is not None:
                if before._state is _SUBSCRIBED:
                    self.ack(before)
                handed_out["event"] = None
            event = self._next(None, hand)
            if self._auto_ack:
                handed_out["event"] = event
            return event
        except EnsignClientClosingError:
            raise StopIteration from None
        except BaseException as error:
            if hand:
                handed_out["event"] = None
            self._put_back(hand, error)
            raise

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _hand_out(self, item: Tuple[Any, str, int]) -> Optional[Event]:
        """Make the event of what arrived; None if the query does not want it, and then it is done with."""
        if self._wanted is None:  # as _made does
            event = self._decode(item[0], item[1])
            event._handle, event._delivered = self, item
            self._delivered += 1
            return event
        wanted = self._made(item)
        if wanted is not None:
            self._delivered += 1
        return wanted

    def _made(self, item: Tuple[Any, str, int]) -> Optional[Event]:
        delivery, topic, refused = item
        event = self._decode(delivery, topic)
        wanted = self._wanted
        if wanted is not None:
            if refused:
                wanted.again(event)
            elif not self._filtered(wanted, event, delivery.id):
                return None
        event._handle, event._delivered = self, item
        return event

    def _filtered(self, wanted: ensql.Filter, event: Event, id: bytes) -> bool:
        """Tell whether the query wants an event. One that it leaves out is done with; one beyond its end is not."""
        # Decided inside: how many the query still wants, whichever thread asks.
        with self._filtering:
            over, wants = wanted.at_end, wanted.wants(event)
        if not (wants or over):
            self._stream.progress.done(event.topic, id)
        if wanted.at_end:
            self._stream.stop()  # what was asked for is all there
        return wants

    def _answered(self, event: Event, state: EventState) -> bool:
        if event._handle is not self:
            raise CouldNotAck("the event did not come from this subscription")
        with self._answering: return _changed(event, state)  # noqa: E701 - see handover/locking.py


def _changed(event: Event, state: EventState) -> bool:
    """Answer an event that was not; returns whether it was not."""
    if event._state is not _SUBSCRIBED:
        return False
    event._state = state
    return True


class Asked(NamedTuple):
    """The arguments of ``Ensign.subscribe``, as they were given."""

    topics: Sequence[str]
    query: str
    params: Optional[Mapping[str, Any]]
    consumer_group: Any
    start: Any
    checkpoint: Any
    auto_ack: bool
    max_buffered: int
    max_buffered_bytes: int
    on_gap: Optional[Callable[[Gap], Any]]
    redeliver: Redeliver
    on_dead_letter: Optional[Callable[[Event], Any]]


def open_subscription(connection: Connection, asked: Asked, patience: Patience, endpoint: str) -> Subscription:
    """Open a subscription; blocks until what is published from now on is sure to be delivered."""
    if asked.max_buffered < 1 or asked.max_buffered_bytes < 1:
        raise EnsignSettingsError("max_buffered and max_buffered_bytes must be positive")
    _check_redeliver("redeliver", asked.redeliver)
    wanted = ensql.subscription_filter(asked.query, asked.params)
    topics = list(asked.topics)
    if wanted is not None and topics and topics != [wanted.select.topic]:
        raise EnsignSettingsError(
            f"the query is about the topic {wanted.select.topic!r} and the subscription about {', '.join(topics)}:"
            " subscribe to the topic of the query, or to each of several with a query of its own"
        )
    if wanted is not None:
        topics = [wanted.select.topic]
    group = _group_name(asked.consumer_group)
    announced = connection.unary.features(patience.remaining()) if group else frozenset()
    if group and "groups" not in announced:
        logger.warning("the server ignores consumer groups: every subscriber of %r gets every event", group)
    inbox = Inbox(asked.max_buffered, asked.max_buffered_bytes)
    wish = Subscribed(
        asked.start,
        _checkpoint(asked.checkpoint),
        group,
        bool(group) and "groups" in announced,
        asked.redeliver,
        _gap_door(connection, asked.on_gap),
        _dead_letter_door(connection, asked.on_dead_letter),
    )
    stream = connection.subscriber(topics, inbox, wish)
    try:
        stream.open(patience, endpoint)
    except BaseException:
        stream.close()
        raise
    return Subscription(stream, inbox, connection.decode_event, asked.auto_ack, wanted)


def spelling(name: str, id: bytes, features: Callable[[], Iterable[str]]) -> List[Way]:
    """Return the texts that may name a topic in a query (docs/protocol.rst, "EnSQL")."""
    if ensql.is_queryable(name):
        return [Way(name, True)]
    quoted = f'"{name}"'
    try:
        whole = ensql.parse_full(f"SELECT * FROM {quoted}").topic == name
    except InvalidQueryError:
        return []
    if whole and "where" in features():
        return [Way(quoted, True)]
    return [Way(quoted, False), Way(str(ULID(id)), False)]


def _check_redeliver(name: str, given: Any) -> None:
    if not isinstance(given, Redeliver):
        raise TypeError(f"{name} must be a Redeliver, such as Redeliver(attempts=3), got {type(given).__name__}")
    given.check()


def _checkpoint(given: Any) -> Any:
    if given is None or (hasattr(given, "load") and hasattr(given, "save")):
        return given
    if isinstance(given, str) or hasattr(given, "__fspath__"):
        return FileCheckpoint(given)
    raise TypeError(
        f"checkpoint must be a path or an object with load() and save(mapping), got {type(given).__name__}"
    )


def _gap_door(connection: Connection, on_gap: Optional[Callable[[Gap], Any]]) -> GapDoor:
    def tell(topic: str, after_id: bytes, certain: bool, reason: str) -> None:
        after = RLID(after_id) if len(after_id) == RLID.size else None
        gap = Gap(topic, after, None, certain, reason)
        if on_gap is not None:
            connection.post(on_gap, gap)
        else:
            sure = "were" if gap.certain else "may have been"
            logger.warning("events of %s %s missed after %s: %s", topic, sure, after or "the start", gap.reason)

    return tell


def _dead_letter_door(connection: Connection, call: Optional[Callable[[Event], Any]]) -> Callable[[Any, str], None]:
    def give_up(delivery: Any, topic: str) -> None:
        event = connection.decode_event(delivery, topic)
        if call is not None:
            connection.post(call, event)
        else:
            logger.warning("an event of %s was refused too often and is given up: %s", topic, event.id)

    return give_up


def _group_name(group: Any) -> str:
    """Return the name of a consumer group, which may be a text or have one; empty for none."""
    if group is None:
        return ""
    name = group if isinstance(group, str) else str(getattr(group, "name", "") or "")
    if not name:
        raise ValueError("consumer_group must be a name, or have one")
    return name
