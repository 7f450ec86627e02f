"""Waiting for something that has no event of its own."""

import time


def eventually(condition, limit=30.0):
    """Wait until a condition holds, looking again every few milliseconds; AssertionError if it never does."""
    until = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"not within {limit:g} seconds"
        time.sleep(0.002)
