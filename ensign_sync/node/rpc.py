"""The seam between the service of a node and the gRPC server that carries it: calls of bytes.

A server asks for a ``Handler`` for each call and tells it what happens, on one thread per server and one thing at a
time for each call. So a handler is quick and never waits; what takes time it gives to a pool. There are two servers:
``direct_server.py``, the fast one, and ``public_server.py``, which needs nothing but grpcio's public names.
"""

import abc
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from ..handover.clock import Deadline

#: What a request may have, as on the real server (docs/protocol.rst, "Connection and limits").
MOST_REQUEST_BYTES = 4 * 2**20

#: With so many messages and bytes, or less, waiting to be written a call is said to be low.
LOW_WATER = 16
LOW_BYTES = 1 << 18

Metadata = Sequence[Tuple[str, str]]


class Refused(Exception):
    """The call ends with a status that is not OK."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


class Call(abc.ABC):
    """One call as its handler sees it. Any thread may call any method; none blocks.

    Attributes:
        method: The path of the call.
        metadata: What the client sent before its first message.
        peer: The client's address, as gRPC writes it.
    """

    method: str
    metadata: List[Tuple[str, str]]
    peer: str

    @property
    @abc.abstractmethod
    def waiting(self) -> int:
        """How many messages wait to be written."""

    @property
    @abc.abstractmethod
    def waiting_bytes(self) -> int:
        """How many bytes they have."""

    @property
    def is_low(self) -> bool:
        """Whether more should be sent now, where there is more; ``Handler.drained`` comes only while it is."""
        return self.waiting == 0 or (self.waiting <= LOW_WATER and self.waiting_bytes <= LOW_BYTES)

    @abc.abstractmethod
    def send(self, *messages: bytes) -> None:
        """Send messages behind those that were sent before; without effect once the call has ended."""

    @abc.abstractmethod
    def receive(self) -> None:
        """Ask for the next message, after ``Handler.received`` wanted none."""

    @abc.abstractmethod
    def finish(self, code: str = "OK", details: str = "") -> None:
        """End the call once everything before was sent; only the first time counts."""


class Handler:
    """What serves one call. A method that raises ``Refused`` ends the call with that status."""

    def received(self, data: bytes) -> bool:
        """Take a message; return False to get the next one only after ``Call.receive``."""
        return True

    def half_closed(self) -> None:
        """Nothing more will be received."""

    def drained(self) -> None:
        """Few messages or none wait to be written."""

    def ended(self) -> None:
        """The call is over, by whoever's will; comes once, and last."""


#: Makes the handler of a call; None if there is no such method. May raise Refused.
Open = Callable[[Call], Optional[Handler]]


class Settings(NamedTuple):
    """How a server listens.

    Attributes:
        address: ``host:port``; port 0 takes a free one.
        tls: The PEM texts of key and certificate chain, None for plaintext.
        most_calls: Calls served at once; others get RESOURCE_EXHAUSTED.
        announce: Initial metadata of every call.
        gzip: Whether compressed requests are understood; the real server refuses them.
    """

    address: str
    tls: Optional[Tuple[bytes, bytes]] = None
    most_calls: int = 1000
    announce: Metadata = ()
    gzip: bool = False

    @property
    def too_many(self) -> str:
        """What a call beyond the limit is told."""
        return f"the node serves {self.most_calls} calls at once; close some streams, or start another node"


class Server(abc.ABC):
    """A gRPC server that listens and serves from the moment it is made.

    Attributes:
        port: Where it listens.
    """

    port: int

    @property
    @abc.abstractmethod
    def calls(self) -> int:
        """How many calls are open."""

    @abc.abstractmethod
    def stop(self, grace: float, deadline: Deadline) -> None:
        """Take no new calls, give open ones ``grace`` seconds, then end them; waits until nothing is left."""


def unknown_method(path: str) -> Refused:
    """Return the answer to a method that is not there, in the words of the real server."""
    service, _, name = path.lstrip("/").rpartition("/")
    known = service in ("ensign.v1beta1.Ensign", "grpc.health.v1.Health")
    text = f"unknown method {name} for service {service}" if known else f"unknown service {service}"
    return Refused("UNIMPLEMENTED", text)


def too_large(size: int) -> Refused:
    """Return the answer to a request beyond the limit, in the words of the real server."""
    return Refused("RESOURCE_EXHAUSTED", f"grpc: received message larger than max ({size} vs. {MOST_REQUEST_BYTES})")


def options(settings: Settings) -> List[Tuple[str, Any]]:
    """Return the options of the channel that both servers need."""
    chosen: List[Tuple[str, Any]] = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_send_message_length", -1),
        # Twice the limit, so that a request somewhat beyond it is refused by us, in the right words.
        ("grpc.max_receive_message_length", 2 * MOST_REQUEST_BYTES),
    ]
    if not settings.gzip:
        chosen.append(("grpc.compression_enabled_algorithms_bitset", 1))  # identity only
    return chosen
