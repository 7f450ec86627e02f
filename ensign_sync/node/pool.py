"""The threads that run the calls of a gRPC server."""

import concurrent.futures
import queue
import threading
from collections import deque
from typing import Any, Callable, Deque, Set

from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn


class DaemonPool:
    """What gRPC needs of an executor, on daemon threads that grow as calls come.

    The standard one would be joined at the end of a program before the node can be stopped, and a call that waits for
    its client would hold the program up for ever.
    """

    _IDLE_SECONDS = 30.0

    def __init__(self, most: int) -> None:
        self._most = most
        self._work: Any = queue.SimpleQueue()
        # Guards what follows. An idle thread is promised a call, and no longer idle, before the call is put: what a
        # thread does after it was woken may come too late for the next call.
        self._lock = threading.Lock()
        self._idle = 0
        self._excess: Deque[Any] = deque()  # calls beyond the most threads
        self._threads: Set[threading.Thread] = set()
        self._closed = False

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a call on an idle thread, or on a new one."""
        future: Any = concurrent.futures.Future()
        work = (future, fn, args, kwargs)
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            if self._idle:
                self._idle -= 1
                self._work.put(work)
            elif len(self._threads) < self._most:
                self._threads.add(spawn("node-call", self._run, work))
            else:
                self._excess.append(work)
        return future

    def shutdown(self, wait: bool = True, **_: Any) -> None:
        """End the threads once their calls have ended."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            while self._idle:
                self._idle -= 1
                self._work.put(None)
        if wait:
            gather(threads, Deadline(5.0))

    def _run(self, work: Any) -> None:
        try:
            while work is not None:
                _run_one(*work)
                work = self._next()
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next(self) -> Any:
        """Return the next call, or None when this thread is to end."""
        with self._lock:
            if self._excess:
                return self._excess.popleft()
            if self._closed:
                return None
            self._idle += 1
        while True:
            try:
                return self._work.get(timeout=self._IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle:
                        self._idle -= 1
                        return None
                # Else a call was promised to an idle thread just now, and this is the one left to take it.


def _run_one(future: Any, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)
