"""The rows of a query."""

import threading
from typing import Any, Callable, Iterator, List, Optional

from .events import Event
from .exceptions import ConcurrencyError, CursorClosedError, EnsignError, EnsignTimeoutError


class Cursor:
    """Reads the rows of a query as they are asked for. Iterator and context manager.

    One thread at a time may fetch; ``close`` may be called from any thread. Each fetch blocks for at most the
    client's timeout without a row, or until the timeout that was given to ``query`` has passed in total.
    """

    def __init__(
        self,
        rows: Iterator[Event],
        cancel: Callable[[], None],
        release: Callable[[], None],
        timed_out: Callable[[], bool],
        limit: Optional[int] = None,
    ) -> None:
        """Wrap running rows; made by ``Ensign.query``."""
        self._rows = rows
        self._cancel = cancel
        self._release = release
        self._timed_out = timed_out
        self._left = limit
        self._ahead: List[Event] = []
        self._closed = False
        self._at_end = False
        self._reading = threading.Lock()

    def fetchone(self) -> Optional[Event]:
        """Return the next row, or None at the end.

        Raises:
            CursorClosedError: The cursor was closed.
            ConcurrencyError: Another thread is fetching.
            EnsignTimeoutError: No row came in time.
            EnsignError: The query broke off.
        """
        if not self._reading.acquire(False):
            raise ConcurrencyError("another thread is fetching from this cursor: give each thread its own query")
        try:
            return self._next()
        finally:
            self._reading.release()

    def fetchmany(self, n: int = 1) -> List[Event]:
        """Return up to ``n`` rows; an empty list at the end."""
        found: List[Event] = []
        while len(found) < n:
            row = self.fetchone()
            if row is None:
                break
            found.append(row)
        return found

    def fetchall(self) -> List[Event]:
        """Return all rows that are left; an empty list at the end."""
        return list(self)

    def close(self) -> None:
        """End the query; fetching afterwards raises CursorClosedError."""
        if not self._closed:
            self._closed = True
            self._cancel()
            self._release()

    def __iter__(self) -> "Cursor":
        return self

    def __next__(self) -> Event:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _peek(self) -> bool:
        """Read one row ahead; tells whether there is one."""
        row = self._next()
        if row is not None:
            self._ahead.append(row)
            if self._left is not None:
                self._left += 1
        return row is not None

    def _next(self) -> Optional[Event]:
        if self._closed:
            raise CursorClosedError("the cursor is closed: query again")
        if self._at_end or self._left == 0:
            self._finish()
            return None
        row = self._ahead.pop() if self._ahead else self._read()
        if row is not None and self._left is not None:
            self._left -= 1
        return row

    def _read(self) -> Optional[Event]:
        try:
            return next(self._rows)
        except StopIteration:
            self._finish()
            return None
        except EnsignError as error:
            self._finish()
            if self._closed:
                raise CursorClosedError("the cursor was closed while it was fetching") from error
            if self._timed_out() or error.code == "DEADLINE_EXCEEDED":
                raise EnsignTimeoutError("the query gave no further row in time") from error
            raise

    def _finish(self) -> None:
        self._at_end = True
        self._cancel()
        self._release()
