"""The publisher's half of a publish stream (docs/protocol.rst, "Publish stream").

The machine owns what is pending: each accepted event until it is acknowledged, refused or given up, in the order of
its acceptance. An event is registered before its frame is emitted, so no ack can arrive for an unknown one. On every
new connection the unacknowledged events are emitted again, in order, under the same local ids; before that somebody
looks in the log for those that can be recognised there, and says which were stored (CHECKING).

Its doors:
    from the application   publish, abandon, refuse, drain, close
    from the log           stored
    from the wire          connected, receive, lost, fail
    to the wire            frames_to_send
    to the application     events: Opened, Settled, TopicsStale, InDoubt, Drained, Ended
"""

import enum
import functools
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ..exceptions import EnsignError, EventTooLargeError, ProtocolError
from ..ids import ULID, is_ulid
from ..nack import TOPIC_UNKNOWN
from ..times import Kept
from .frames import Ack, CloseStream, HalfClose, Keyed, Nack, OpenStream, Payload, Publication, Ready
from .machine import Input, Machine, Opened, State
from .publish_table import TRANSITIONS


class Abandoned(enum.Enum):
    """What became of an event that was given up."""

    NEVER_SENT = "never sent"
    IN_DOUBT = "may have been stored"
    SETTLED = "already settled"


class Settled(NamedTuple):
    """An event reached its end: ``outcome`` is an Ack, a Nack or an exception."""

    token: Any
    outcome: Any


#: Makes one of a pair, in half the time that the call of the class takes.
_make: Any = functools.partial
_settled: Callable[[Tuple[Any, Any]], Settled] = _make(tuple.__new__, Settled)
_publication: Callable[[Tuple[bytes, bytes, Payload]], Publication] = _make(tuple.__new__, Publication)


class TopicsStale(NamedTuple):
    """Events wait for topics that this connection does not know; somebody has to ask the server."""

    names: FrozenSet[str]


class Doubt(NamedTuple):
    """An event that an earlier connection may have stored."""

    local_id: bytes
    topic: str
    payload: Keyed


class InDoubt(NamedTuple):
    """These events may have been stored; nothing is emitted until ``stored`` says which were.

    ``connection`` tells this question from those of other connections.
    """

    connection: int
    doubts: Sequence[Doubt]


class Failed(NamedTuple):
    """The outcome of an event that will not be sent any more; one that was ``sent`` may have been stored."""

    error: Exception
    sent: bool


class Drained(NamedTuple):
    """After ``drain``: nothing on this connection waits for an answer any more."""


class _Pending:
    """An accepted event."""

    __slots__ = ("local_id", "topic", "payload", "token", "given_up", "connection", "retried")

    def __init__(self, local_id: bytes, topic: str, payload: Payload, token: Any, connection: int = 0) -> None:
        self.local_id = local_id
        self.topic = topic
        self.payload = payload
        self.token = token
        self.given_up = False
        self.connection = connection  # the number of the connection it was last emitted on; 0: the server never had it
        self.retried = False


_OPEN = State.OPEN  # looked up once, since Python takes longer over a member of an enumeration than over an event

_INPUT_OF = {Ready: Input.READY, Ack: Input.ACK, Nack: Input.NACK, CloseStream: Input.CLOSE_STREAM}


