"""The thread that runs what users hang on futures and connections, so that no other thread has to."""

import logging
import threading
from collections import deque
from typing import Any, Callable, Deque, Optional, Tuple

from .clock import Deadline
from .locking import holding
from .spawn import gather, spawn_kept

logger = logging.getLogger("ensign_sync")

#: Beyond this many waiting callbacks who hands over further events waits.
MOST_WAITING = 16_384


class CallbackThread:
    """Runs callables one after the other on a daemon thread that starts with the first. Any thread may post."""

    def __init__(self) -> None:
        self._waiting: Deque[Tuple[Callable[..., Any], Tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: Optional[threading.Thread] = None
        self._closed = False

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have ``function(*args)`` called soon; what it raises is logged and harms nobody.

        Never blocks: it may be called by a thread that a callback waits for. After ``close`` the call happens here
        and now, so that no callback is lost.
        """
        if not self._posted(function, args):
            _call(function, args)

    @holding("_lock")
    def _posted(self, function: Callable[..., Any], args: Tuple[Any, ...]) -> bool:
        if self._closed:
            return False
        self._waiting.append((function, args))
        self._changed.notify_all()
        return self._thread is not None or self._started()

    @property
    def has_room(self) -> bool:
        """Tell whether another callable may be posted without waiting."""
        return len(self._waiting) < MOST_WAITING

    def wait_for_room(self, remaining: Callable[[], Optional[float]]) -> bool:
        """Block while too many callables wait; False when no time remains. A callback never waits for itself."""
        return self.has_room or self._wait_for_room(remaining)

    @holding("_lock")
    def _wait_for_room(self, remaining: Callable[[], Optional[float]]) -> bool:
        while len(self._waiting) >= MOST_WAITING and not self._closed and not self.is_current:
            seconds = remaining()
            if seconds is not None and seconds <= 0.0:
                return False
            self._changed.wait(seconds)
        return True

    @property
    def is_current(self) -> bool:
        """Tell whether the calling thread is the one that runs callbacks."""
        return threading.current_thread() is self._thread

    def _started(self) -> bool:
        """Start the thread; at the end of a program some Pythons refuse to, then the caller has to do the work."""
        try:
            spawn_kept(self, "callbacks", self._run)
        except RuntimeError:
            self._waiting.clear()
            return False
        return True

    def close(self, deadline: Deadline) -> None:
        """Run what waits, then end the thread; from a callback it does not wait for itself."""
        thread = self._refuse_more()
        if thread is not None:
            gather([thread], deadline)

    @holding("_lock")
    def _refuse_more(self) -> Optional[threading.Thread]:
        self._closed = True
        self._changed.notify_all()
        return self._thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                function, args = self._waiting.popleft()
                self._changed.notify_all()
            try:
                _call(function, args)
            except BaseException:  # sys.exit(), say: it would end this thread, and no further callback would run
                logger.exception("a callback wanted to end its thread; it goes on")


def _call(function: Callable[..., Any], args: Tuple[Any, ...]) -> None:
    try:
        function(*args)
    except Exception:
        logger.exception("a callback raised; the client goes on")
