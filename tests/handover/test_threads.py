"""The threads of the library: starting and joining them, the one for callbacks, and the one that ends waits."""

import logging
import sys
import threading

import pytest

from ensign_sync.handover import callbacks
from ensign_sync.handover.callbacks import CallbackThread
from ensign_sync.handover.clock import Clock, Deadline
from ensign_sync.handover.spawn import gather, spawn
from ensign_sync.handover.watchdog import Watchdog, Watched

LONG = 20.0


def later():
    """Return a deadline that no good test reaches."""
    return Deadline(LONG)


class HandClock(Clock):
    """A clock that stands until it is moved."""

    at = 0.0

    def now(self):
        return self.at


# Spawn and gather


def test_spawn():
    """A thread is a daemon, has its role and a number in its name, and gets its arguments."""
    got = []
    first, second = spawn("tester", got.append, 1), spawn("tester", lambda *args: got.extend(args), 2, 3)
    assert gather([first, second], later()) == []
    assert sorted(got) == [1, 2, 3]
    assert first.daemon and second.daemon
    numbers = [int(thread.name[len("ensign-tester-") :]) for thread in (first, second)]
    assert first.name.startswith("ensign-tester-")
    assert numbers[0] < numbers[1]


def test_gather_names_the_stubborn():
    """Threads that do not end in time are named, all others are joined."""
    end = threading.Event()
    threads = [spawn("stubborn", end.wait), spawn("quick", int), spawn("stubborn", end.wait)]
    threads[1].join(LONG)
    assert gather(threads, Deadline(0.0)) == [threads[0].name, threads[2].name]
    end.set()
    assert gather(threads, later()) == []
    assert gather(threads, Deadline(None)) == []


def test_gather_passes_over():
    """The calling thread and threads that never started are not waited for."""
    never = threading.Thread(target=int)
    assert gather([threading.current_thread(), never], Deadline(None)) == []
    assert gather([], Deadline(0.0)) == []


# Callbacks


def test_callbacks_in_order():
    """Callables run one after the other, in the order of posting, on one thread that is not the caller's."""
    runner, calls = CallbackThread(), []
    for number in range(100):
        runner.post(lambda *args: calls.append((args, threading.current_thread())), number, "x")
    runner.close(later())
    assert [args for args, _ in calls] == [(number, "x") for number in range(100)]
    (thread,) = {thread for _, thread in calls}
    assert thread is not threading.current_thread()
    assert thread.daemon and thread.name.startswith("ensign-callbacks-")
    assert not thread.is_alive()


