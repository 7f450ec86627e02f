"""A publish call: many events that one thread waits for, and the error that says what became of each."""

import logging
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from ..ack import Ack
from ..events import Event, EventState, from_object
from ..exceptions import EnsignError, EnsignRPCError, NackError, PublishError, PublishTimeoutError, UnknownTopicError
from ..handover.clock import Patience
from ..handover.receipt import Collector
from ..nack import Nack
from ..protocol.frames import Payload
from ..protocol.publish_stream import Abandoned
from ..wire.codec import encode_event
from .connection import Connection
from .publishing import PublishStream, given_up_error

logger = logging.getLogger("ensign_sync")

#: Looked up once, since Python takes long over a member of an enumeration.
_PUBLISHED, _ACKED = EventState.PUBLISHED, EventState.ACKED

Callback = Optional[Callable[[Any], Any]]
Failure = Tuple[int, Any, Exception]


#: Encodes an event; raises TypeError or ValueError.
Encode = Callable[[Event], Payload]

#: What does for most; else see ``encode_for``.
PLAIN: Encode = encode_event


def encode_for(connection: Connection, topic: str, patience: Patience) -> Encode:
    """Return what encodes events that are published idempotently; blocks at the first time for a topic.

    Raises:
        EnsignSettingsError: Its log cannot be searched.
        UnknownTopicError, PublishTimeoutError, AuthenticationError, EnsignError: There is no stream to be had.
    """
    if not connection.is_searchable(topic):
        for last_try in (False, True):
            stream = ready_stream(connection, topic, patience)
            try:
                connection.check_log(stream, topic, patience.remaining())
                break
            except EnsignError as error:
                if last_try or not error.retriable:
                    raise
    return connection.encode_keyed


def prepare(obj: Any, stream: PublishStream, encode: Encode) -> Tuple[Event, Payload]:
    """Make an event of any object and encode it; returns both.

    Raises:
        TypeError, ValueError: It cannot be made into an event.
        EventTooLargeError: It does not fit into a request.
    """
    event = obj if type(obj) is Event else from_object(obj)
    payload = encode(event)
    if len(payload) > stream.surely_small:
        stream.check_size(payload)
    return event, payload


def ready_stream(connection: Connection, topic: str, patience: Patience) -> PublishStream:
    """Return a publish stream that knows the topic; blocks while it connects.

    Raises:
        UnknownTopicError: There is no such topic.
        PublishTimeoutError, AuthenticationError, EnsignError: There is no stream to be had.
    """
    stream = connection.publisher()
    if stream.knows(topic):
        return stream
    for last_try in (False, True):
        stream = connection.publisher()
        try:
            stream.ensure_topic(topic, patience)
            return stream
        except EnsignRPCError as error:
            # A project without any topic refuses every stream, so it could not be asked for this one.
            if error.code != "FAILED_PRECONDITION":
                raise
            if last_try or not connection.topic_exists(topic, patience.remaining()):
                raise UnknownTopicError(topic) from error
    raise AssertionError("unreachable: the loop returns or raises")


def hand_over(
    connection: Connection,
    stream: PublishStream,
    topic: str,
    payload: Payload,
    owner: Any,
    patience: Callable[[Optional[float]], Patience],
    timeout: Optional[float],
) -> None:
    """Register one payload; blocks, with a patience made for it, only where there is no connection or no room.

    Raises:
        UnknownTopicError, PublishTimeoutError, AuthenticationError, EnsignError: It was not accepted.
    """
    try:
        if connection.callbacks.has_room and stream.offer(topic, payload, owner):
            return
        patient = patience(timeout)
        if not stream.knows(topic):
            stream = ready_stream(connection, topic, patient)
        if not connection.callbacks.wait_for_room(patient.remaining):
            raise stream.timeout_error("too many callbacks of earlier events wait to be run", patient)
        stream.put(topic, [payload], owner, patient)
    except BaseException as error:
        stream.give_up(owner)
        if not isinstance(error, EnsignError):
            stream.start_over()
        raise


def settle_event(event: Event, outcome: Any) -> None:
    """Note on an event what became of it."""
    if type(outcome) is Ack:
        event.id, event._committed, event._state = outcome.id, outcome._committed, _ACKED
        if event.error is not None:
            event.error = None
    else:
        event.error = outcome
        if isinstance(outcome, Nack):
            event._state = EventState.NACKED


