"""Whether the server still answers on the connection that all streams and calls of a client share.

A connection may be open and dead: something in between swallows what it carries, and neither end is told. A call or
stream that is opened anew on it would be as dead, so the connection itself is replaced. A server that is asked for its
status tells a dead one from one that has nothing to say (docs/protocol.rst, "Keepalive"). Whatever else comes meanwhile
is as good an answer, since that to the status may wait behind much that is on its way.
"""

import contextlib
import functools
import logging
import threading
from typing import Any, Callable, ContextManager, Iterator, List, Mapping, Optional

from ..exceptions import EnsignConnectionError, EnsignError
from ..handover.clock import Clock, Deadline
from ..handover.locking import holding
from ..handover.spawn import gather, spawn_kept
from ..handover.watchdog import OVER, Watchdog, Watched
from ..settings import Settings
from ..wire import methods
from .call import Call
from .choice import open_rows

logger = logging.getLogger("ensign_sync")

#: So many seconds of silence at least and at most are believed of a server that owes an answer.
_SHORTEST_SILENCE, _LONGEST_SILENCE = 0.1, 10.0

#: The answer to Status may take this part of a heartbeat, so that two are enough to notice that nothing comes back; but
#: at least and at most so many seconds.
_PART, _SHORTEST, _LONGEST = 0.5, 1.0, 15.0

#: A connection that replaces one and is silent too gets twice as much time, up to so many times as much: a line may be
#: slow, and what is sent again makes it slower.
_MOST_TIMES = 64

#: A process that notices the end of that so much too late was kept from running, and may not have seen the answer.
_LATE = 0.5


class Liveness:
    """Asks for the status, and has the connection replaced if nothing comes back. Any thread may call any method.

    Attributes:
        heartbeat: How many seconds of silence are believed of a server that owes nothing.
        impatience: How many seconds of one that owes an answer.
    """

    def __init__(
        self,
        channel: Callable[[], Any],
        replace: Callable[[EnsignConnectionError], None],
        signs: Callable[[], Mapping[Any, Any]],
        settings: Settings,
        heartbeat: float,
        watchdog: Watchdog,
        clock: Clock,
    ) -> None:
        """Make one that asks on the ``channel()`` of now.

        It calls ``replace(why)`` for another. ``signs()`` has something for each stream, which is something else
        whenever the stream has received anything.
        """
        self.heartbeat = heartbeat
        self.impatience = min(max(heartbeat, _SHORTEST_SILENCE), _LONGEST_SILENCE)
        self._shortest = min(max(_PART * heartbeat, _SHORTEST), _LONGEST)
        self._times = 1
        self._channel, self._replace, self._signs = channel, replace, signs
        self._settings, self._watchdog, self._now = settings, watchdog, clock.now
        self._known_at = float("-inf")  # then the connection was seen to live, or was replaced
        self._asking = threading.Lock()  # held by who asks
        self._starting = threading.Lock()
        self._call: Optional[Call] = None
        self._thread: Optional[threading.Thread] = None  # that was started for a suspicion, the last one
        self._closed = False

    @property
    def patience(self) -> float:
        """How many seconds the answer to Status may take."""
        return self._shortest * self._times

    def waiting(self, deadline: Deadline) -> ContextManager[None]:
        """While the block runs, which waits for one answer, have the connection checked when that takes long."""
        began = self._now()
        return self.waiting_since(lambda: OVER if deadline.passed else began)

    @contextlib.contextmanager
    def waiting_since(self, since: Callable[[], Optional[float]]) -> Iterator[None]:
        """While the block runs, which waits for answers, have the connection checked when one takes long.

        ``since()`` is since when one has been waited for, by the clock; None while none is, and OVER when none will be,
        which ends the watch even if an interrupt keeps the block from ending it.
        """
        looked_at = self._now()

        def until_due() -> Optional[float]:
            at = since()
            return at if at is None or at == OVER else max(at, looked_at) + self.impatience - self._now()

        def due() -> None:
            nonlocal looked_at
            looked_at = self._now()
            self.suspect(looked_at - self.impatience)

        watched = Watched(until_due, due, again=True)
        with contextlib.suppress(RuntimeError):  # the program is about to end, and takes no more threads
            self._watchdog.add(watched)
        try:
            yield
        finally:
            self._watchdog.remove(watched)

    def lives(self, at: float) -> None:
        """Note that what was asked at this time was answered."""
        if at > self._known_at:
            self._known_at = at

    @holding("_starting")
    def suspect(self, since: float) -> None:
        """Check the connection on a thread of its own: nothing has been heard since then that was to be."""
        if not (self._closed or (self._thread is not None and self._thread.is_alive())):
            with contextlib.suppress(RuntimeError):  # as above
                spawn_kept(self, "asking", functools.partial(self.check, since))

    def check(self, since: float) -> bool:
        """See whether the connection lives, if it is not known of a moment after ``since``; replace it if not.

        Blocks for at most ``patience``, or again so long if this process was kept from running meanwhile. Returns False
        only if nothing came back.
        """
        with self._asking:
            seconds, late = self.patience, True
            while late:
                if self._closed or self._known_at > since:
                    return True
                began, signs = self._now(), self._signs()
                if self._answers(seconds):
                    self._times = 1
                    self.lives(began)
                elif any(signs.get(stream, sign) != sign for stream, sign in self._signs().items()):
                    self.lives(began)
                late = self._now() - began > seconds + _LATE
            if self._closed or self._known_at > since:
                return True
            self._known_at = self._now()  # of that which replaces it
            self._times = min(self._times * 2, _MOST_TIMES)
        hint = "something in between, such as a firewall or a NAT, may have forgotten it"
        details = f"it is open and dead: no answer to Status within {seconds:.3g} s"
        error = EnsignConnectionError(self._settings.endpoint, "UNAVAILABLE", details, hint)
        logger.warning("a new connection is made: %s", error)
        self._replace(error)
        return False

    def _answers(self, seconds: float) -> bool:
        """Ask, without a token; whatever is answered is an answer, also that there is no connection at all."""
        try:
            self._call = call = open_rows(self._channel(), methods.STATUS, b"", (), self._settings, seconds)
            if self._closed:
                call.cancel()
            with contextlib.closing(call.messages()) as answers:
                next(answers, None)
        except EnsignError as error:
            return bool(error.code != "DEADLINE_EXCEEDED")
        except Exception as error:  # the channel was closed meanwhile, or no thread is to be had: that proves nothing
            logger.debug("the server could not be asked for its status: %r", error)
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
