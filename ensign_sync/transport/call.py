"""The seam below a stream: a bidirectional call of bytes, however the bytes move.

Nothing but ``choice.open_call`` may know which kind of call is in use.
"""

import threading
from typing import Generator, List, Sequence, Tuple

from ..handover.clock import Deadline
from ..wire.codec import Message

Metadata = Sequence[Tuple[str, str]]


class Call:
    """An open bidirectional call. Every method but ``messages`` may be called from any thread.

    Attributes:
        threads_may_take_turns: Whether another thread may go on with ``messages`` after each message, also one that an
            interrupt may strike.
        ended: What ``messages`` raises is how the call ended.
    """

    threads_may_take_turns = False
    ended = False

    def write(self, messages: List[Message]) -> None:
        """Send messages in order; never blocks, never raises, and after the end of the call does nothing."""
        raise NotImplementedError

    def half_close(self) -> None:
        """Say that nothing more will be written."""
        raise NotImplementedError

    def cancel(self) -> None:
        """End the call now; wakes the thread in ``messages``."""
        raise NotImplementedError

    def messages(self) -> Generator[bytes, None, None]:
        """Yield what the server sends, to one thread; ends with the call, and closing it ends the call.

        Every call that was started must be read to its end.

        Raises:
            EnsignError: The call ended with another status than OK.
        """
        raise NotImplementedError

    def join(self, deadline: Deadline) -> None:
        """After the end: wait for the threads that the library below started for this call alone."""
        raise NotImplementedError

    def channel_threads(self) -> List[threading.Thread]:
        """Return the threads of the library below that serve all calls of a channel, and end with the last."""
        raise NotImplementedError
