"""A queue between threads that receive and any that consume: bounded by count and bytes, and closable.

An item costs a hand-over between threads only when somebody waits for it: who puts one in takes no lock otherwise.
Where items come so fast that who takes them would wait at each, it waits for several at once, but never for long.
"""

import threading
import time
from collections import deque
from typing import Any, Deque, List, Optional, Set, Tuple

from .clock import Deadline
from .locking import holding

_NOTHING = object()

#: What a call has taken out: items, each with its size.
Hand = List[Tuple[Any, int]]

#: Where items are taken faster than one in so many seconds, seen over so many of them ...
_QUICK = 0.00008
_SEEN = 32

#: ... who finds none waits until there are so many, for so many seconds at most.
_MANY = 64
_MOMENT = 0.001


class InboxClosed(Exception):
    """The inbox was closed; ``cause`` is the error that it was closed with, if any."""

    def __init__(self, cause: Optional[BaseException] = None) -> None:
        super().__init__(cause)
        self.cause = cause


class Inbox:
    """Items with a size each, in order. One thread at a time may put; the other methods are for any thread.

    Attributes:
        taken: How many items were taken so far.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: Deque[Tuple[Any, int]] = deque()
        self._bytes_in = 0  # all that ever came, written by who puts
        self._bytes_out = 0  # and went, under the lock
        self._closed = self._dropped = False
        self._cause: Optional[BaseException] = None
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._takers: Set[int] = set()  # threads that wait for an item ...
        self._called = 0  # ... and of them those that were woken and do not run yet
        self._wanted = 1  # how many items they wait for
        self.taken = self._taken_before = 0  # items, in all and when it was last looked how fast they come
        self._looked_at = 0.0
        self._fast = False
        self._many = min(_MANY, max(1, max_items // 2))
        self._emptied = threading.Condition(self._lock)
        self._givers = 0  # threads that wait for room ...
        self._patient_givers = 0  # ... and of them those that wait for much

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """True once nothing more can be put in."""
        return self._closed

    def has_room(self, size: int) -> bool:
        """Tell whether another item fits; one that is larger than the bound by itself does when the inbox is empty."""
        count = len(self._items)
        if count == 0:
            return True
        return count < self._max_items and self._bytes_in - self._bytes_out + size <= self._max_bytes

    @property
    def is_low(self) -> bool:
        """Whether at most half of it is full."""
        half = self._bytes_in - self._bytes_out <= self._max_bytes // 2 or not self._items
        return half and len(self._items) <= self._max_items // 2

    def put(self, item: Any, size: int) -> bool:
        """Add an item, whether there is room or not; returns False if the inbox was closed."""
        if self._closed:
            return False
        self._bytes_in += size
        self._items.append((item, size))
        # Who waits says so, and then looks once more: one of the two sees the other.
        if len(self._takers) > self._called and len(self._items) >= self._wanted:
            self._call_a_taker()
        return True

    @holding("_lock")
    def _call_a_taker(self) -> None:
        if len(self._takers) > self._called:
            self._called += 1
            self._filled.notify()

    @holding("_lock")
    def wait_for_room(self, size: int, low: bool = False, deadline: Optional[Deadline] = None) -> bool:
        """Block until an item fits, or with ``low`` until half is free; False if it was closed, or not in time."""
        self._givers += 1
        self._patient_givers += low
        self._wanted = 1
        self._filled.notify_all()
        try:
            while not (self._closed or (self.has_room(size) and (self.is_low or not low))):
                remaining = deadline.remaining() if deadline else None
                if remaining == 0.0:
                    return False
                self._emptied.wait(remaining)
            return not self._closed
        finally:
            self._givers -= 1
            self._patient_givers -= low

    def get(self, deadline: Optional[Deadline] = None, hand: Optional[Hand] = None) -> Any:
        """Take the oldest item, blocking while there is none.

        What was taken stands in ``hand``, so that who is interrupted afterwards can put it back.

        Raises:
            TimeoutError: The deadline passed.
            InboxClosed: There is nothing more to come.
        """
        with self._lock: item = self._take(hand) if self._items else _NOTHING  # noqa: E701 - see locking.py
        return self._wait_and_take(deadline, hand) if item is _NOTHING else item

    @holding("_lock")
    def put_back(self, hand: Hand) -> None:
        """Put what is in a hand back to where it was; a closed inbox has dropped it."""
        for entry in reversed(hand if not self._dropped else ()):
            self._items.appendleft(entry)
            self._bytes_out -= entry[1]
            self.taken -= 1
        hand.clear()
        self._filled.notify_all()

    @holding("_lock")
    def _wait_and_take(self, deadline: Optional[Deadline], hand: Optional[Hand]) -> Any:
        me = threading.get_ident()
        while not self._items:
            if self._closed:
                raise InboxClosed(self._cause)
            remaining = deadline.remaining() if deadline else None
            if remaining == 0.0:
                raise TimeoutError
            comes_fast = self._comes_fast()
            self._wanted = self._many if comes_fast else 1
            if comes_fast and (remaining is None or remaining > _MOMENT):
                remaining = _MOMENT
            try:
                try:
                    self._takers.add(me)
                    if not self._items:
                        self._filled.wait(remaining)
                finally:
                    self._takers.discard(me)
                    self._called = max(0, self._called - 1)
            except BaseException:
                # It is not known how far that came, and the wake-up may have been for this thread: all others look.
                self._takers.discard(me)
                self._called = 0
                self._filled.notify_all()
                raise
        return self._take(hand)

    def _comes_fast(self) -> bool:
        """Tell, before a wait, whether items come so fast that it is worth to wait for several at once."""
        now, taken = time.monotonic(), self.taken - self._taken_before
        seconds = now - self._looked_at
        if taken >= _SEEN or seconds >= _SEEN * _QUICK:
            self._fast = seconds < taken * _QUICK
            self._taken_before, self._looked_at = self.taken, now
        return self._fast and not self._takers and not self._givers

    @holding("_lock")
    def get_many(self, most: int, hand: Optional[Hand] = None) -> List[Any]:
        """Take up to ``most`` items that are there, without blocking."""
        return [self._take(hand) for _ in range(min(most, len(self._items)))]

    @holding("_lock")
    def close(self, cause: Optional[BaseException] = None, drop: bool = True) -> None:
        """Take nothing more in and wake everybody; without ``drop`` what is there can still be taken."""
        if not self._closed:
            self._closed = True
            self._cause = cause
        if drop:
            self._dropped = True
            self._items.clear()
        self._filled.notify_all()
        self._emptied.notify_all()

    def _take(self, hand: Optional[Hand]) -> Any:
        entry, bytes_out, taken = self._items[0], self._bytes_out, self.taken
        try:
            self._bytes_out, self.taken = bytes_out + entry[1], taken + 1
            self._items.popleft()
            if hand is not None:
                hand.append(entry)
            if self._givers and (self._givers > self._patient_givers or self.is_low):
                self._emptied.notify_all()
            return entry[0]
        except BaseException:  # an interrupt: nobody else can have taken anything meanwhile
            if not (self._items and self._items[0] is entry):
                self._items.appendleft(entry)
            self._bytes_out, self.taken = bytes_out, taken
            if hand and hand[-1] is entry:
                hand.pop()
            raise
