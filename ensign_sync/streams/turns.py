"""Two threads that read at full speed at once, the stream and the log, take turns.

Both let go of the interpreter at every message, and each then waits for the other at every message: that takes three
times as long as one after the other. So the thread of the stream pauses for a moment after some events, and the one
that reads the log, seeing that it goes on, waits a moment for it in turn.
"""

import time

from ..handover.locking import Signal

#: A turn of the stream has so many events ...
_EVENTS = 64

#: ... and neither waits for the other longer than so many seconds.
_MOMENT = 0.001


class Turns:
    """Of two threads, each of which calls the method that is named for it; nothing depends on how they come out."""

    def __init__(self) -> None:
        self._events = 0  # of this turn
        self._rows = self._rows_before = 0  # now, and at the end of the turn before
        self._turn = self._waited_for = 0
        self._over = Signal()

    def one_live(self) -> None:
        """Note an event of the stream; perhaps pause, if rows came since the last time."""
        self._events += 1
        if self._events < _EVENTS:
            return
        self._events = 0
        if self._rows == self._rows_before:
            return
        self._rows_before = self._rows
        self._over.set()
        time.sleep(_MOMENT)
        self._over.clear()
        self._turn += 1

    def one_row(self) -> None:
        """Note a row of the log; perhaps wait until the turn of the stream is over."""
        self._rows += 1
        if self._turn != self._waited_for:
            self._waited_for = self._turn
            self._over.wait(_MOMENT)