def test_no_thread_without_a_callback():
    """The thread starts with the first callable; without one closing waits for nothing."""
    before = threading.active_count()
    runner = CallbackThread()
    runner.close(Deadline(None))
    runner.close(Deadline(0.0))
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [ValueError("boom"), KeyError("boom"), EOFError()], ids=repr)
def test_callback_that_raises(error, caplog):
    """What a callback raises is logged with its traceback, and the next one runs."""
    runner, calls = CallbackThread(), []

    def fail():
        raise error

    with caplog.at_level(logging.ERROR, "ensign_sync"):
        runner.post(fail)
        runner.post(calls.append, "next")
        runner.close(later())
    assert calls == ["next"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("ensign_sync", "ERROR")
    assert record.exc_info[1] is error


def test_callback_that_exits():
    """A callback that calls sys.exit harms nobody: the next one runs, and the thread still ends with close."""
    runner, ran = CallbackThread(), threading.Event()
    runner.post(sys.exit, 1)
    runner.post(ran.set)
    runner.close(later())
    assert ran.is_set()


def test_close_runs_what_waits():
    """Closing ends the thread after everything that was posted before."""
    runner, calls, begun, go = CallbackThread(), [], threading.Event(), threading.Event()
    runner.post(lambda: (begun.set(), go.wait(LONG)))
    for number in range(10):
        runner.post(calls.append, number)
    assert begun.wait(LONG)
    assert calls == []
    go.set()
    runner.close(later())
    assert calls == list(range(10))


def test_close_keeps_its_deadline():
    """A callback that hangs does not hold closing beyond the deadline; it is finished afterwards."""
    runner, calls, go = CallbackThread(), [], threading.Event()
    runner.post(go.wait, LONG)
    runner.post(calls.append, 1)
    runner.close(Deadline(0.01))
    assert calls == []
    go.set()
    runner.close(later())
    assert calls == [1]


def test_post_after_close():
    """After closing a callable runs here and now, so that none is lost; what it raises is logged."""
    runner, calls = CallbackThread(), []
    runner.post(int)
    runner.close(later())
    runner.post(lambda: calls.append(threading.current_thread()))
    assert calls == [threading.current_thread()]
    runner.post(int, "no number")


def test_interrupt_after_close():
    """Ctrl-C in a callable that runs here and now belongs to the caller, as it does with the standard futures."""
    runner = CallbackThread()
    runner.close(later())

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.post(interrupt)


def test_post_and_close_from_a_callback():
    """A callback may post another, and may close the client: it does not wait for itself."""
    runner, calls = CallbackThread(), []

    def first():
        runner.post(calls.append, "second")
        runner.close(Deadline(None))
        calls.append("first")

    done = threading.Event()
    runner.post(first)
    runner.post(done.set)
    assert done.wait(LONG)
    runner.close(later())
    assert calls == ["first", "second"]


def test_posting_never_blocks_and_room_is_waited_for_apart(monkeypatch):
    """However many wait, a post goes through; who asks for room first waits, but for the callback thread itself."""
    monkeypatch.setattr(callbacks, "MOST_WAITING", 3)
    runner, calls, begun, go = CallbackThread(), [], threading.Event(), threading.Event()

    def first():
        begun.set()
        go.wait(LONG)
        calls.append(runner.wait_for_room(lambda: 0.0))

    runner.post(first)
    assert begun.wait(LONG)
    assert runner.wait_for_room(lambda: 0.0)
    for number in range(5):
        runner.post(calls.append, number)
    assert not runner.wait_for_room(lambda: 0.0)
    asked = []
    waiter = spawn("tester", lambda: asked.append(runner.wait_for_room(later().remaining)))
    go.set()
    assert gather([waiter], later()) == []
    assert asked == [True]
    runner.close(later())
    assert calls == [True, 0, 1, 2, 3, 4]


def test_close_frees_whoever_waits_for_room(monkeypatch):
    """Who waits for room when the thread is closed goes on, and what is brought then still runs."""
    monkeypatch.setattr(callbacks, "MOST_WAITING", 1)
    runner, calls, begun, go = CallbackThread(), [], threading.Event(), threading.Event()
    runner.post(lambda: (begun.set(), go.wait(LONG)))
    assert begun.wait(LONG)
    runner.post(calls.append, "waiting")
    waiter = spawn("tester", runner.wait_for_room, later().remaining)
    runner.close(Deadline(0.0))
    assert gather([waiter], later()) == []
    runner.post(calls.append, "late")
    assert calls == ["late"]
    go.set()
    runner.close(later())
    assert calls == ["late", "waiting"]


# Watchdog


def watch(seconds, expired):
    """Make a wait with a clock of its own, which sets an event when it is ended."""
    clock = HandClock()
    return clock, Watched(Deadline(seconds, clock).remaining, expired.set)


def test_watchdog_expires():
    """A wait whose time is up is ended, once, and the thread goes when nothing is watched."""
    dog, calls, expired = Watchdog(), [], threading.Event()
    dog.add(Watched(lambda: 0.0, lambda: (calls.append(threading.current_thread()), expired.set())))
    assert expired.wait(LONG)
    calls[0].join(LONG)
    assert len(calls) == 1
    assert calls[0].daemon and calls[0].name.startswith("ensign-timer-")
    assert not calls[0].is_alive()


def test_watchdog_expires_in_time():
    """A wait of a moment is ended after it, though another one has an hour."""
    dog, soon, never = Watchdog(), threading.Event(), threading.Event()
    dog.add(Watched(Deadline(3600.0).remaining, never.set))
    dog.add(Watched(Deadline(0.02).remaining, soon.set))
    assert soon.wait(LONG)
    dog.close(later())
    assert not never.is_set()


def test_watchdog_sleeps_again():
    """After its thread has gone, the next wait starts another."""
    dog = Watchdog()
    for _ in range(3):
        expired = threading.Event()
        dog.add(Watched(lambda: 0.0, expired.set))
        assert expired.wait(LONG)
        dog.close(later())


def test_watchdog_removed():
    """A wait that was removed is not ended, though its time is up later; removing it again is nothing."""
    dog, removed, other = Watchdog(), threading.Event(), threading.Event()
    clock, watched = watch(5.0, removed)
    dog.add(watched)
    dog.remove(watched)
    dog.remove(watched)
    clock.at = 10.0
    dog.add(Watched(lambda: 0.0, other.set))
    assert other.wait(LONG)
    dog.close(later())
    assert not removed.is_set()


def test_watchdog_of_nobody_who_waits():
    """A wait that nobody waits in (None remains) is not ended."""
    dog, idle, other = Watchdog(), threading.Event(), threading.Event()
    dog.add(Watched(lambda: None, idle.set))
    dog.add(Watched(lambda: 0.0, other.set))
    assert other.wait(LONG)
    dog.close(later())
    assert not idle.is_set()


def test_watchdog_close():
    """Closing forgets everything without ending it, and the thread is gone; a second close is nothing."""
    dog, expired = Watchdog(), threading.Event()
    clock, watched = watch(5.0, expired)
    dog.add(watched)
    (thread,) = [one for one in threading.enumerate() if one.name.startswith("ensign-timer-")]
    dog.close(later())
    assert not thread.is_alive()
    clock.at = 10.0
    dog.close(Deadline(None))
    assert not expired.is_set()


def test_watchdog_from_expire():
    """What ends a wait may add, remove and close: it runs under no lock."""
    dog, ended = Watchdog(), threading.Event()
    watched = Watched(lambda: 0.0, lambda: (dog.remove(watched), dog.add(Watched(lambda: 0.0, ended.set))))
    dog.add(watched)
    assert ended.wait(LONG)
    dog.close(later())


def test_watchdog_survives_a_failure(caplog):
    """An end that raises is logged, and the other waits are still ended."""
    dog, ended = Watchdog(), threading.Event()
    dog.add(Watched(Deadline(3600.0).remaining, int))

    def fail():
        raise ValueError("boom")

    with caplog.at_level(logging.ERROR, "ensign_sync"):
        dog.add(Watched(lambda: 0.0, fail))
        dog.add(Watched(Deadline(0.02).remaining, ended.set))
        assert ended.wait(1.0)
        dog.close(later())
    assert "boom" in caplog.text
