"""Outcomes and whoever waits for them."""

import concurrent.futures
import os
import threading
import weakref

import pytest

from ensign_sync.handover.clock import Clock, Patience
from ensign_sync.handover.receipt import Collector, PublishFuture

LONG = 20.0


def run(target, *args):
    """Start a thread that a test joins."""
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def join(*threads):
    """Join threads; none may be left."""
    for thread in threads:
        thread.join(LONG)
    assert not [thread for thread in threads if thread.is_alive()]


def inline(function, *args):
    """Post as no client does: here and now."""
    function(*args)


def future():
    """Make a future that takes outcomes as they are."""
    return PublishFuture(inline, lambda _, outcome: outcome, None)


# Collector


def test_collector_has_enough():
    """What is there already is not waited for."""
    collector = Collector()
    assert collector.wait(0, Patience(0.0, 0.0))
    collector.settle(3, "a")
    collector.settle(1, "b")
    assert collector.wait(1, Patience(0.0, 0.0))
    assert collector.wait(2, Patience(0.0, 0.0))
    assert list(collector.outcomes) == [(3, "a"), (1, "b")]


def test_collector_runs_out_of_patience():
    """When the time is over there is False, and what came stays."""
    collector = Collector()
    collector.settle(0, "a")
    assert not collector.wait(2, Patience(0.0, 0.0))
    assert not collector.wait(2, Patience(0.001, 0.0))
    collector.settle(1, "b")
    assert collector.wait(2, Patience(0.0, 0.0))


def test_collector_wakes():
    """The last outcome that is waited for wakes the waiting thread."""
    collector = Collector()
    results = []
    waiter = run(lambda: results.append(collector.wait(3, Patience(LONG, 0.0))))
    for index in range(3):
        assert not results
        collector.settle(index, None)
    join(waiter)
    assert results == [True]


def settle_many(collector, start, count):
    """Bring outcomes one by one."""
    for index in range(start, start + count):
        collector.settle(index, None)


@pytest.mark.parametrize("settlers", [1, 4])
def test_collector_loses_nothing(settlers):
    """Whoever settles when, the waiting thread gets every outcome and never sleeps over the last."""
    for _ in range(10):
        collector = Collector()
        threads = [run(settle_many, collector, number * 50, 50) for number in range(settlers)]
        for count in range(1, settlers * 50 + 1):
            assert collector.wait(count, Patience(LONG, 0.0))
        join(*threads)
        assert sorted(index for index, _ in collector.outcomes) == list(range(settlers * 50))


class Scripted(Clock):
    """A clock that shows what it is told to."""

    def __init__(self, at):
        self.at = at

    def now(self):
        return self.at


@pytest.mark.parametrize(("total", "at", "in_time"), [(None, 112.0, True), (None, 116.0, False), (10.0, 112.0, False)])
def test_collector_progress(total, at, in_time):
    """Patience that can be renewed counts from the last outcome, seen or not; a total counts from the call."""
    clock = Scripted(100.0)
    collector, patience = Collector(clock), Patience(total, 10.0, clock)
    clock.at = 105.0
    collector.settle(0, None)
    clock.at = at
    if in_time:
        waiter = run(collector.wait, 2, patience)
        collector.settle(1, None)
        join(waiter)
    else:
        assert not collector.wait(2, patience)


def test_collector_can_wait_again():
    """After a wait in vain the next one works."""
    collector = Collector()
    assert not collector.wait(1, Patience(0.001, 0.0))
    waiter = run(collector.wait, 1, Patience(LONG, 0.0))
    collector.settle(0, None)
    join(waiter)


# PublishFuture


def test_future_result():
    """The outcome is the result."""
    made = future()
    assert not made.done() and not made.running()
    made.settle(7, "ack")
    assert made.done()
    assert made.result() == made.result(timeout=0) == "ack"
    assert made.exception() is None


