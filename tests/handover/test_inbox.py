"""The queue between the thread that receives and those that consume."""

import sys
import threading

import pytest

from ensign_sync.handover.clock import Deadline
from ensign_sync.handover.inbox import Inbox, InboxClosed
from tests.waiting import eventually

LONG = 20.0
ONE_AT_A_TIME = threading.Lock()


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


def put(inbox, item, size, deadline):
    """Wait for room and put an item in, one thread at a time."""
    with ONE_AT_A_TIME:
        return inbox.wait_for_room(size, deadline=deadline) and inbox.put(item, size)


def at_once():
    """Return a deadline that has passed."""
    return Deadline(0.0)


def later():
    """Return a deadline that no good test reaches."""
    return Deadline(LONG)


def test_order():
    """Items come out in the order in which they went in."""
    inbox = Inbox(10, 1000)
    for item in "abc":
        assert inbox.put(item, 1)
    assert len(inbox) == 3
    assert [inbox.get() for _ in range(3)] == ["a", "b", "c"]
    assert len(inbox) == 0


def test_any_item():
    """None and other things without truth are items like any."""
    inbox = Inbox(10, 1000)
    for item in (None, 0, "", False):
        inbox.put(item, 0)
    assert inbox.get_many(10) == [None, 0, "", False]


def test_bounded_by_count():
    """There are never more items than allowed; taking one makes room for one."""
    inbox = Inbox(2, 1000)
    assert put(inbox, "a", 1, at_once()) and put(inbox, "b", 1, at_once())
    assert put(inbox, "c", 1, at_once()) is False
    assert len(inbox) == 2
    assert inbox.get() == "a"
    assert put(inbox, "c", 1, at_once())
    assert inbox.get_many(5) == ["b", "c"]


def test_bounded_by_bytes():
    """The sizes together never exceed the bound; it may be reached."""
    inbox = Inbox(100, 10)
    assert put(inbox, "a", 4, at_once()) and put(inbox, "b", 6, at_once())
    assert put(inbox, "c", 1, at_once()) is False
    assert put(inbox, "empty", 0, at_once())
    assert inbox.get() == "a"
    assert put(inbox, "c", 5, at_once()) is False
    assert put(inbox, "c", 4, at_once())


def test_oversized_item():
    """An item larger than the bound fits when the inbox is empty, and nothing beside it."""
    inbox = Inbox(100, 10)
    assert put(inbox, "small", 1, at_once())
    assert put(inbox, "huge", 11, at_once()) is False
    inbox.get()
    assert put(inbox, "huge", 11, at_once())
    assert put(inbox, "empty", 0, at_once()) is False
    assert inbox.get() == "huge"
    assert put(inbox, "small", 10, at_once())


def test_get_times_out():
    """An empty inbox is a TimeoutError when the deadline passes."""
    inbox = Inbox(1, 1)
    for deadline in (at_once(), Deadline(0.001)):
        with pytest.raises(TimeoutError):
            inbox.get(deadline)
    inbox.put("a", 1)
    assert inbox.get(at_once()) == "a"


def test_waiting_for_room_times_out():
    """A full inbox is False when the deadline passes; who does not wait puts in more than there is room for."""
    inbox = Inbox(1, 1)
    inbox.put("a", 1)
    assert put(inbox, "b", 1, Deadline(0.001)) is False
    assert inbox.get_many(5) == ["a"]


@pytest.mark.parametrize(("most", "expected"), [(0, []), (2, ["a", "b"]), (3, ["a", "b", "c"]), (99, ["a", "b", "c"])])
def test_get_many(most, expected):
    """As many as there are, up to a number, without waiting."""
    inbox = Inbox(10, 1000)
    for item in "abc":
        inbox.put(item, 1)
    assert inbox.get_many(most) == expected
    assert len(inbox) == 3 - len(expected)


def test_get_many_makes_room():
    """What is taken at once makes room for as much."""
    inbox = Inbox(3, 3)
    for item in "abc":
        inbox.put(item, 1)
    inbox.get_many(2)
    assert put(inbox, "d", 1, at_once()) and put(inbox, "e", 1, at_once())
    assert put(inbox, "f", 1, at_once()) is False


def test_close_drops():
    """After closing nothing goes in and nothing comes out; what was there is dropped."""
    inbox = Inbox(10, 1000)
    inbox.put("a", 1)
    assert not inbox.closed
    inbox.close()
    assert inbox.closed
    assert len(inbox) == 0
    assert inbox.put("b", 1) is False
    assert inbox.get_many(5) == []
    with pytest.raises(InboxClosed) as caught:
        inbox.get(at_once())
    assert caught.value.cause is None


def test_close_keeps():
    """Without dropping what is there can still be taken, and then the end comes with its cause."""
    inbox = Inbox(10, 1000)
    cause = ValueError("the reason")
    inbox.put("a", 1)
    inbox.put("b", 1)
    inbox.close(cause, drop=False)
    assert inbox.put("c", 1) is False
    assert inbox.get() == "a"
    assert inbox.get_many(5) == ["b"]
    with pytest.raises(InboxClosed) as caught:
        inbox.get()
    assert caught.value.cause is cause