def outcome_of_future(event: Event, outcome: Any) -> Any:
    """Return what a future makes of its event's outcome: an Ack, or the exception to raise."""
    if type(outcome) is Ack and event.error is None:  # as settle_event does
        event.id, event._committed, event._state = outcome.id, outcome._committed, _ACKED
        return outcome
    settle_event(event, outcome)
    return NackError(outcome.code, outcome.error) if isinstance(outcome, Nack) else outcome


def publish_alone(
    connection: Connection, topic: str, obj: Any, patience: Patience, encode: Encode
) -> Optional[List[Ack]]:
    """Publish one event, reading the answer on this thread, if that can be done now; returns None if it cannot.

    It is what ``Batch.publish_all`` does, in as few steps as there can be: they are the time that an event takes.
    """
    stream = connection.publisher()
    if not stream.lets_read:
        return None
    event, payload = prepare(obj, stream, encode)
    collector = Collector()
    try:
        event._state = _PUBLISHED
        if not stream.put_alone(topic, payload, collector, patience):
            return None
        for _, outcome in collector.outcomes:
            if type(outcome) is Ack:
                settle_event(event, outcome)
                return [outcome]
    except BaseException:
        stream.give_up(collector)
        stream.start_over()
        raise
    batch = Batch(connection, topic, patience, None, None, encode)
    batch.finish(event, collector, stream)
    acks: List[Any] = batch.acks
    return acks


