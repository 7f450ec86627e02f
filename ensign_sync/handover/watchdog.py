"""One thread that ends what takes too long, for waits that cannot end themselves."""

import logging
import threading
from typing import Callable, List, NamedTuple, Optional

from .clock import Deadline
from .locking import holding
from .spawn import gather, spawn_kept

logger = logging.getLogger("ensign_sync")

#: How often the thread looks at a wait whose end it does not know yet, in seconds.
_LOOK_AGAIN = 1.0


class Watched(NamedTuple):
    """A wait: how many seconds remain (None while nobody waits), and what ends it.

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
        self._changed = threading.Condition(self._lock)
        self._thread: Optional[threading.Thread] = None

    @holding("_lock")
    def add(self, watched: Watched) -> None:
        """Watch a wait. ``expire`` must be quick and harmless when called late; it runs once, or again and again."""
        self._watched.append(watched)
        if self._thread is None:
            spawn_kept(self, "timer", self._run)
        self._changed.notify()

    @holding("_lock")
    def remove(self, watched: Watched) -> None:
        """Watch it no longer."""
        if watched in self._watched:
            self._watched.remove(watched)
        self._changed.notify()

    def close(self, deadline: Deadline) -> None:
        """Forget everything and wait for the thread."""
        thread = self._forget()
        if thread is not None:
            gather([thread], deadline)

    @holding("_lock")
    def _forget(self) -> Optional[threading.Thread]:
        self._watched.clear()
        self._changed.notify()
        return self._thread

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._watched:
                    self._thread = None
                    return
                left = [(watched, watched.remaining()) for watched in self._watched]
                expired = [watched for watched, seconds in left if seconds is not None and seconds <= 0.0]
                for watched in expired:
                    if not watched.again:
                        self._watched.remove(watched)
                if not expired:
                    soonest = min(_LOOK_AGAIN if seconds is None else seconds for _, seconds in left)
                    self._changed.wait(min(soonest, _LOOK_AGAIN))
            for watched in expired:
                try:
                    watched.expire()
                except Exception:
                    logger.exception("a wait could not be ended")