def test_close_twice():
    """The first cause stays; a later close can still drop."""
    inbox = Inbox(10, 1000)
    first = ValueError("first")
    inbox.put("a", 1)
    inbox.close(first, drop=False)
    inbox.close(ValueError("second"), drop=True)
    with pytest.raises(InboxClosed) as caught:
        inbox.get()
    assert caught.value.cause is first


def test_put_wakes_a_getter():
    """A waiting consumer gets what comes."""
    inbox = Inbox(10, 1000)
    taken = []
    getter = run(lambda: taken.append(inbox.get(later())))
    inbox.put("a", 1)
    join(getter)
    assert taken == ["a"]


def test_get_wakes_a_putter():
    """A waiting producer goes on when there is room, by count and by bytes."""
    for inbox, first, second in ((Inbox(1, 1000), 1, 1), (Inbox(100, 10), 10, 10)):
        inbox.put("a", first)
        stored = []
        putter = run(lambda box, size, into: into.append(put(box, "b", size, later())), inbox, second, stored)
        assert inbox.get() == "a"
        join(putter)
        assert stored == [True]
        assert inbox.get(at_once()) == "b"


def test_close_wakes_everybody():
    """Closing ends every wait: consumers with the cause, producers with False."""
    cause = ValueError("the reason")
    empty, full = Inbox(1, 1), Inbox(1, 1)
    full.put("a", 1)
    ended = []

    def consume():
        try:
            empty.get()
        except InboxClosed as closed:
            ended.append(closed.cause)

    threads = [run(consume) for _ in range(3)]
    threads += [run(lambda: ended.append(put(full, "b", 1, later()))) for _ in range(3)]
    empty.close(cause)
    full.close(cause, drop=False)
    join(*threads)
    assert sorted(map(repr, ended)) == sorted(map(repr, [cause] * 3 + [False] * 3))
    assert full.get_many(5) == ["a"]


@pytest.mark.parametrize(("max_items", "max_bytes"), [(1, 1000), (7, 1000), (1000, 10)])
def test_many_consumers(max_items, max_bytes):
    """With many consumers each item is taken once, each consumer sees them in order, and the bounds hold."""
    inbox = Inbox(max_items, max_bytes)
    taken = [[] for _ in range(6)]
    lengths = []

    def consume(into):
        while True:
            try:
                into.append(inbox.get(later()))
            except InboxClosed:
                return
            into.extend(inbox.get_many(2))

    threads = [run(consume, into) for into in taken]
    for number in range(400):
        assert put(inbox, number, number % 5, later())
        lengths.append(len(inbox))
    inbox.close(drop=False)
    join(*threads)
    assert sorted(number for into in taken for number in into) == list(range(400))
    assert all(into == sorted(into) for into in taken)
    assert max(lengths) <= max_items


def test_many_producers():
    """Several producers lose nothing either, and the order of each is kept."""
    inbox = Inbox(3, 100)
    threads = [run(lambda who: [put(inbox, (who, i), 1, later()) for i in range(100)], who) for who in range(4)]
    taken = [inbox.get(later()) for _ in range(400)]
    join(*threads)
    for who in range(4):
        assert [i for producer, i in taken if producer == who] == list(range(100))


class TestInterrupts:
    """Ctrl-C at any line of a thread that takes, while another takes too."""

    @pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "at once"])
    def test_nothing_is_lost_and_nobody_forgotten(self, waiting):
        """Every item goes to one of them, once; who was not interrupted is woken by what comes."""
        at, struck = 0, True
        while struck:
            at += 1
            inbox, got = Inbox(10, 1000), []
            other = threading.Thread(target=lambda i=inbox, g=got: g.extend((i.get(), i.get())), daemon=True)
            interrupted = Interrupted(inbox, at)
            steps = [lambda i=inbox: [i.put(item, 1) for item in range(4)], interrupted.start, other.start]
            for step in reversed(steps) if waiting else steps:
                step()
                if waiting and step is not steps[0]:
                    eventually(lambda i=inbox, t=interrupted: i._takers or t.struck)
            join(interrupted, other)
            rest = [inbox.get(Deadline(0.0)) for _ in range(len(inbox))]
            assert sorted(interrupted.got + got + rest) == [0, 1, 2, 3], f"line {at}"
            assert inbox._bytes_in == inbox._bytes_out
            assert not inbox._takers
            struck = interrupted.struck
        assert at > 5


class Interrupted(threading.Thread):
    """Takes an item, is interrupted at a line of the inbox, and puts back what it had."""

    def __init__(self, inbox, at):
        super().__init__(daemon=True)
        self.got, self.struck = [], False
        self._inbox, self._left = inbox, at

    def run(self):
        hand = []
        sys.settrace(self._trace)
        try:
            item = self._inbox.get(None, hand)
            sys.settrace(None)
            self.got.append(item)
        except KeyboardInterrupt:
            self._inbox.put_back(hand)

    def _trace(self, frame, event, arg):
        if frame.f_globals.get("__name__") != "ensign_sync.handover.inbox":
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.struck = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace
