"""Deadlines and patience, by a clock that a test moves."""

import threading
import time

import pytest

from ensign_sync.handover.clock import Clock, Deadline, Patience


class HandClock(Clock):
    """A clock that stands until it is moved."""

    def __init__(self):
        self.at = 1000.0

    def now(self):
        return self.at


@pytest.fixture
def clock():
    return HandClock()


def test_clock():
    """The machine's clock is monotonic for lengths and the wall clock for times."""
    before = time.monotonic(), time.time()
    now = Clock().now(), Clock().time()
    assert before[0] <= now[0] <= time.monotonic()
    assert before[1] - 1 <= now[1] <= time.time() + 1


def test_deadline(clock):
    """The time left runs down to zero and stays there."""
    deadline = Deadline(5.0, clock)
    assert (deadline.at, deadline.remaining(), deadline.passed) == (1005.0, 5.0, False)
    clock.at += 4.5
    assert (deadline.remaining(), deadline.passed) == (0.5, False)
    clock.at += 0.5
    assert (deadline.remaining(), deadline.passed) == (0.0, True)
    clock.at += 100.0
    assert (deadline.remaining(), deadline.passed) == (0.0, True)


@pytest.mark.parametrize("seconds", [0, 0.0, -1, -1e9])
def test_deadline_at_once(clock, seconds):
    """No time, or less, has passed from the start."""
    deadline = Deadline(seconds, clock)
    assert (deadline.remaining(), deadline.passed) == (0.0, True)


def test_no_deadline(clock):
    """Without seconds there is no end."""
    deadline = Deadline(None, clock)
    clock.at += 1e9
    assert (deadline.at, deadline.remaining(), deadline.passed) == (None, None, False)


@pytest.mark.parametrize("seconds", [float("inf"), 1e12])
def test_deadline_beyond_what_can_be_waited(clock, seconds):
    """A length that no lock can wait, such as infinity, leaves a time that one can; it does not pass."""
    for length in (Deadline(seconds, clock), Patience(seconds, 30.0, clock)):
        assert not length.passed
        remaining = length.remaining()
        assert remaining is None or 0.0 < remaining <= threading.TIMEOUT_MAX


def test_deadline_of_the_machine():
    """Without a clock it is the machine's."""
    assert 0.0 < Deadline(60.0).remaining() <= 60.0
    assert Deadline(0.0).passed


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 30.0), (5.0, 5.0), (0.0, 0.0), (0, 0)])
def test_patience_length(clock, timeout, seconds):
    """A number that was given counts, zero too; without one it is the default."""
    patience = Patience(timeout, 30.0, clock)
    assert patience.seconds == patience.remaining() == seconds
    assert patience.passed is (seconds == 0)


def test_patience_starts_again(clock):
    """The default starts again whenever something moved, also when it had passed."""
    patience = Patience(None, 30.0, clock)
    clock.at += 29.0
    assert (patience.remaining(), patience.passed) == (1.0, False)
    patience.progress()
    assert patience.remaining() == 30.0
    clock.at += 31.0
    assert (patience.remaining(), patience.passed) == (0.0, True)
    patience.progress()
    assert (patience.remaining(), patience.passed) == (30.0, False)


def test_patience_total(clock):
    """A number that was given is a total: nothing starts it again."""
    patience = Patience(5.0, 30.0, clock)
    clock.at += 4.0
    patience.progress()
    assert patience.remaining() == 1.0
    clock.at += 1.0
    patience.progress()
    assert (patience.remaining(), patience.passed) == (0.0, True)
