"""The subscriber's half of a subscribe stream (docs/protocol.rst, "Subscribe stream").

The machine knows the connection only: which events were delivered, and which were missed, is known elsewhere.

Its doors:
    from the application   ack, nack, close
    from the wire          connected, receive, lost, fail
    to the wire            frames_to_send
    to the application     events: Opened, Delivered, Lost, Ended
"""

from typing import Any, Mapping, NamedTuple, Tuple

from .frames import Ack, Delivery, Nack, Ready, Subscription
from .machine import Input, Lost, Machine, Opened, State, table


class Delivered(NamedTuple):
    """An event arrived."""

    delivery: Delivery


_S, _I = State, Input


def _stay(state: State, *inputs: Input) -> Any:
    return dict.fromkeys(inputs, (state,))


TRANSITIONS = table(
    {
        _S.IDLE: {
            _I.CONNECTED: (_S.OPENING,),
            _I.CLOSE: (_S.CLOSED,),
            _I.LOST: (_S.WAITING,),
            _I.FAIL: (_S.FAILED,),
            **_stay(_S.IDLE, _I.ACK, _I.NACK),
        },
        _S.OPENING: {
            _I.READY: (_S.OPEN,),
            _I.CLOSE: (_S.CLOSED,),
            _I.LOST: (_S.WAITING,),
            _I.FAIL: (_S.FAILED,),
            **_stay(_S.OPENING, _I.ACK, _I.NACK, _I.UNKNOWN),
        },
        _S.OPEN: {
            _I.CLOSE: (_S.CLOSED,),
            _I.LOST: (_S.WAITING,),
            _I.FAIL: (_S.FAILED,),
            **_stay(_S.OPEN, _I.ACK, _I.NACK, _I.EVENT, _I.UNKNOWN),
        },
        _S.WAITING: {
            _I.CONNECTED: (_S.OPENING,),
            _I.CLOSE: (_S.CLOSED,),
            _I.LOST: (_S.WAITING,),
            _I.FAIL: (_S.FAILED,),
            **_stay(_S.WAITING, _I.ACK, _I.NACK),
        },
        # The server ignores a half-close, so closing cancels the call: nothing that still arrives counts.
        _S.CLOSED: _stay(
            _S.CLOSED, _I.ACK, _I.NACK, _I.CLOSE, _I.READY, _I.EVENT, _I.UNKNOWN, _I.LOST, _I.FAIL, _I.CONNECTED
        ),
        _S.FAILED: _stay(_S.FAILED, _I.ACK, _I.NACK, _I.CLOSE),
    }
)

_OPEN = State.OPEN  # looked up once, since Python takes long over a member of an enumeration

_INPUT_OF = {Ready: Input.READY, Delivery: Input.EVENT}


class SubscribeProtocol(Machine):
    """The machine of one subscription over any number of connections. Not thread-safe.

    Attributes:
        topics: The topics of the last connection, name to id.
        dropped_answers: Acks and nacks that no connection could carry; the server holds nothing against us.
    """

    role = "subscriber"
    transitions = TRANSITIONS

    def __init__(self, client_id: str, topics: Tuple[str, ...], group: str = "", query: str = "") -> None:
        super().__init__()
        self._subscription = Subscription(client_id, tuple(topics), group, query)
        self.topics: Mapping[str, bytes] = {}
        self.dropped_answers = 0

    # from the application

    def ack(self, id: bytes) -> None:
        """Tell the server that an event was processed."""
        if self.state is _OPEN:  # the way of every event
            self.outgoing.append(Ack(id))
        else:
            self._say(Input.ACK, Ack(id))

    def nack(self, id: bytes, code: int) -> None:
        """Tell the server that an event was not processed, and why."""
        self._say(Input.NACK, Nack(id, code))

    def close(self) -> None:
        """Be done; the caller cancels the call."""
        self.check(Input.CLOSE)
        if not self.over:
            self._end(Input.CLOSE, State.CLOSED)

    # from the wire

    def connected(self) -> None:
        """A new call is open: say what we want."""
        self.check(Input.CONNECTED)
        if self.state is not State.CLOSED:
            self._move(Input.CONNECTED, State.OPENING)
            self.outgoing.append(self._subscription)

    def receive(self, frame: Any) -> None:
        """Take a message of the server."""
        given = _INPUT_OF.get(type(frame), Input.UNKNOWN)
        self.check(given)
        if self.state is State.CLOSED:
            return
        if given is Input.EVENT:
            self.news.append(Delivered(frame))
        elif given is Input.READY:
            self.topics = dict(frame.topics)
            self._move(given, State.OPEN)
            self.opened = True
            self.news.append(Opened(self.topics))

    def lost(self, error: Exception) -> None:
        """The connection is gone, or could not be made; another will be tried."""
        self.check(Input.LOST)
        self.outgoing = []
        if self.state is not State.CLOSED:
            self._move(Input.LOST, State.WAITING)
            self.news.append(Lost())

    def fail(self, error: Exception) -> None:
        """The connection is gone and no other will be tried."""
        self.check(Input.FAIL)
        self.outgoing = []
        if self.state is not State.CLOSED:
            self._end(Input.FAIL, State.FAILED, error)

    # inside

    def _say(self, given: Input, frame: Any) -> None:
        self.check(given)
        if self.state is State.OPEN:
            self.outgoing.append(frame)
        else:
            self.dropped_answers += 1
