"""Ctrl-C at every line of what users call."""

import sys

import pytest

from ensign_sync import EnsignError
from tests.contract.test_alone import step_aside
from tests.size import by_size


class Interrupter:
    """Raises KeyboardInterrupt at the nth line that this thread reaches of the package.

    Or at the entrance or exit of a Condition that is taken there: that of grpcio is interrupted by what came while
    grpcio worked.
    """

    def __init__(self, at):
        self.left = at
        self.struck = False

    def __call__(self, frame, event, arg):
        if not _ours(frame) and not (_ours(frame.f_back) and frame.f_code.co_name in ("__enter__", "__exit__")):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.struck = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    def run(self, function):
        """Call a function; returns what it raised, if anything."""
        sys.settrace(self)
        try:
            function()
        except BaseException as error:
            return error
        finally:
            sys.settrace(None)


def _ours(frame):
    return frame.f_globals.get("__name__", "").startswith("ensign_sync.")


CALLS = {
    "publish": lambda client, futures: client.publish("weather", [b"a", b"b", b"c"]),
    "publish one": lambda client, futures: client.publish("weather", b"a"),
    "submit": lambda client, futures: futures.append(client.submit("weather", b"a")),
    "publish_from": lambda client, futures: client.publish_from("weather", iter([b"a", b"b"])),
    "flush": lambda client, futures: client.flush(30),
    "close": lambda client, futures: client.close(30),
}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_interrupted_at_every_line(node, call, transport):
    """Wherever Ctrl-C strikes, afterwards every accepted event is settled, and the client works or closes."""
    step = by_size(7, 31, 3, 1)
    at, struck = 1, 0
    while True:
        futures = []
        client = node.client()
        try:
            client.publish("weather", b"first")
            if call == "publish one" and transport == "direct":
                step_aside(client)  # so that the interrupt also strikes a thread that reads
            else:
                futures += [client.submit("weather", b"s%d" % n) for n in range(3)]
            interrupter = Interrupter(at)
            error = interrupter.run(lambda c=client, f=futures: CALLS[call](c, f))
            if not interrupter.struck:
                assert error is None
                break
            struck += 1
            assert isinstance(error, (KeyboardInterrupt, EnsignError)), repr(error)
            if call != "close":
                client.publish("weather", b"after", timeout=30)
                client.flush(30)
                assert client.stats()["in_flight"] == 0
            client.close(30)
            for future in futures:
                assert future.done()
        finally:
            client.close(30)
        at += step
    print(f"{transport}, {call}: interrupted at {struck} of {at} lines")
    assert struck > 0


#: What a program does with a subscription that has events; each returns those that it got.
READS = {
    "get": lambda sub: [sub.get(30)],
    "next": lambda sub: [next(sub), next(sub)],
    "get_batch": lambda sub: sub.get_batch(3, 30),
    "ack": lambda sub: [_acked(sub.get(30))],
    "nack": lambda sub: [_nacked(sub.get(30))],
}


def _acked(event):
    event.ack()
    return event


def _nacked(event):
    event.nack()
    return event


@pytest.mark.parametrize("read", READS, ids=str)
def test_a_subscription_interrupted_at_every_line(node, read, transport):
    """Wherever Ctrl-C strikes, what did not get to the program comes next, once and in order."""
    step = by_size(7, 31, 3, 1)
    at, struck = 1, 0
    with node.client() as client:
        data = [b"%d" % n for n in range(10)]
        client.publish("weather", data)
        while True:
            with client.subscribe("weather", start="earliest") as sub:
                got = []
                interrupter = Interrupter(at)
                error = interrupter.run(lambda s=sub, g=got: g.extend(READS[read](s)))
                if not interrupter.struck:
                    assert error is None
                    break
                struck += 1
                assert isinstance(error, KeyboardInterrupt), repr(error)
                rest = []
                while not rest or rest[-1].data != data[-1]:
                    rest.append(sub.get(30))
                    rest[-1].ack()
                # The first of two had got to the program, which this one has thrown away; as had what was answered.
                assert [event.data for event in rest] in (data, data[1:] if read in ("next", "ack", "nack") else data)
            at += step
    print(f"{transport}, {read}: interrupted at {struck} of {at} lines")
    assert struck > 0


def test_closing_a_subscription_interrupted_at_every_line(node, transport):
    """It can be closed again, and so can its client."""
    step = by_size(7, 31, 3, 1)
    at, struck = 1, 0
    while True:
        with node.client() as client:
            client.publish("weather", b"x")
            sub = client.subscribe("weather", start="earliest")
            sub.get(30).ack()
            interrupter = Interrupter(at)
            error = interrupter.run(sub.close)
            sub.close()
            client.publish("weather", b"after")
            if not interrupter.struck:
                assert error is None
                break
            struck += 1
        at += step
    print(f"{transport}: interrupted at {struck} of {at} lines")
    assert struck > 0
