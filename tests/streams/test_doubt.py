"""When the log was looked at often enough for events in doubt; with a log that is scripted, and a clock that stands."""

import pytest

from ensign_sync.handover.clock import Clock
from ensign_sync.handover.watchdog import Watchdog
from ensign_sync.ids import RLID
from ensign_sync.protocol.frames import Delivery, Keyed, Made
from ensign_sync.protocol.publish_stream import Doubt
from ensign_sync.streams.doubt import Doubts, Question
from ensign_sync.wire.keys import keyed

TOPIC = b"t" * 16
KEYS = [b"%032x" % n for n in range(3)]


class Standing(Clock):
    """A clock that is moved by hand, and by waiting."""

    at = 1000.0

    def now(self):
        return self.at

    def time(self):
        return self.at


class Rows(list):
    """The rows of a query."""

    def cancel(self):
        """Nothing is under way."""


class Log:
    """A log; counts how often it was read to its end."""

    def __init__(self):
        self.stored, self.readings = [], 0

    def way(self, name, id, timeout):
        return name

    def counts(self, ids, timeout):
        return {}

    def rows(self, topic, offset, alone, duplicates, timeout=None, origins=False):
        self.readings += not alone
        rows = self.stored[offset:]
        return Rows(rows[:1] if alone else rows)


class Asking:
    """A stream that asks for events in doubt, over connections that last for so many looks."""

    def __init__(self):
        self.clock, self.log = Standing(), Log()
        self.doubts = Doubts(self.log, Watchdog(), self.clock)
        self.found, self.progress = {}, 0

    def ask(self, keys, looks):
        """Ask on a connection; returns what Doubts says."""
        before = self.log.readings

        def wait(seconds):
            self.clock.at += seconds

        def progress():
            self.progress += 1

        return self.doubts.stored(
            Question(
                [Doubt(key, "t", Keyed((b"x",), key, Made(self.clock.at, self.clock.at))) for key in keys],
                {"t": TOPIC},
                lambda: self.log.readings - before < looks,
                wait,
                pytest.fail,
                self.found.update,
                progress,
            )
        )


@pytest.fixture
def asking():
    """One that has asked for nothing yet."""
    return Asking()


def test_two_looks(asking):
    """One is not enough, since what was read of the connection may still be stored; each is progress."""
    assert asking.ask(KEYS[:2], 9) == {}
    assert asking.log.readings == 2
    assert asking.progress >= 2
    assert asking.ask(KEYS[:2], 9) == {}
    assert asking.log.readings == 4, "what was sent since then is in doubt anew"


def test_a_look_counts_for_the_next_connection(asking):
    """Nothing was sent on the one that asked, so nothing can have come to the log since then but what was late."""
    assert asking.ask(KEYS[:2], 1) is None
    asking.clock.at += 1.0
    assert asking.ask(KEYS[:2], 9) == {}
    assert asking.log.readings == 2


def test_a_look_a_moment_ago(asking):
    """It does not count: the server may still be storing."""
    assert asking.ask(KEYS[:2], 1) is None
    asking.clock.at += 0.01
    assert asking.ask(KEYS[:2], 9) == {}
    assert asking.log.readings == 3


def test_another_event(asking):
    """That was not looked for before."""
    assert asking.ask(KEYS[:2], 1) is None
    asking.clock.at += 1.0
    assert asking.ask(KEYS, 9) == {}
    assert asking.log.readings == 3


def test_one_that_is_given_up(asking):
    """Fewer than before are no news."""
    assert asking.ask(KEYS, 1) is None
    asking.clock.at += 1.0
    assert asking.ask(KEYS[:1], 9) == {}
    assert asking.log.readings == 2


def test_what_is_found(asking):
    """It is told at once, with the time of its id, also if the connection ends; with all found one look will do."""
    stored = keyed(b"x", 7, Made())
    id = RLID.of(1_000_000, 1)
    asking.log.stored.append(Delivery(id.bytes, TOPIC, b"".join(stored.pieces)))
    assert asking.ask([stored.key, KEYS[0]], 1) is None
    assert asking.found == {stored.key: 1_000_000 * 10**6}
    asking.clock.at += 1.0
    assert asking.ask([stored.key], 9) == asking.found
    assert asking.log.readings == 2
