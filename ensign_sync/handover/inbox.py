"""A queue between one thread that receives and any that consume: bounded by count and bytes, and closable."""

import threading
from collections import deque
from typing import Any, Deque, List, Optional, Tuple

from .clock import Deadline
from .locking import holding


class InboxClosed(Exception):
    """The inbox was closed; ``cause`` is the error that it was closed with, if any."""

    def __init__(self, cause: Optional[BaseException] = None) -> None:
        super().__init__(cause)
        self.cause = cause


class Inbox:
    """Items with a size each, in order. Any thread may call any method."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: Deque[Tuple[Any, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._cause: Optional[BaseException] = None
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """True once nothing more can be put in or taken out."""
        return self._closed

    def put(self, item: Any, size: int, deadline: Optional[Deadline] = None) -> bool:
        """Add an item, blocking while there is no room; False if the deadline passed or the inbox was closed.

        An item larger than the bound by itself fits when the inbox is empty.
        """
        with self._emptied:
            while not self._closed and self._is_full(size):
                remaining = deadline.remaining() if deadline else None
                if remaining == 0.0:
                    return False
                self._emptied.wait(remaining)
            if self._closed:
                return False
            self._items.append((item, size))
            self._bytes += size
            self._filled.notify()
            return True

    @holding("_lock")
    def get(self, deadline: Optional[Deadline] = None) -> Any:
        """Take the oldest item, blocking while there is none.

        Raises:
            TimeoutError: The deadline passed.
            InboxClosed: There is nothing more to come.
        """
        while not self._items:
            if self._closed:
                raise InboxClosed(self._cause)
            remaining = deadline.remaining() if deadline else None
            if remaining == 0.0:
                raise TimeoutError
            try:
                self._filled.wait(remaining)
            except BaseException:
                self._filled.notify()  # the wake-up may have been for this thread: pass it on
                raise
        return self._take()

    @holding("_lock")
    def get_many(self, most: int) -> List[Any]:
        """Take up to ``most`` items that are there, without blocking."""
        return [self._take() for _ in range(min(most, len(self._items)))]

    @holding("_lock")
    def close(self, cause: Optional[BaseException] = None, drop: bool = True) -> None:
        """Take nothing more in and wake everybody; without ``drop`` what is there can still be taken."""
        if not self._closed:
            self._closed = True
            self._cause = cause
        if drop:
            self._items.clear()
            self._bytes = 0
        self._filled.notify_all()
        self._emptied.notify_all()

    def _is_full(self, size: int) -> bool:
        if not self._items:
            return False
        return len(self._items) >= self._max_items or self._bytes + size > self._max_bytes

    def _take(self) -> Any:
        item, size = self._items.popleft()
        self._bytes -= size
        self._emptied.notify()
        return item
