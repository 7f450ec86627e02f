"""The clocks of a node, which tests may set: one for events, one for tokens."""

import time


class NodeClock:
    """The wall clock of the machine, and how far this one is from it. Any thread may call any method."""

    def __init__(self) -> None:
        self._offset_ns = 0

    def now_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return time.time_ns() + self._offset_ns

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.now_ns() / 1e9

    def advance(self, seconds: float) -> None:
        """Set the clock forward, or with a negative number back."""
        self._offset_ns += int(seconds * 1e9)

    def start_after(self, milliseconds: int) -> None:
        """Set the clock forward, if need be, so that it is past a point in time."""
        behind = (milliseconds + 1) * 1_000_000 - self.now_ns()
        if behind > 0:
            self._offset_ns += behind
