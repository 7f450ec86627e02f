"""How a thread waits for the outcomes of what it handed over.

An outcome comes with a token, a pair of (owner, index); the owner's ``settle(index, outcome)`` is called by the
thread that learned it, holds no other lock, and is quick.
"""

import os
import threading
from collections import deque
from concurrent.futures import Future, _base
from concurrent.futures import TimeoutError as TimeoutError_  # the builtin only from 3.11 on
from typing import Any, Callable, Deque, List, Optional, Tuple

from .clock import Clock, Patience
from .locking import holding

_CLOCK = Clock()


class Collector:
    """Gathers the outcomes of many events for the one thread that waits for them."""

    __slots__ = ("outcomes", "_wanted", "_lock", "_condition", "_now", "_last")

    def __init__(self, clock: Optional[Clock] = None) -> None:
        self._now = (clock or _CLOCK).now
        self._last = float("-inf")  # when the last outcome came
        self.outcomes: Deque[Tuple[int, Any]] = deque()
        self._wanted: float = float("inf")
        self._lock = threading.Lock()
        self._condition: Optional[threading.Condition] = None  # made when somebody has to wait

    def settle(self, index: int, outcome: Any) -> None:
        """Add an outcome, and wake the waiting thread if it was the last that it waits for."""
        self.outcomes.append((index, outcome))
        self._last = self._now()
        # The waiter states its wish before it looks, so one of the two sees the other; no lock on the way.
        if len(self.outcomes) >= self._wanted:
            self._notify()

    def wait(self, count: int, patience: Patience) -> bool:
        """Block until there are ``count`` outcomes; False when the patience ends. Each outcome is progress."""
        if len(self.outcomes) >= count:
            return True
        if self._condition is None:
            self._condition = threading.Condition(self._lock)
        return self._wait(self._condition, count, patience)

    @holding("_lock")
    def _notify(self) -> None:
        assert self._condition is not None  # or nothing would be wanted
        self._condition.notify()

    @holding("_lock")
    def _wait(self, condition: threading.Condition, count: int, patience: Patience) -> bool:
        self._wanted = count
        try:
            while len(self.outcomes) < count:
                patience.progress(self._last)
                if patience.passed:
                    return False
                condition.wait(patience.remaining())
        finally:
            self._wanted = float("inf")
        return True


class PublishFuture(Future):  # type: ignore[type-arg]  # Future is no generic at run time on 3.7 and 3.8
    """The future of one event's Ack.

    It cannot be cancelled once the event is accepted. Callbacks run on a thread of the client that only runs
    callbacks, never on the one that reads the stream.

    Most futures are asked for their result when it is there, or never. What is needed to wait for one is therefore
    only made when somebody does: a dozen objects for each event would cost more than all else that is done for it.
    """

    __slots__ = ("_post", "_convert", "_subject", "_state", "_result", "_exception", "_made")

    # Guards the making of what a waiter needs against the outcome that comes at that moment. One for all futures,
    # since it is held for a few instructions only.
    _settling = threading.Lock()

    def __init__(self, post: Callable[..., None], convert: Callable[[Any, Any], Any], subject: Any) -> None:
        """Make a future; ``convert(subject, outcome)`` is its result, or the exception to raise."""
        # Not the base class's: it makes what ``_condition`` makes later.
        self._post = post
        self._convert = convert
        self._subject = subject
        self._state: str = _base.PENDING
        self._result: Any = None
        self._exception: Optional[BaseException] = None
        self._made: Optional[threading.Condition] = None

    def settle(self, index: int, outcome: Any) -> None:
        """Take the outcome: an exception is raised by ``result``, anything else is returned by it."""
        outcome = self._convert(self._subject, outcome)
        self._subject = None  # which holds this future: together they would stay until the garbage collection
        with self._settling: waiter = self._settled_unseen(outcome)  # noqa: E701 - see locking.py
        if waiter is None:
            return
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

    def _settled_unseen(self, outcome: Any) -> Optional[threading.Condition]:
        """Take the outcome if nobody looks; returns what somebody waits on, if so. Needs the lock."""
        if self._made is None:
            if isinstance(outcome, BaseException):
                self._exception = outcome
            else:
                self._result = outcome
            self._state = _base.FINISHED
        return self._made

    @property
    def _condition(self) -> threading.Condition:  # the base class's name for it
        return self._made or self._make()

    @_condition.setter
    def _condition(self, condition: threading.Condition) -> None:
        self._made = condition

    @holding("_settling")
    def _make(self) -> threading.Condition:
        if self._made is None:
            self._waiters: List[Any] = []
            self._done_callbacks: List[Callable[[Any], Any]] = []
            self._made = threading.Condition()
        return self._made

    def result(self, timeout: Optional[float] = None) -> Any:
        """Block until there is an outcome, and return the Ack, or raise what came instead.

        Raises:
            NackError: The server refused the event.
            PublishTimeoutError, EnsignError: It was given up; its text says whether it may have been stored.
            concurrent.futures.TimeoutError: There is none within ``timeout`` seconds; the event stays pending.
        """
        if self._state is _base.FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def done(self) -> bool:
        """Tell whether there is an outcome."""
        return self._state is _base.FINISHED

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Block until there is an outcome; False when ``timeout`` seconds pass without."""
        try:
            self.exception(timeout)
        except TimeoutError_:
            return False
        return True

    def cancel(self) -> bool:
        """Return False: an accepted event is on its way."""
        return False

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call ``fn(future)`` on the callback thread once there is an outcome."""
        super().add_done_callback(lambda future: self._post(fn, future))


def _after_fork() -> None:
    PublishFuture._settling = threading.Lock()  # the thread that held it is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
