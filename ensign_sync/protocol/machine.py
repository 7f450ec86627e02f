"""What the two protocol machines share: states, inputs, and the one error for an illegal pair."""

import enum
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Tuple

from ..exceptions import EnsignError, ProtocolError


class State(enum.Enum):
    """Where a stream is.

    WAITING means between two connections, FAILED that there will be no other, CHECKING that the log is searched for
    what an earlier connection may have stored.
    """

    IDLE = "IDLE"
    OPENING = "OPENING"
    OPEN = "OPEN"
    CHECKING = "CHECKING"
    DRAINING = "DRAINING"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    WAITING = "WAITING"
    FAILED = "FAILED"


class Input(enum.Enum):
    """What can happen to a stream: from the application, then from the wire."""

    PUBLISH = "publish"
    ABANDON = "abandon"
    REFUSE = "refuse"
    STORED = "stored"
    FOUND = "found"
    DRAIN = "drain"
    CLOSE = "close"
    CONNECTED = "connected"
    READY = "ready"
    ACK = "ack"
    NACK = "nack"
    EVENT = "event"
    CLOSE_STREAM = "close_stream"
    UNKNOWN = "an unknown message"
    LOST = "lost"
    FAIL = "fail"


Table = Mapping[Tuple[State, Input], FrozenSet[State]]


class Opened(NamedTuple):
    """To the application: the server answered; these are the topics of the stream, name to id."""

    topics: Mapping[str, bytes]


class Lost(NamedTuple):
    """To the application: the connection is gone, and another will be tried."""


class Ended(NamedTuple):
    """To the application: the stream is over and will not come back; without error if it was closed."""

    error: Any = None


def table(rows: Dict[State, Dict[Input, Tuple[State, ...]]]) -> Table:
    """Flatten a table written by state into one looked up by (state, input)."""
    return {(state, given): frozenset(after) for state, row in rows.items() for given, after in row.items()}


class Machine:
    """A state that only moves as its table allows, and the two doors that are emptied by reading.

    Attributes:
        outgoing: What ``frames_to_send`` will return.
        news: What ``events`` will return.
    """

    role = ""
    transitions: Table = {}

    def __init__(self) -> None:
        self.state = State.IDLE
        self.over = False  # True once the stream will never be connected again
        self.opened = False  # True once a server has answered
        self.failure: Optional[Exception] = None  # why the stream ended, if it failed
        self.outgoing: List[Any] = []
        self.news: List[Any] = []

    def check(self, given: Input) -> None:
        """Raise ProtocolError if the input is not legal in the present state."""
        if (self.state, given) not in self.transitions:
            raise ProtocolError(self.role, self.state.name, given.value)

    def _move(self, given: Input, after: State) -> None:
        if after not in self.transitions[self.state, given]:
            raise ProtocolError(self.role, self.state.name, f"{given.value} towards {after.name}")
        self.state = after

    def frames_to_send(self) -> List[Any]:
        """Return what must go to the wire, in order, and forget it."""
        frames, self.outgoing = self.outgoing, []
        return frames

    def events(self) -> List[Any]:
        """Return what the application must hear, in order, and forget it."""
        events, self.news = self.news, []
        return events

    def _end(self, given: Input, state: State, error: Optional[Exception] = None) -> None:
        self._move(given, state)
        self.over = True
        self.failure = error
        self.news.append(Ended(error))


def stream_ended() -> EnsignError:
    """Make the error for a stream that the server ended well although nobody asked it to: a loss like any other."""
    error = EnsignError("the server ended the stream")
    error.retriable = True
    return error
