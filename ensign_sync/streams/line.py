"""What a stream is given: how it reaches its server, and whom it tells when that is lost."""

from typing import Any, Callable, List, NamedTuple, Optional

from ..handover.locking import Signal
from ..handover.watchdog import Watchdog
from ..wire.codec import Message


class Line(NamedTuple):
    """How a kind of stream reaches its server.

    Attributes:
        open: Opens a call; raises EnsignError. Returns the call and what to do if its token is refused.
        encode: A frame of the machine to bytes.
        decode: Bytes to a frame for the machine.
        pause: Waits so many seconds before another try, at most until the event is set, and lets the connection come
            back meanwhile.
        watchdog: Ends what takes too long.
        suspect: Nothing has been heard since then, by the clock, that was to be: has the connection replaced, if the
            server does not answer on it. Does not block.
    """

    open: Callable[[], Any]
    encode: Callable[[Any], Message]
    decode: Callable[[bytes], Any]
    pause: Callable[[float, Signal], None]
    watchdog: Watchdog
    suspect: Callable[[float], None]


class Outage(NamedTuple):
    """What the hooks ``on_disconnect`` and ``on_reconnect`` are told.

    Attributes:
        role: "publisher" or "subscriber".
        topics: The topics of the stream, as far as they are known.
        error: Why the connection was lost (None in ``on_reconnect``).
        attempt: How many tries have failed since.
        seconds: How long the stream has been without a connection.
    """

    role: str
    topics: List[str]
    error: Optional[BaseException]
    attempt: int
    seconds: float


class Hooks(NamedTuple):
    """Called, on no particular thread, when a stream loses its connection and when it has one again."""

    on_disconnect: Callable[[Outage], None]
    on_reconnect: Callable[[Outage], None]
