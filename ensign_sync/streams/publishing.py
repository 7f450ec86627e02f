"""The publish stream of a connection: registers events, waits for room and for acks, and gives up in order."""

import copy
import functools
import logging
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..ack import Ack
from ..exceptions import (
    EnsignClientClosingError,
    EnsignConnectionError,
    EnsignError,
    EventTooLargeError,
    PublishTimeoutError,
    PublishUnreachableError,
    UnknownTopicError,
)
from ..handover.clock import Clock, Deadline, Patience
from ..handover.locking import holding
from ..handover.spawn import gather
from ..ids import ULID
from ..nack import Nack
from ..protocol.frames import Payload
from ..protocol.machine import State
from ..protocol.publish_stream import Abandoned, Drained, Failed, InDoubt, PublishProtocol, Settled, TopicsStale
from ..settings import Reconnect
from ..wire import codec
from .doubt import Doubts, find_topic
from .driver import StreamDriver
from .heartbeat import Heard
from .line import Hooks, Line
from .resolving import DRAIN_SECONDS, Resolver
from .stream import Stream

logger = logging.getLogger("ensign_sync")

#: How long ``close`` waits for the server's last message after the half-close.
FAREWELL_SECONDS = 0.5


class Window(NamedTuple):
    """How much may be unacknowledged at once, and how large a request may be."""

    events: int
    bytes: int
    request: int = codec.DEFAULT_REQUEST_LIMIT - codec.REPLY_SLACK


def request_limit(channel_options: Sequence[Tuple[str, Any]]) -> int:
    """Return how large a request may be: what the options say last, else what a server takes by default."""
    limit = codec.DEFAULT_REQUEST_LIMIT - codec.REPLY_SLACK
    for name, value in channel_options:
        if name == "grpc.max_send_message_length":
            limit = value if value >= 0 else sys.maxsize
    return limit