class PublishProtocol(Machine):
    """The machine of one publish stream over any number of connections. Not thread-safe.

    Attributes:
        topics: The topics of the last connection, name to id.
        in_flight_bytes: The payloads of the events in flight together.
        resent: How often an event was emitted again.
        found: How many events were not, since they were in the log.
        closing: True once ``close`` was called.
        client_id: What the server keeps with the events as their publisher's.
        used: The ids of the topics that were published to.
        last_ack: The last that came.
    """

    role = "publisher"
    transitions = TRANSITIONS

    def __init__(
        self, client_id: str, first_local_id: bytes, resend: bool = True, surely_taken: Optional[int] = None
    ) -> None:
        """Make an idle machine; local ids count up from the 16 bytes given.

        A server takes every payload of ``surely_taken`` bytes; one that is larger ends the stream if it does not.
        """
        super().__init__()
        self.client_id = client_id
        self._next_id = int.from_bytes(first_local_id, "big")
        self._resend = resend
        self._surely_taken = surely_taken
        self._pending: Dict[bytes, _Pending] = {}
        self._given_up = 0
        self._connection = 1  # counts on at each loss, so an event of an earlier connection never has this number
        self._owed = 0  # answers that the present connection owes
        self._topic_ids: Dict[str, bytes] = {}
        self._stale: Set[str] = set()
        self.topics: Mapping[str, bytes] = {}
        self.in_flight_bytes = 0
        self.resent = self.found = 0
        self.closing = False
        self.used: Set[bytes] = set()
        self.last_ack: Optional[Ack] = None

    # from the application

    def publish(self, topic: str, payload: Payload, token: Any) -> bytes:
        """Accept an event; it is emitted at once, or on the next connection. Returns its local id."""
        state = self.state
        if state is not _OPEN or self.closing:
            self.check(Input.PUBLISH)
            if self.closing:
                raise ProtocolError(self.role, f"{state.name} after close", Input.PUBLISH.value)
        local_id = self._next_id.to_bytes(16, "big")
        self._next_id += 1
        self._pending[local_id] = pending = _Pending(local_id, topic, payload, token)
        self.in_flight_bytes += len(payload)
        if state is _OPEN:
            topic_id = self._topic_ids.get(topic)
            if topic_id is None:
                self._emit((pending,))
            else:  # what _emit does for an event that is new
                pending.connection = self._connection
                self._owed += 1
                self.outgoing.append(_publication((topic_id, local_id, payload)))
        return local_id

    def publish_all(self, topic: str, payloads: Sequence[Payload], tokens: Iterable[Any]) -> None:
        """Accept events of one topic as ``publish`` does, with a token for each."""
        topic_id = self._topic_id(topic)
        if self.state is not _OPEN or self.closing or topic_id is None:
            for payload, token in zip(payloads, tokens):
                self.publish(topic, payload, token)
            return
        number, kept, frames, connection = self._next_id, self._pending, self.outgoing, self._connection
        self._next_id += len(payloads)  # first, so that an interrupt does not have an id given twice
        self._owed += len(payloads)
        self.in_flight_bytes += sum(map(len, payloads))
        for payload, token in zip(payloads, tokens):
            local_id = number.to_bytes(16, "big")
            number += 1
            kept[local_id] = _Pending(local_id, topic, payload, token, connection)
            frames.append(_publication((topic_id, local_id, payload)))

    def abandon(self, local_id: bytes) -> Abandoned:
        """Give an event up: it will not be emitted from now on, and its token is forgotten."""
        self.check(Input.ABANDON)
        pending = self._pending.get(local_id)
        if pending is None or pending.given_up:
            return Abandoned.SETTLED
        sent = pending.connection != 0
        if pending.connection == self._connection:
            pending.given_up = True  # kept to match a late ack, and counted: the server still has it
            self._given_up += 1
        else:
            self._forget(pending)
        self._advance(Input.ABANDON)
        return Abandoned.IN_DOUBT if sent else Abandoned.NEVER_SENT

    def refuse(self, topics: Iterable[str], error: Exception) -> None:
        """Settle with an error every event that waits, not emitted on this connection, for one of these topics."""
        self.check(Input.REFUSE)
        names = set(topics)
        for pending in list(self._pending.values()):
            if pending.topic in names and pending.connection != self._connection:
                self._settle_failed(pending, error)
        self._stale -= names
        self._advance(Input.REFUSE)

    def stored(self, ids: Mapping[bytes, Kept]) -> None:
        """Answer InDoubt: settle the events that are in the log, each with the time of it, and emit all others."""
        self.check(Input.STORED)
        self._settle_stored(ids)
        self._open(Input.STORED)

    def found_stored(self, ids: Mapping[bytes, Kept]) -> None:
        """Settle events that are in the log, each with the time of it, before all is known that InDoubt asks for.

        They stand whatever becomes of the connection that asked.
        """
        self.check(Input.FOUND)
        self._settle_stored(ids)
        self._advance(Input.FOUND)

    def is_asking(self, connection: int) -> bool:
        """Tell whether the InDoubt of a connection waits for its answer."""
        return self.state is State.CHECKING and connection == self._connection

    def drain(self) -> None:
        """Emit nothing more on this connection, and report Drained once it owes no answer."""
        self.check(Input.DRAIN)
        self._move(Input.DRAIN, State.DRAINING)
        if not self._owed:
            self.news.append(Drained())

    def close(self) -> None:
        """Take nothing more in; half-close once nobody waits for an answer."""
        self.check(Input.CLOSE)
        self.closing = True
        self._advance(Input.CLOSE)

    # from the wire

    def connected(self) -> None:
        """A new call is open: say who we are."""
        self.check(Input.CONNECTED)
        self._move(Input.CONNECTED, State.OPENING)
        self.outgoing.append(OpenStream(self.client_id))

    def receive(self, frame: Any) -> None:
        """Take a message of the server."""
        if type(frame) is Ack and self.state is _OPEN and not self.closing:
            # The way of every event: what _answer does for an ack, in as few steps as there can be.
            self.last_ack = frame
            pending = self._pending.pop(frame.id, None)
            if pending is not None:
                self._owed -= 1
                self.in_flight_bytes -= len(pending.payload)
                if pending.given_up:
                    self._given_up -= 1
                else:
                    self.news.append(_settled((pending.token, frame)))
            return
        given = _INPUT_OF.get(type(frame), Input.UNKNOWN)
        self.check(given)
        if given is Input.ACK or given is Input.NACK:
            pending = self._pending.get(frame.id)
            if pending is not None and self.state is not State.CHECKING:
                self._answer(given, pending, frame)
        elif given is Input.READY:
            self._receive_ready(frame)

    def lost(self, error: Exception) -> None:
        """The connection is gone, or could not be made; another will be tried."""
        self.check(Input.LOST)
        self._blame(error)
        self._let_go(error)
        if self.state is State.CLOSING or (self.closing and not self.unsettled):
            self._end(Input.LOST, State.CLOSED)
        else:
            self._move(Input.LOST, State.WAITING)

    def fail(self, error: Exception) -> None:
        """The connection is gone and no other will be tried: everything pending fails."""
        self.check(Input.FAIL)
        self._let_go(error)
        for pending in list(self._pending.values()):
            self._settle_failed(pending, error)
        self._end(Input.FAIL, State.CLOSED if self.state is State.CLOSING else State.FAILED, error)

    # what the application may ask

    @property
    def in_flight(self) -> int:
        """Events that wait for an answer or for a connection, those given up included while an answer may come."""
        return len(self._pending)

    @property
    def unsettled(self) -> int:
        """Events that somebody still waits for."""
        return len(self._pending) - self._given_up

    def waiting(self) -> List[Tuple[bytes, Any]]:
        """Return (local id, token) of each event that somebody still waits for, in order."""
        return [(p.local_id, p.token) for p in self._pending.values() if not p.given_up]

    def knows(self, topic: str) -> bool:
        """Tell whether the present or last connection had the topic, by name or by id."""
        return self._topic_id(topic) is not None

    # inside

    def _receive_ready(self, frame: Ready) -> None:
        self.topics = dict(frame.topics)
        self._topic_ids = {}
        self._stale = set()
        self.opened = True
        self.news.append(Opened(self.topics))
        if self.state is not State.OPENING:
            return
        doubts = [
            Doubt(pending.local_id, pending.topic, pending.payload)
            for pending in self._pending.values()
            if pending.connection and isinstance(pending.payload, Keyed)
        ]
        if doubts:
            self._move(Input.READY, State.CHECKING)
            self.news.append(InDoubt(self._connection, doubts))
        else:
            self._open(Input.READY)

    def _open(self, given: Input) -> None:
        self._move(given, State.OPEN)
        self._emit(list(self._pending.values()))
        self._advance(given)

    def _answer(self, given: Input, pending: _Pending, frame: Any) -> None:
        self._owed -= 1
        again = (
            given is Input.NACK
            and frame.code == TOPIC_UNKNOWN
            and self._resend
            and not (pending.retried or pending.given_up or self.closing)
        )
        if again:
            # The topic may exist by now: the set of a stream is fixed when it opens. It is asked for once.
            pending.retried = True
            pending.connection = 0
            self._unlearn(pending.topic)
            self._report_stale({pending.topic})
        else:
            self._settle(pending, frame)
        if self.state is State.DRAINING and not self._owed:
            self.news.append(Drained())
        if self.closing:
            self._advance(given)

    def _topic_id(self, topic: str) -> Optional[bytes]:
        known = self._topic_ids.get(topic)
        if known is None:
            known = self.topics.get(topic)
            if known is None and is_ulid(topic) and ULID(topic).bytes in self.topics.values():
                known = ULID(topic).bytes
            if known is not None:
                self._topic_ids[topic] = known
                self.used.add(known)
        return known

    def forget_topic(self, topic_id: bytes) -> None:
        """A topic was destroyed: what is published under its name from now on is for another, or for none."""
        self._topic_ids = {name: id for name, id in self._topic_ids.items() if id != topic_id}
        self.topics = {name: id for name, id in self.topics.items() if id != topic_id}

    def _unlearn(self, topic: str) -> None:
        topic_id = self._topic_ids.pop(topic, None)
        self.topics = {name: id for name, id in self.topics.items() if name != topic and id != topic_id}

    def _emit(self, pendings: Iterable[_Pending]) -> None:
        missing = set()
        for pending in pendings:
            topic_id = self._topic_id(pending.topic)
            if topic_id is None:
                missing.add(pending.topic)
                continue
            if pending.connection:
                self.resent += 1
            pending.connection = self._connection
            self._owed += 1
            self.outgoing.append(Publication(topic_id, pending.local_id, pending.payload))
        if missing:
            self._report_stale(missing)

    def _report_stale(self, names: Set[str]) -> None:
        fresh = names - self._stale
        if fresh:
            self._stale |= fresh
            self.news.append(TopicsStale(frozenset(fresh)))

    def _settle_stored(self, ids: Mapping[bytes, Kept]) -> None:
        for local_id, committed in ids.items():
            pending = self._pending.get(local_id)
            if pending is not None:
                self.found += 1
                self._settle(pending, Ack(local_id, committed))

    def _settle(self, pending: _Pending, outcome: Any) -> None:
        given_up = pending.given_up
        self._forget(pending)
        if not given_up:
            self.news.append(Settled(pending.token, outcome))

    def _settle_failed(self, pending: _Pending, error: Exception) -> None:
        self._settle(pending, Failed(error, pending.connection != 0))

    def _forget(self, pending: _Pending) -> None:
        del self._pending[pending.local_id]
        self.in_flight_bytes -= len(pending.payload)
        self._given_up -= pending.given_up

    def _blame(self, error: Exception) -> None:
        """Fail the event that was too large for the server and ended the stream: sent again, it would end each.

        A server reads in order, so it is the first one that may have been too large.
        """
        if self._surely_taken is None or not isinstance(error, EnsignError) or error.code != "RESOURCE_EXHAUSTED":
            return
        for pending in self._pending.values():
            size = len(pending.payload)
            if size > self._surely_taken and pending.connection == self._connection:
                failure = EventTooLargeError(size, self._surely_taken)
                failure.__cause__ = error
                self._settle(pending, failure)
                return

    def _let_go(self, error: Exception) -> None:
        """End a connection: what was given up is dropped, and without resend what was sent fails."""
        self.outgoing = []
        self._connection += 1
        self._owed = 0
        for pending in list(self._pending.values()):
            if pending.given_up:
                self._forget(pending)
            elif not self._resend and pending.connection:
                self._settle_failed(pending, error)
        # Counted afresh: an interrupt between two statements of publish() may have left these one event off.
        self._given_up = 0
        self.in_flight_bytes = sum(len(pending.payload) for pending in self._pending.values())

    def _advance(self, given: Input) -> None:
        """When closing and nobody waits any more, half-close (any earlier, the server would drop the acks) or end."""
        if not self.closing or self.unsettled:
            return
        if self.state in (State.OPEN, State.CHECKING, State.DRAINING):
            self._move(given if given not in (Input.READY, Input.STORED) else Input.CLOSE, State.CLOSING)
            self.outgoing.append(HalfClose())
        elif self.state in (State.IDLE, State.WAITING):
            self._end(given, State.CLOSED)
