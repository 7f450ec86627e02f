"""Finds a place in the log of a topic with queries of one row."""

from typing import Optional


class Search:
    """Looks for the smallest n whose row is none or later than ``after``, one row at a time.

    Where only the reading has to begin, not exactly there but not after it, it ends when little is left to skip.
    """

    def __init__(self, after: bytes, hint: int, expected: Optional[int] = None, exact: bool = False) -> None:
        """Begin at about the row ``hint``; ``expected`` says how many there should be up to there, if exactly."""
        self.after = after
        self.expected = expected
        self._exact = exact or expected is not None
        self.last_row, self.last_id = -1, None  # type: int, Optional[bytes]
        self.bound: Optional[int] = None
        self._step = 1
        self.probe = max(hint, 0)

    def tell(self, id: Optional[bytes]) -> bool:
        """Take the row that was asked for, None if there is none; returns whether the search is over."""
        if id is not None and id <= self.after:
            self.last_row, self.last_id = self.probe, id
        else:
            self.bound = self.probe
        if self.bound is None:
            self.probe = self.last_row + self._step
        elif self.last_row < 0 and self.bound > self._step:
            self.probe = self.bound - self._step
        else:
            self.probe = (self.last_row + self.bound) // 2
        self._step *= 2
        if self.bound is None:
            return False
        near_enough = 1 if self._exact else max(1, self.bound // 16)
        return self.bound - self.last_row <= near_enough
