"""One thread that ends what takes too long, for waits that cannot end themselves."""

import contextlib
import logging
import threading
from typing import Callable, List, NamedTuple, Optional

from .clock import Deadline
from .locking import holding
from .spawn import gather, spawn_kept

logger = logging.getLogger("ensign_sync")

#: How often the thread looks at a wait whose end it does not know yet, in seconds.
_LOOK_AGAIN = 1.0

#: So long the thread stays when there is nothing to watch, or each single call would start one.
_LINGER = 5.0

#: What remains of a wait that nobody remembers: it is watched no longer.
OVER = float("-inf")


class Watched(NamedTuple):
    """A wait: how many seconds remain (None while nobody waits, or OVER), and what ends it.

    With ``again`` it is watched on, and ``expire`` must have put off the next time.
    """

    remaining: Callable[[], Optional[float]]
    expire: Callable[[], None]
    again: bool = False


class Watchdog:
    """Calls ``expire`` of a wait whose time is up, on a daemon thread that lives while anything is watched."""

    def __init__(self) -> None:
        self._watched: List[Watched] = []
        self._lock = threading.Lock()
        # Held but for a moment: who releases it wakes the thread. Unlike a Condition it cannot be left half notified by
        # an interrupt.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asleep_for = 0.0  # at most, in seconds
        self._thread: Optional[threading.Thread] = None

    @holding("_lock")
    def add(self, watched: Watched) -> None:
        """Watch a wait. ``expire`` must be quick and harmless when called late; it runs once, or again and again."""
        self._watched.append(watched)
        if self._thread is None:
            spawn_kept(self, "timer", self._run)
        else:
            remaining = watched.remaining()
            if self._asleep_for == _LINGER or (remaining is not None and remaining < self._asleep_for):
                self._ring()

    @holding("_lock")
    def remove(self, watched: Watched) -> None:
        """Watch it no longer."""
        if watched in self._watched:
            self._watched.remove(watched)

    def close(self, deadline: Deadline) -> None:
        """Forget everything and wait for the thread."""
        thread = self._forget()
        if thread is not None:
            gather([thread], deadline)

    @holding("_lock")
    def _forget(self) -> Optional[threading.Thread]:
        self._watched.clear()
        thread, self._thread = self._thread, None
        self._ring()
        return thread

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it rings already
            self._bell.release()

    # the thread

    def _run(self) -> None:
        me = threading.current_thread()
        lingered = False
        while True:
            expired = self._look(me, lingered)
            if expired is None:
                return
            for watched in expired:
                try:
                    watched.expire()
                except Exception:
                    logger.exception("a wait could not be ended")
            if not expired:
                rang = self._bell.acquire(timeout=self._asleep_for)
                lingered = self._asleep_for == _LINGER and not rang

    @holding("_lock")
    def _look(self, me: threading.Thread, lingered: bool) -> Optional[List[Watched]]:
        """Return what has expired; None if the thread is to end. Decides how long it may sleep otherwise."""
        if self._thread is not me:
            return None
        if not self._watched:
            if lingered:
                self._thread = None
                return None
            self._asleep_for = _LINGER
            return []
        left = [(watched, watched.remaining()) for watched in self._watched]
        expired = [watched for watched, seconds in left if seconds is not None and OVER < seconds <= 0.0]
        done = [watched for watched, seconds in left if seconds == OVER or (watched in expired and not watched.again)]
        for watched in done:
            self._watched.remove(watched)
        soonest = min(_LOOK_AGAIN if seconds is None else max(seconds, 0.0) for _, seconds in left)
        self._asleep_for = min(soonest, _LOOK_AGAIN)
        return expired
