"""The threads that run the calls of a gRPC server."""

import concurrent.futures
import queue
import threading
from typing import Any, Callable, Set

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
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: Set[threading.Thread] = set()
        self._closed = False

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a call on an idle thread, or on a new one."""
        future: Any = concurrent.futures.Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._work.put((future, fn, args, kwargs))
            if self._idle >= self._work.qsize() or len(self._threads) >= self._most:
                return future
            self._threads.add(spawn("node-call", self._run))
        return future

    def shutdown(self, wait: bool = True, **_: Any) -> None:
        """End the threads once their calls have ended."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            for _thread in threads:
                self._work.put(None)
        if wait:
            gather(threads, Deadline(5.0))

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    self._idle += 1
                try:
                    work = self._work.get(timeout=self._IDLE_SECONDS)
                except queue.Empty:
                    work = None
                with self._lock:
                    self._idle -= 1
                if work is None:
                    return
                _run_one(*work)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())


def _run_one(future: Any, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)
