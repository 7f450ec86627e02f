"""One value per message of the two streams (docs/protocol.rst, "Publish stream" and "Subscribe stream").

The acks and nacks of a publish stream are the public values ``Ack`` and ``Nack`` themselves: they go to the user as
they came.
"""

from typing import Mapping, NamedTuple, Tuple, Union

from ..ack import Ack
from ..nack import Nack
from ..times import Kept

__all__ = [
    "Ack",
    "CloseStream",
    "Delivery",
    "HalfClose",
    "Keyed",
    "Made",
    "Nack",
    "OpenStream",
    "Payload",
    "Pieces",
    "Publication",
    "Ready",
    "Subscription",
    "Unknown",
]


class Pieces:
    """Bytes that were not put together yet: a large payload is copied once, when its request is sent."""

    __slots__ = ("pieces", "_size")

    def __init__(self, pieces: Tuple[bytes, ...]) -> None:
        self.pieces = pieces
        self._size = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)


class Made(NamedTuple):
    """When an event was made, before it was ever sent.

    Attributes:
        now: By a clock that never steps, in seconds.
        time: By the wall clock, in seconds since 1970.
        acked: When the server had stored what it had acknowledged last.
    """

    now: float = 0.0
    time: float = 0.0
    acked: Kept = None


class Keyed(Pieces):
    """An encoded event that can be told from all others when it is seen in the log, by a key in its metadata."""

    __slots__ = ("key", "made")

    def __init__(self, pieces: Tuple[bytes, ...], key: bytes, made: Made) -> None:
        super().__init__(pieces)
        self.key = key
        self.made = made


#: An encoded event.
Payload = Union[bytes, Pieces]


class OpenStream(NamedTuple):
    """Publisher to server, first: who publishes, and perhaps to which topics only."""

    client_id: str
    topics: Tuple[str, ...] = ()


class Publication(NamedTuple):
    """Publisher to server: an encoded event."""

    topic_id: bytes
    local_id: bytes
    payload: Payload


class Subscription(NamedTuple):
    """Subscriber to server, first: which topics (none means all), for which group, with which query."""

    client_id: str
    topics: Tuple[str, ...] = ()
    group: str = ""
    query: str = ""


class Ready(NamedTuple):
    """Server to both, first: the topics of this stream, name to id."""

    client_id: str
    server_id: str
    topics: Mapping[str, bytes]


class Delivery(NamedTuple):
    """Server to subscriber, and a row of a query: a stored event, its payload still encoded."""

    id: bytes
    topic_id: bytes
    payload: bytes
    committed: Kept = None
    is_duplicate: bool = False
    origin: str = ""  # the client that published it, where that was asked for


class CloseStream(NamedTuple):
    """Server to publisher, last: its count of what happened on the stream."""

    events: int = 0
    topics: int = 0
    acks: int = 0
    nacks: int = 0


class HalfClose(NamedTuple):
    """No message but an act: this side has nothing more to say."""


class Unknown(NamedTuple):
    """A message of a kind that this version does not know, or an empty one."""

    kind: str = ""
