"""Holding a lock so that an interrupt cannot leave it locked.

Ctrl-C may strike at every line of the thread that it interrupts, also at the line of a ``with`` whose body is left and
whose lock is not released yet: Python then does not release it any more. On the way of what users call, locks are
therefore held for a whole method, from a line that has no other after it. They are plain locks: the exit of a Condition
is itself a function of Python's, at whose beginning an interrupt can strike; who waits on a Condition holds its lock.
"""

import functools
import threading
from typing import Any, Callable, Optional, TypeVar, cast

_F = TypeVar("_F", bound=Callable[..., Any])


class LockTimeoutError(Exception):
    """The lock was not free within the time."""


def holding(name: str) -> Callable[[_F], _F]:
    """Decorate a method that runs with the lock in an attribute of this name."""

    def decorate(method: _F) -> _F:
        @functools.wraps(method)
        def held(self: Any, *args: Any, **options: Any) -> Any:
            with getattr(self, name): return method(self, *args, **options)  # noqa: E701 - see above

        return cast(_F, held)

    return decorate


def hold(lock: Any, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function(*args)`` with a lock held that is waited for at most so many seconds.

    Raises:
        LockTimeoutError: It was not free within them.
    """
    held: Any = False
    try:
        try:
            held = lock.acquire(timeout=seconds)
            if not held:
                raise LockTimeoutError
            return function(*args)
        finally:
            held = held and lock.release()
    finally:  # once more, if the interrupt came before the line above
        held = held and lock.release()


class Signal:
    """An event, as of ``threading``, that an interrupt of ``set`` does not leave locked. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._set = False

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._set

    @holding("_lock")
    def set(self) -> None:
        """Set it, and wake whoever waits."""
        self._set = True
        self._changed.notify_all()

    @holding("_lock")
    def clear(self) -> None:
        """Unset it."""
        self._set = False

    @holding("_lock")
    def wait(self, timeout: Optional[float] = None) -> bool:
        """Block until it is set, for at most so many seconds; returns whether it is."""
        if not self._set:
            self._changed.wait(timeout)
        return self._set