class Batch:
    """The events of one call. Used by one thread.

    Attributes:
        acks: An Ack per event that is settled well, None for the others, in order; only if they are kept.
        acknowledged: How many were.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        patience: Patience,
        on_ack: Callback,
        on_nack: Callback,
        encode: Encode,
    ) -> None:
        self.acks: List[Optional[Ack]] = []
        self.acknowledged = 0
        self._connection = connection
        self._topic = topic
        self._patience = patience
        self._on_ack = on_ack
        self._on_nack = on_nack
        self._encode = encode
        self._collector = Collector()
        self._open: Dict[int, Event] = {}  # by index: events without an outcome, registered or not
        self._registered = 0
        self._failures: List[Failure] = []
        self._stream: Optional[PublishStream] = None

    def publish_all(self, objects: Iterable[Any]) -> None:
        """Publish a finished list: everything is checked before anything is sent. Blocks until all is settled.

        Raises:
            PublishError and its kind: Some events were not acknowledged.
            TypeError, ValueError, EventTooLargeError: One cannot be sent, so nothing was.
        """
        stream, encode = self._connection.publisher(), self._encode
        events, payloads = [], []
        for obj in objects:  # as prepare does
            event = obj if type(obj) is Event else from_object(obj)
            payload = encode(event)
            if len(payload) > stream.surely_small:
                stream.check_size(payload)
            events.append(event)
            payloads.append(payload)
        self.acks = [None] * len(events)
        for index, event in enumerate(events):
            self._accept(index, event)
        ending: Optional[EnsignError] = None
        try:
            if len(payloads) == 1:
                self._stream = stream
                self._registered += stream.put_alone(self._topic, payloads[0], self._collector, self._patience)
            if self._registered < len(payloads):
                stream = self._ready()
            while self._registered < len(payloads):
                at = self._registered
                self._registered += stream.put(self._topic, payloads, self._collector, self._patience, at)
                self._take()
            self._wait_for_the_rest()
        except BaseException as error:
            ending = self._ended(error)
        self._raise_failures(ending)

    def finish(self, event: Event, collector: Collector, stream: PublishStream) -> None:
        """Wait for an event that was registered already. Raises what ``publish_all`` does."""
        self._collector, self._stream, self._registered, self.acks = collector, stream, 1, [None]
        self._accept(0, event)
        ending: Optional[EnsignError] = None
        try:
            self._wait_for_the_rest()
        except BaseException as error:
            ending = self._ended(error)
        self._raise_failures(ending)

    def publish_each(self, objects: Iterable[Any], keep_acks: bool = False) -> None:
        """Publish as the items come, in bounded memory; stops at the first failure and waits for those before it.

        Raises:
            PublishError and its kind: At the first failure; its first entry has the index of the item.
        """
        iterator = iter(objects)
        ending: Optional[EnsignError] = None
        try:
            while not self._failures:
                try:
                    obj = next(iterator)
                except StopIteration:
                    break
                except Exception:
                    self._settle_quietly()
                    raise
                self._patience.progress()  # the time that the caller's own iterator takes is not the server's
                if keep_acks:
                    self.acks.append(None)
                self._publish_one(obj)
                self._take()
            self._wait_for_the_rest()
        except BaseException as error:
            ending = self._ended(error)
        self._raise_failures(ending)

    # inside

    def _publish_one(self, obj: Any) -> None:
        index = self._registered
        try:
            event, payload = prepare(obj, self._stream or self._connection.publisher(), self._encode)
        except (TypeError, ValueError) as error:
            self._failures.append((index, obj, error))
            return
        self._accept(index, event)
        stream = self._stream or self._ready()
        self._registered += stream.put(self._topic, [payload], self._collector, self._patience, 0, index)

    def _ready(self) -> PublishStream:
        self._stream = ready_stream(self._connection, self._topic, self._patience)
        return self._stream

    def _accept(self, index: int, event: Event) -> None:
        if event.error is not None:
            event.error = None
        event._state = _PUBLISHED
        self._open[index] = event

    def _wait_for_the_rest(self) -> None:
        self._take()
        if not self._open:
            return
        if not self._collector.wait(len(self._open), self._patience):
            assert self._stream is not None
            raise self._stream.timeout_error("not every event was acknowledged", self._patience)
        self._take()

    def _settle_quietly(self) -> None:
        """The caller's own iterator raised, and that is what the caller will see; what was sent is waited for."""
        try:
            self._wait_for_the_rest()
        except EnsignError as error:
            self._give_up(error)
        if self._failures:
            logger.warning("%d events of an interrupted publish call were not acknowledged", len(self._failures))

    def _ended(self, error: BaseException) -> EnsignError:
        """Leave no event of this call behind, whatever ended it; returns what the error that names them begins with."""
        if not isinstance(error, EnsignError):
            self._withdraw()
            if self._stream is not None:
                self._stream.start_over()
            raise error
        if not self._registered and not isinstance(error, PublishTimeoutError):
            for event in self._open.values():
                event.error = error
            raise error
        self._give_up(error)
        return error

    def _withdraw(self) -> Dict[int, Abandoned]:
        return dict(self._stream.give_up(self._collector)) if self._stream is not None else {}

    def _give_up(self, why: EnsignError) -> None:
        """Name what became of every event that is still open."""
        fates = self._withdraw()
        # What was registered and is not pending any more was settled: the reader is about to say so.
        settled = [n for n in self._open if n < self._registered and n not in fates]
        self._collector.wait(len(settled), Patience(10.0, 10.0))
        self._take()
        for index, event in list(self._open.items()):
            timed_out = isinstance(why, PublishTimeoutError)
            fate = fates.get(index, Abandoned.NEVER_SENT)
            error: Exception = given_up_error(fate, str(why)) if timed_out or index in fates else why
            event.error = error
            self._failures.append((index, event, error))
        self._open.clear()

    def _take(self) -> None:
        """Take the outcomes that are there, and tell the callbacks."""
        outcomes, acks, on_ack, forget = self._collector.outcomes, self.acks, self._on_ack, self._open.pop
        while outcomes:
            index, outcome = outcomes.popleft()
            event = forget(index)
            settle_event(event, outcome)
            if type(outcome) is Ack:
                self.acknowledged += 1
                if acks:
                    acks[index] = outcome
                if on_ack is not None:
                    _tell(on_ack, outcome)
            elif not isinstance(outcome, Nack):
                self._failures.append((index, event, outcome))
            elif self._on_nack is not None:
                _tell(self._on_nack, outcome)
            else:
                self._failures.append((index, event, NackError(outcome.code, outcome.error)))

    def _raise_failures(self, ending: Optional[EnsignError]) -> None:
        if not self._failures:
            if ending is not None:
                raise ending
            return
        failures = sorted(self._failures, key=lambda failure: failure[0])
        first = failures[0][2]
        if isinstance(ending, PublishTimeoutError):
            ending.args = (f"{ending}; {self._summary(failures)}", *ending.args[1:])
            ending.acks, ending.failures = list(self.acks), failures
            raise ending
        if all(isinstance(error, NackError) for _, _, error in failures):
            assert isinstance(first, NackError)
            raise NackError(first.code, first.error, list(self.acks), failures)
        raise PublishError(f"{first}; {self._summary(failures)}", list(self.acks), failures) from first

    def _summary(self, failures: List[Failure]) -> str:
        doubtful = sum(1 for _, _, error in failures if getattr(error, "sent", False))
        return (
            f"{self.acknowledged} events were acknowledged, {doubtful} may have been stored,"
            f" {len(failures) - doubtful} were not stored"
        )


def _tell(callback: Callback, value: Any) -> None:
    if callback is not None:
        try:
            callback(value)
        except Exception:
            logger.exception("a publish callback raised; the event's outcome stands")