class PublishStream(Stream):
    """One publisher over any number of connections. Any thread may call any method.

    Attributes:
        machine: See ``Stream``.
        surely_small: A payload of so many bytes need not be checked.
        counts: published, nacked, failed.
        acked: How many events were acknowledged.
    """

    machine: PublishProtocol

    def __init__(
        self,
        line: Line,
        window: Window,
        topic_exists: Callable[[str, float], bool],
        policy: Reconnect,
        hooks: Hooks,
        doubts: Doubts,
        resend: bool = True,
        clock: Optional[Clock] = None,
    ) -> None:
        self._clock, self._suspect = clock or Clock(), line.suspect
        self._doubts = doubts
        surely_taken = codec.DEFAULT_REQUEST_LIMIT - codec.REPLY_SLACK
        machine = PublishProtocol(str(ULID.new()), ULID.new().bytes, resend, surely_taken)
        self._most_events, self._most_bytes, self._largest = window
        self.surely_small = window.request - codec.WRAPPING
        self._topic_exists = topic_exists
        super().__init__(StreamDriver(machine, line, self._handle, policy, hooks, self._clock))
        self._mutex = self._driver.mutex
        self._left: List[Tuple[Any, Abandoned]] = []  # given up at the end, and not told yet
        self._resolver = Resolver(self._driver, machine, topic_exists, doubts, self._clock)
        self._want_room = 0  # how many wait for room
        # A publisher that had to wait is let go on when a quarter of the window is free, not at every ack.
        self._low_water = window.events - window.events // 4
        self.counts: Dict[str, int] = {"published": 0, "nacked": 0, "failed": 0}
        self.acked = 0

    # what a user's thread calls

    def check_size(self, payload: Payload) -> None:
        """Raise EventTooLargeError if no request may carry the event: sent, it would end the stream for all."""
        size = codec.request_size(payload)
        if size > self._largest:
            raise EventTooLargeError(size, self._largest)

    def forget_topic(self, topic_id: bytes) -> None:
        """A topic was destroyed: its name means something else from now on."""
        self._driver.change(lambda machine: machine.forget_topic(topic_id))

    @property
    def lets_read(self) -> bool:
        """Tell whether who publishes one event may read the answer."""
        return self._driver.aside

    def knows(self, topic: str) -> bool:
        """Tell whether the stream has, or had last, a connection that knows the topic."""
        return self.machine.knows(topic) and not self.machine.over

    def ensure_topic(self, topic: str, patience: Patience) -> None:
        """Block until the stream knows the topic; connects if need be.

        Raises:
            UnknownTopicError: The project has no such topic.
            PublishTimeoutError: The patience ended first.
        """
        machine = self.machine
        if self.knows(topic):
            return
        self._wait(lambda: machine.opened, patience)
        if machine.knows(topic):
            return
        if not self._topic_exists(topic, patience.remaining()):
            raise UnknownTopicError(topic)
        self._resolver.reopen(topic, min(DRAIN_SECONDS, patience.remaining()))
        self._wait(lambda: machine.knows(topic), patience)

    def check_log(self, topic: str, timeout: float) -> bool:
        """See whether the log of a topic can be searched for events in doubt; False if the stream does not know it.

        Raises:
            EnsignSettingsError: It cannot.
            EnsignError: It is not to be found out now.
        """
        found = find_topic(topic, self.machine.topics)
        if found is not None:
            self._doubts.check(*found, timeout)
        return found is not None

    def put(
        self, topic: str, payloads: List[Payload], owner: Any, patience: Patience, start: int = 0, first_index: int = 0
    ) -> int:
        """Register payloads from ``start`` on while there is room, at least one; blocks while there is none.

        ``payloads[n]`` will come back as ``owner.settle(first_index + n, outcome)``. Returns how many were taken.

        Raises:
            PublishTimeoutError: The patience ended before there was room.
        """
        while True:
            taken: int = self._driver.change(self._register, topic, payloads, owner, start, first_index)
            if taken:
                return taken
            self._check_waited(self._wait_for_room(patience), patience)

    def put_alone(self, topic: str, payload: Payload, owner: Any, patience: Patience) -> bool:
        """Register one payload of a topic that is known, and read until its answer is there if that can be done here.

        Returns whether it was registered; it is not if there is no room. The answer has to be waited for nevertheless.
        """
        id: Optional[bytes] = self._driver.change_alone(self._register_known, topic, payload, owner)
        if id is None:
            return False
        self._driver.read_own(functools.partial(codec.acknowledges, id), patience.remaining)
        return True

    def offer(self, topic: str, payload: Payload, owner: Any) -> bool:
        """Register one payload as ``put`` does if that is possible at once; returns whether it was."""
        driver = self._driver
        id = driver.change_alone(self._register_known, topic, payload, owner)
        if driver.aside:
            driver.call_back()
        return id is not None

    def _register(
        self,
        machine: PublishProtocol,
        topic: str,
        payloads: List[Payload],
        owner: Any,
        start: int,
        first_index: int,
    ) -> int:
        """Register payloads while there is room, and return how many. Needs the mutex."""
        if machine.closing or machine.over or not self._has_room():
            return 0
        self._driver.start()
        taken = payloads[start : start + self._most_events - machine.in_flight]
        room = self._most_bytes - machine.in_flight_bytes
        if sum(map(len, taken)) > room:
            taken = taken[: _how_many(taken, room)]
        first_index += start
        machine.publish_all(topic, taken, [(owner, index) for index in range(first_index, first_index + len(taken))])
        self.counts["published"] += len(taken)
        return len(taken)

    def _register_known(self, machine: PublishProtocol, topic: str, payload: Payload, owner: Any) -> Optional[bytes]:
        """Register one payload of a topic that is known if there is room; returns its local id. Needs the mutex."""
        in_flight = machine.in_flight
        if in_flight >= self._most_events or (machine.in_flight_bytes >= self._most_bytes and in_flight):
            return None
        if machine.closing or machine.over:
            return None
        if topic not in machine.topics and not machine.knows(topic):
            return None
        id = machine.publish(topic, payload, (owner, 0))
        self.counts["published"] += 1
        return id

    def give_up(self, owner: Any) -> List[Tuple[int, Abandoned]]:
        """Abandon every unsettled event of an owner; returns (index, what became of it)."""
        given_up: List[Tuple[int, Abandoned]] = self._driver.change(self._abandon, owner)
        if any(fate is Abandoned.IN_DOUBT for _, fate in given_up):
            # What is still on its way in this process would leave when the line moves again: it must not.
            self._driver.reconnect()
            self._suspect(self._clock.now())
        self._driver.wake()
        return given_up

    def start_over(self) -> None:
        """Make a new connection and send on it what is pending, after an interrupt that may have lost something."""
        self._driver.reconnect()

    def flush(self, patience: Patience) -> int:
        """Block until nothing waits for an answer; returns how many still do when the patience ends."""
        if self._driver.aside:
            self._driver.call_back()
        return self._flush(patience)

    @holding("_mutex")
    def _flush(self, patience: Patience) -> int:
        machine = self.machine
        while machine.unsettled:
            fewer = functools.partial(lambda before: machine.unsettled < before, machine.unsettled)
            if not self._driver.wait_until(fewer, patience.remaining):
                break
            patience.progress()
        return machine.unsettled

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the threads; returns the names of those that did not stop."""
        return [*super().join(deadline), *gather(self._resolver.threads, deadline)]

    def close(self, deadline: Deadline) -> int:
        """Take nothing more in, wait for the answers, end the stream; returns how many events were given up."""
        machine = self.machine
        self._driver.change(PublishProtocol.close)
        self._driver.wake()
        self._driver.wait(lambda: machine.over or not machine.unsettled, deadline.remaining)
        self.forsake()
        left = self._fail_the_rest()
        # The half-close went out with the last ack. The server's farewell is the sign that it read everything.
        farewell = Deadline(min(FAREWELL_SECONDS, deadline.remaining() or 0.0), self._clock)
        self._driver.wait(lambda: machine.state is not State.CLOSING, farewell.remaining)
        self._driver.stop()
        return left

    # what it tells

    def owes(self) -> bool:
        """Tell whether the server should answer something."""
        machine = self.machine
        return machine.state is State.OPEN and machine.in_flight > 0

    def heard(self) -> Heard:
        """Return how many answers came."""
        return Heard(self.acked + self.counts["nacked"], self._driver.connections)

    @property
    def unsettled(self) -> int:
        """Events that somebody waits for."""
        return self.machine.unsettled

    @property
    def resent(self) -> int:
        """How often an event was sent again; the server may have stored it twice."""
        return self.machine.resent

    @property
    def found(self) -> int:
        """How many events were not sent again, since they were found in the log."""
        return self.machine.found

    def timeout_error(self, what: str, patience: Patience) -> PublishTimeoutError:
        """Make the error for a wait that ended: it tells an unreachable server from a silent one."""
        cause = self.last_error
        if not self._driver.connected and isinstance(cause, EnsignConnectionError):
            text = f"{what} within {patience.seconds:.3g} s: {cause}"
            error: PublishTimeoutError = PublishUnreachableError(text, cause=cause)
        else:
            reason = f"; last error: {cause}" if cause is not None else ""
            error = PublishTimeoutError(f"{what} within {patience.seconds:.3g} s{reason}")
        error.__cause__ = cause
        return error

    # inside

    def _has_room(self) -> bool:
        machine = self.machine
        in_flight = machine.in_flight
        return in_flight < self._most_events and (machine.in_flight_bytes < self._most_bytes or not in_flight)

    def _has_much_room(self) -> bool:
        return self.machine.in_flight <= self._low_water and self._has_room()

    @holding("_mutex")
    def _wait_for_room(self, patience: Patience) -> bool:
        """Block until there is much room, or none will be; False when the patience ends."""
        machine = self.machine
        self._driver.start()
        self._want_room += 1  # or whoever makes room would not look whether it is enough
        try:
            return self._driver.sleep_until(
                lambda: machine.over or machine.closing or self._has_much_room(), patience.remaining
            )
        finally:
            self._want_room -= 1

    def _wait(self, ready: Callable[[], bool], patience: Patience) -> None:
        """Block until ``ready()``. Raises what ended the stream, or PublishTimeoutError."""
        machine = self.machine
        in_time = self._driver.started_wait(lambda: machine.over or machine.closing or ready(), patience.remaining)
        self._check_waited(in_time, patience)

    def _check_waited(self, in_time: bool, patience: Patience) -> None:
        machine = self.machine
        if machine.closing:
            raise EnsignClientClosingError("the client is closed: make a new one to publish")
        if machine.over and machine.failure is not None:
            raise machine.failure
        if not in_time:
            what = "no room in the window" if machine.opened else "no connection to publish on"
            raise self.timeout_error(what, patience)
        patience.progress()

    def _handle(self, events: List[Any]) -> None:
        """Take the machine's events, on whichever thread caused them."""
        for event in events:
            kind = type(event)
            if kind is Settled:
                (owner, index), outcome = event
                if type(outcome) is Ack:
                    self.acked += 1
                else:
                    if type(outcome) is Failed:
                        outcome = failed_error(outcome)
                    self.counts["nacked" if type(outcome) is Nack else "failed"] += 1
                try:
                    owner.settle(index, outcome)
                except Exception:  # an owner that cannot take it harms no other
                    logger.exception("the outcome of an event could not be told")
            elif kind is TopicsStale:
                self._resolver.start(self._resolver.ask_for_topics, event.names)
            elif kind is InDoubt:
                self._resolver.start(self._resolver.ask_for_stored, event)
            elif kind is Drained:
                self._driver.reconnect()
        if self._want_room and self._has_much_room():
            self._driver.wake()

    def _fail_the_rest(self) -> int:
        """Give up what is left at the end of ``close``, and tell those who wait."""
        self._driver.change(self._abandon_all)
        count = len(self._left)
        while self._left:
            (owner, index), fate = self._left[0]
            error = given_up_error(fate, "the client was closed before the acknowledgement came")
            _settle(owner, index, error)
            self._left.pop(0)
        self.counts["failed"] += count
        return count

    def _abandon(self, machine: PublishProtocol, owner: Any) -> List[Tuple[int, Abandoned]]:
        mine = [(id, token[1]) for id, token in machine.waiting() if token[0] is owner]
        self.counts["failed"] += len(mine)
        return [(index, machine.abandon(id)) for id, index in mine]

    def _abandon_all(self, machine: PublishProtocol) -> None:
        for id, token in machine.waiting():
            self._left.append((token, Abandoned.NEVER_SENT))  # first on the list: an interrupt must not lose it
            self._left[-1] = (token, machine.abandon(id))


def _how_many(payloads: Sequence[Payload], room: int) -> int:
    """Return how many payloads may go before there is no room, at least one; the last may be larger than the room."""
    for number, payload in enumerate(payloads, 1):
        room -= len(payload)
        if room <= 0:
            return number
    return len(payloads)


def _settle(owner: Any, index: int, outcome: Any) -> None:
    """Tell an owner; one that cannot take it harms no other."""
    try:
        owner.settle(index, outcome)
    except Exception:
        logger.exception("the outcome of an event could not be told")


def failed_error(failed: Failed) -> EnsignError:
    """Make the error of one event from what failed many."""
    cause = failed.error
    error = copy.copy(cause) if isinstance(cause, EnsignError) else EnsignError(repr(cause))
    error.__cause__, error.sent = cause, failed.sent
    return error


def given_up_error(fate: Abandoned, why: str) -> PublishTimeoutError:
    """Make the error of one event that was given up."""
    sent = fate is not Abandoned.NEVER_SENT
    error = PublishTimeoutError(f"{why}; the event {'may have been stored' if sent else 'was never sent'}")
    error.sent = sent
    return error

