"""Whether the server still answers on the connection that all streams and calls of a client share.

A connection may be open and dead: something in between swallows what it carries, and neither end is told. A call or
stream that is opened anew on it would be as dead, so the connection itself is replaced. A server that is asked for its
status tells a dead one from one that has nothing to say (docs/protocol.rst, "Keepalive").
"""

import contextlib
import functools
import logging
import threading
from typing import Any, Callable, ContextManager, Iterator, List, Optional

from ..exceptions import EnsignClientClosingError, EnsignConnectionError, EnsignError
from ..handover.clock import Clock, Deadline
from ..handover.locking import holding
from ..handover.spawn import gather, spawn_kept
from ..handover.watchdog import Watchdog, Watched
from ..settings import Settings
from ..wire import methods
from .call import Call
from .choice import open_rows

logger = logging.getLogger("ensign_sync")

#: So many seconds of silence at most are believed of a server that owes an answer.
IMPATIENCE = 10.0

#: The answer to Status may take this part of a heartbeat, so that two are enough to notice that nothing comes back; but
#: at least and at most so many seconds.
_PART, _SHORTEST, _LONGEST = 0.5, 1.0, 5.0

#: A process that notices the end of that so much too late was kept from running, and may not have seen the answer.
_LATE = 0.5


class Liveness:
    """Asks for the status, and has the connection replaced if nothing comes back. Any thread may call any method.

    Attributes:
        heartbeat: How many seconds of silence are believed of a server that owes nothing.
        impatience: How many seconds of one that owes an answer.
        patience: How many seconds the answer to Status may take.
    """

    def __init__(
        self,
        channel: Callable[[], Any],
        replace: Callable[[EnsignError], None],
        settings: Settings,
        heartbeat: float,
        watchdog: Watchdog,
        clock: Clock,
    ) -> None:
        """Make one that asks on the ``channel()`` of now, and calls ``replace(why)`` to have another."""
        self.heartbeat, self.impatience = heartbeat, min(heartbeat, IMPATIENCE)
        self.patience = min(max(_PART * heartbeat, _SHORTEST), _LONGEST)
        self._channel, self._replace, self._settings, self._watchdog = channel, replace, settings, watchdog
        self._now = clock.now
        self._known_at = float("-inf")  # then the connection was seen to live, or was replaced
        self._asking = threading.Lock()  # held by who asks
        self._call: Optional[Call] = None
        self._thread: Optional[threading.Thread] = None  # that was started for a suspicion, the last one
        self._closed = False

    def waiting(self, deadline: Deadline) -> ContextManager[None]:
        """While the block runs, which waits for one answer, have the connection checked when that takes long."""
        began = self._now()
        return self.waiting_since(lambda: None if deadline.passed else began)

    @contextlib.contextmanager
    def waiting_since(self, since: Callable[[], Optional[float]]) -> Iterator[None]:
        """While the block runs, which waits for answers, have the connection checked when one takes long.

        ``since()`` is since when one has been waited for, by the clock, None while none is.
        """
        looked_at = self._now()

        def until_due() -> Optional[float]:
            at = since()
            return None if at is None else max(at, looked_at) + self.impatience - self._now()

        def due() -> None:
            nonlocal looked_at
            looked_at = self._now()
            self.suspect()

        watched = Watched(until_due, due, again=True)
        with contextlib.suppress(RuntimeError):  # the program is about to end, and takes no more threads
            self._watchdog.add(watched)
        try:
            yield
        finally:
            self._watchdog.remove(watched)

    def suspect(self) -> None:
        """Check the connection on a thread of its own: something was not answered."""
        if not (self._closed or (self._thread is not None and self._thread.is_alive())):
            with contextlib.suppress(RuntimeError):  # as above
                spawn_kept(self, "asking", functools.partial(self.check, self._now()))

    def check(self, since: float) -> bool:
        """See whether the connection lives, if it is not known of a moment after ``since``; replace it if not.

        Blocks for at most ``patience``, or again so long if this process was kept from running meanwhile. Returns False
        only if nothing came back.
        """
        with self._asking:
            if self._closed or self._known_at > since:
                return True
            late = True
            while late and not self._closed:
                began = self._now()
                if self._comes_back():
                    self._known_at = began
                    return True
                late = self._now() - began > self.patience + _LATE
        self.dead(since, f"no answer to Status within {self.patience:.3g} s")
        return False

    def dead(self, since: float, details: str) -> None:
        """Replace the connection, on which nothing came back since then."""
        if self._is_news(since):
            hint = "something in between, such as a firewall or a NAT, may have forgotten it"
            details = f"it is open and dead: {details}"
            error = EnsignConnectionError(self._settings.endpoint, "UNAVAILABLE", details, hint)
            logger.warning("a new connection is made: %s", error)
            self._replace(error)

    @holding("_asking")
    def _is_news(self, since: float) -> bool:
        if self._closed or self._known_at > since:
            return False
        self._known_at = self._now()
        return True

    def _comes_back(self) -> bool:
        """Ask, without a token; whatever is answered is an answer, also that there is no connection at all."""
        try:
            self._call = call = open_rows(self._channel(), methods.STATUS, b"", (), self._settings, self.patience)
            if self._closed:
                call.cancel()
            with contextlib.closing(call.messages()) as answers:
                next(answers, None)
        except (EnsignClientClosingError, ValueError):  # it was closed meanwhile
            return True
        except EnsignError as error:
            return bool(error.code != "DEADLINE_EXCEEDED")
        finally:
            self._call = None
        return True

    def close(self) -> None:
        """Ask no more, and end what is being asked; does not wait for the thread."""
        self._closed = True
        call = self._call
        if call is not None:
            call.cancel()

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the thread; returns its name if it did not stop."""
        return gather([self._thread] if self._thread is not None else [], deadline)
