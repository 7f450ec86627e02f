"""Who reads a call: its reader thread, or in its place one that waits for a single answer.

Whoever holds the wheel reads. A reader thread that has let go of it looks now and then whether anybody still reads, and
takes it back when nobody does, or when it is called.
"""

import threading
from collections import deque
from typing import Any, Callable, Deque, Generator, Optional

from ..exceptions import EnsignError
from ..handover.locking import Signal
from ..transport.call import Call

#: So often a reader thread that has stepped aside looks whether anybody reads in its place, in seconds.
GLANCE = 0.1

#: After so many glances a wheel that nobody turns is lost.
_LOST_AFTER = 10


class Turn:
    """The turns of one call. A context of its reader thread, which closes the messages at the end.

    Attributes:
        call: What is read, and ``messages`` what it says.
        wheel: Held by who reads.
        left: What others have read for the reader thread: messages, or how they ended, None if well.
        reader: The other thread that reads now.
        stuck: That does not go on before something else has happened.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.wheel = threading.Lock()
        self.messages: Generator[bytes, None, None] = call.messages()
        self.left: Deque[Any] = deque()
        self.reads = 0  # how often others have read
        self.reader: Optional[int] = None
        self.stuck = False
        self._remaining: Optional[Callable[[], Optional[float]]] = None  # how long the other thread still may
        self._given_up = False  # to whoever has the wheel

    def __enter__(self) -> "Turn":
        self.wheel.acquire()
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._given_up:
            self.messages.close()

    def read(
        self, own: Callable[[bytes], bool], remaining: Callable[[], Optional[float]], take: Callable[[bytes], bool]
    ) -> None:
        """Read a message on another thread, and take it if it is its own, else leave it. Needs the wheel."""
        if self.left or remaining() == 0.0:
            return
        self.reads += 1
        self._remaining, self.reader = remaining, threading.get_ident()
        try:
            data = next(self.messages)
            self.reader = None
            if not (own(data) and take(data)):
                self.left.append(data)
        except StopIteration:
            self.left.append(None)
        except EnsignError as error:
            if not self.call.ended:
                raise  # a signal handler's
            self.left.append(error)
        finally:
            self._remaining = self.reader = None

    def leave(self, called_back: Signal, reconnect: Callable[[], None]) -> None:
        """Let go of the wheel until nobody reads any more or the reader thread is called back.

        ``reconnect`` ends a read that is late: it cannot stop by itself while nothing arrives, and whoever reads is
        about to give up what it waits for, which takes a new connection anyhow.

        Raises:
            EnsignError: The wheel is not to be had: a signal handler in the midst of a read waits for us, or an
                interrupt struck at the wrong moment. The call is theirs now.
        """
        self.wheel.release()
        reads = -1
        while not called_back.is_set() and reads != self.reads:
            reads = self.reads
            called_back.wait(GLANCE)
            self._end_if_late(reconnect)
        glances = 0
        while not self.wheel.acquire(timeout=GLANCE):
            self._end_if_late(reconnect)
            glances = glances + 1 if self.reader is None else 0
            if self.stuck or glances >= _LOST_AFTER:
                self._given_up = True
                error = EnsignError("another thread did not go on with the stream")
                error.retriable = True
                raise error

    def _end_if_late(self, reconnect: Callable[[], None]) -> None:
        remaining = self._remaining
        if remaining is not None and remaining() == 0.0:
            reconnect()
