"""Things that a node does later: one thread, started with the first of them."""

import heapq
import itertools
import logging
import threading
import time
from typing import Any, Callable, List, Optional, Tuple

from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn_kept

logger = logging.getLogger("ensign_sync.node")


class Timer:
    """Calls functions at their time, one after the other. Any thread may call any method."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._heap: List[Tuple[float, int, Callable[[], Any]]] = []
        self._numbers = itertools.count()  # of two at the same time the one that was asked for first comes first
        self._thread: Optional[threading.Thread] = None
        self._closed = False

    def after(self, seconds: float, function: Callable[[], Any]) -> None:
        """Have a quick function called once, so many seconds from now; never after ``close``."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), function))
            self._changed.notify()
            if self._thread is None:
                spawn_kept(self, "node-timer", self._run)

    def close(self, deadline: Deadline) -> None:
        """Forget what is still to come, and end the thread."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            gather([thread], deadline)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._is_due():
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                if self._closed:
                    return
                function = heapq.heappop(self._heap)[2]
            try:
                function()
            except Exception:
                logger.exception("something that a node had put off failed; it goes on")

    def _is_due(self) -> bool:
        return bool(self._heap) and self._heap[0][0] <= time.monotonic()