def test_future_exception():
    """An outcome that is an exception is raised."""
    made = future()
    error = ValueError("refused")
    made.settle(0, error)
    assert made.exception() is error
    with pytest.raises(ValueError, match="refused"):
        made.result()
    assert made.wait(0.0)


def test_future_converts():
    """The outcome is converted once, also into an exception."""
    made = PublishFuture(inline, lambda _, outcome: outcome * 2, None)
    made.settle(0, 21)
    assert made.result() == 42
    made = PublishFuture(inline, lambda _, outcome: KeyError(outcome), None)
    made.settle(0, "x")
    with pytest.raises(KeyError):
        made.result()


def test_future_cannot_be_cancelled():
    """An accepted event is on its way: cancel is False and changes nothing, before and after the outcome."""
    made = future()
    assert made.cancel() is False
    assert not made.cancelled() and not made.done()
    made.settle(0, "ack")
    assert made.cancel() is False
    assert made.result() == "ack"


def test_future_wait():
    """Waiting tells whether there is an outcome."""
    made = future()
    assert made.wait(0.0) is False
    assert made.wait(0.001) is False
    with pytest.raises(concurrent.futures.TimeoutError):
        made.result(0.0)
    waiter = run(made.result, LONG)
    made.settle(0, "ack")
    join(waiter)
    assert made.wait() is made.wait(0.0) is True


def test_future_outcome_that_is_a_timeout():
    """An event that failed with a timeout has an outcome."""
    made = future()
    made.settle(0, concurrent.futures.TimeoutError())
    assert made.wait(0.0) is True


def test_future_callbacks_are_posted():
    """Callbacks are handed to the poster, in order, with the future; none runs where the outcome is learned."""
    posted = []
    made = PublishFuture(lambda *call: posted.append(call), lambda _, outcome: outcome, None)
    calls = []
    made.add_done_callback(calls.append)
    made.add_done_callback(print)
    assert posted == []
    made.settle(0, "ack")
    assert posted == [(calls.append, made), (print, made)]
    assert calls == []


def test_future_callback_after_the_outcome():
    """A callback that comes late is posted at once."""
    made = future()
    made.settle(0, "ack")
    calls = []
    made.add_done_callback(calls.append)
    assert calls == [made]


def test_future_with_the_standard_library():
    """wait and as_completed of concurrent.futures take these futures."""
    futures = [future() for _ in range(3)]
    futures[1].settle(0, "b")
    done, pending = concurrent.futures.wait(futures, timeout=0, return_when=concurrent.futures.FIRST_COMPLETED)
    assert done == {futures[1]} and pending == {futures[0], futures[2]}
    settler = run(lambda: [made.settle(0, "x") for made in (futures[0], futures[2])])
    assert set(concurrent.futures.as_completed(futures, timeout=LONG)) == set(futures)
    join(settler)


def test_future_that_is_settled_while_somebody_begins_to_wait():
    """Whoever comes first, the waiting thread is woken and each callback is posted once."""
    for _ in range(300):
        made, calls = future(), []
        start = threading.Barrier(3)
        threads = [
            run(lambda f=made, b=start: (b.wait(), f.settle(0, "ack"))),
            run(lambda f=made, b=start: (b.wait(), f.result(LONG))),
            run(lambda f=made, b=start, c=calls: (b.wait(), f.add_done_callback(c.append))),
        ]
        join(*threads)
        assert made.result(0) == "ack"
        assert calls == [made]


def test_future_of_a_child_process():
    """A fork at the moment at which a future is settled does not stop those of the child."""
    PublishFuture._settling.acquire()
    try:
        child = os.fork()
        if child == 0:
            made = future()
            made.settle(0, "ack")
            os._exit(0 if made.result(0) == "ack" else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        PublishFuture._settling.release()


def test_future_lets_go_of_its_event():
    """A settled future does not keep what it was about, which would keep it."""
    subject = threading.Event()  # anything that can be referred to weakly
    made = PublishFuture(inline, lambda _, outcome: outcome, subject)
    seen = weakref.ref(subject)
    del subject
    made.settle(0, "ack")
    assert seen() is None
