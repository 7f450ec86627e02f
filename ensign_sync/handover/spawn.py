"""Threads with a name, and the end of them."""

import itertools
import threading
from typing import Any, Callable, Iterable, List

from .clock import Deadline

_numbers = itertools.count(1)


def _prepared(role: str, target: Callable[..., Any], *args: Any) -> threading.Thread:
    return threading.Thread(target=target, args=args, name=f"ensign-{role}-{next(_numbers)}", daemon=True)


def spawn(role: str, target: Callable[..., Any], *args: Any) -> threading.Thread:
    """Start a daemon thread named ``ensign-<role>-<n>``."""
    thread = _prepared(role, target, *args)
    thread.start()
    return thread


def spawn_kept(owner: Any, role: str, target: Callable[..., Any]) -> None:
    """Start a thread that stands in ``owner._thread`` before it runs.

    An interrupt that arrives in ``start`` would otherwise leave a running thread that nobody knows of. If the thread
    never began, the attribute is None again.
    """
    owner._thread = thread = _prepared(role, target)
    try:
        thread.start()
    except BaseException:
        if thread.ident is None and not thread.is_alive():
            owner._thread = None
        raise


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
