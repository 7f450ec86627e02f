"""Points in time and how long it is until them."""

import threading
import time
from typing import Optional


class Clock:
    """The machine's clocks; a test passes another."""

    #: Returns seconds on a clock that never steps.
    now = staticmethod(time.monotonic)

    def time(self) -> float:
        """Return seconds since 1970 by the wall clock."""
        return time.time()


_CLOCK = Clock()


class Deadline:
    """A point in time on the monotonic clock, or none."""

    __slots__ = ("at", "_clock")

    def __init__(self, seconds: Optional[float], clock: Optional[Clock] = None) -> None:
        """Lie ``seconds`` from now; None lies never."""
        self._clock = clock or _CLOCK
        self.at = None if seconds is None else self._clock.now() + max(0.0, seconds)

    def remaining(self) -> Optional[float]:
        """Return the seconds left, 0.0 when it has passed, None if there is no end; no more than a lock can wait."""
        return None if self.at is None else min(threading.TIMEOUT_MAX, max(0.0, self.at - self._clock.now()))

    @property
    def passed(self) -> bool:
        """Tell whether the point has been reached."""
        return self.at is not None and self._clock.now() >= self.at


class Patience:
    """How long a call waits: a total, or a limit that starts again whenever there is progress.

    A number that the caller gave is a total. Without one, ``default`` seconds count since the last progress.
    """

    __slots__ = ("_seconds", "_total", "_clock", "_end")

    def __init__(self, timeout: Optional[float], default: float, clock: Optional[Clock] = None) -> None:
        self._total = timeout is not None
        self._seconds = default if timeout is None else timeout
        self._clock = clock or _CLOCK
        self._end = self._clock.now() + self._seconds

    @property
    def seconds(self) -> float:
        """The length that was granted."""
        return self._seconds

    def remaining(self) -> float:
        """Return the seconds left."""
        return min(threading.TIMEOUT_MAX, max(0.0, self._end - self._clock.now()))

    @property
    def passed(self) -> bool:
        """Tell whether no time is left."""
        return self._clock.now() >= self._end

    def progress(self, at: Optional[float] = None) -> None:
        """Something moved, now or at a point of the clock: count from there, unless the limit is a total."""
        if not self._total:
            self._end = max(self._end, (self._clock.now() if at is None else at) + self._seconds)
