"""Threads with a name, and the end of them."""

import itertools
import threading
from typing import Any, Callable, Iterable, List

from .clock import Deadline

_numbers = itertools.count(1)


def prepare(role: str, target: Callable[..., Any], *args: Any) -> threading.Thread:
    """Make a daemon thread named ``ensign-<role>-<n>`` that is not started.

    Who keeps a thread in an attribute puts it there before starting it: an interrupt that arrives in ``start`` would
    otherwise leave a running thread that nobody knows of.
    """
    return threading.Thread(target=target, args=args, name=f"ensign-{role}-{next(_numbers)}", daemon=True)


def never_began(thread: threading.Thread) -> bool:
    """Tell whether ``start`` of a thread failed before the thread existed."""
    return thread.ident is None and not thread.is_alive()


def spawn(role: str, target: Callable[..., Any], *args: Any) -> threading.Thread:
    """Start a daemon thread named ``ensign-<role>-<n>``."""
    thread = prepare(role, target, *args)
    thread.start()
    return thread


def gather(threads: Iterable[threading.Thread], deadline: Deadline) -> List[str]:
    """Join threads until the deadline; returns the names of those that would not stop.

    The calling thread and threads that never started are passed over.
    """
    stubborn = []
    for thread in threads:
        if thread is threading.current_thread() or thread.ident is None:
            continue
        thread.join(deadline.remaining())
        if thread.is_alive():
            stubborn.append(thread.name)
    return stubborn
