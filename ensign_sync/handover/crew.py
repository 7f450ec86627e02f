"""Several threads that do the same until all of it is done, for a thread that waits for them."""

import threading
from typing import Callable, List

from .clock import Deadline
from .spawn import gather, spawn


def run_crew(work: Callable[[], None], count: int, stop: Callable[[], None]) -> None:
    """Run ``work()`` on so many threads until it returns on all of them; with one, on the calling thread.

    If it raises on one of them, or the calling thread is interrupted, ``stop()`` is called, which must make it return
    on the others, and the error is raised here.
    """
    if count == 1:
        work()
        return
    errors: List[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
            stop()

    threads: List[threading.Thread] = []
    try:
        for _ in range(count):
            threads.append(spawn("worker", run))
        gather(threads, Deadline(None))
    except BaseException:
        stop()
        gather(threads, Deadline(None))
        raise
    if errors:
        raise errors[0]
