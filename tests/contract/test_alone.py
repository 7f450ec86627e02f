"""Publishing one event after the other: whoever does reads the answers itself, and the reader thread steps aside."""

import os
import signal
import threading
import time

import pytest

from ensign_sync import EnsignTimeoutError, NackError, PublishError, PublishTimeoutError
from ensign_sync.transport import choice
from tests.proxy import far
from tests.size import by_size
from tests.waiting import eventually

LIMIT = 60.0


@pytest.fixture
def client(node, proxy):
    """A client behind that network, whose reader thread has stepped aside."""
    with far(node, proxy) as connected:
        step_aside(connected)
        yield connected


def driver(client):
    """Return what drives the publish stream."""
    return client._connection.publisher()._driver


def reads(client):
    """Return how often threads have read for themselves on the present connection."""
    turn = driver(client)._turn
    return turn.reads if turn is not None else 0


def step_aside(client):
    """Publish until the calling thread reads."""

    def reads_itself():
        before = client._connection and reads(client)
        client.publish("weather", b"alone")
        return before is not None and reads(client) > before

    eventually(reads_itself)


class Publishing(threading.Thread):
    """Publishes one event on a thread, and keeps what it raised."""

    def __init__(self, client, **options):
        super().__init__()
        self._publish = lambda: client.publish("weather", b"in the thread", **options)
        self.error = None
        self.start()

    def run(self):
        """Publish."""
        try:
            self._publish()
        except Exception as error:
            self.error = error

    def end(self):
        """Wait for the end; returns the error."""
        self.join(LIMIT)
        assert not self.is_alive(), "publish hangs"
        return self.error


def test_the_caller_reads(client):
    """Every call reads its own answer; when nobody publishes any more, the reader thread comes back."""
    before = reads(client)
    for _ in range(20):
        client.publish("weather", b"x")
    assert reads(client) >= before + 15  # a machine that stands still for long lets the reader thread come back
    eventually(lambda: not driver(client).aside)
    client.publish("weather", b"y")
    step_aside(client)


def test_a_silent_server(client, proxy):
    """Whoever reads ends at its deadline, is told that the event may be stored, and the client goes on."""
    proxy.black_hole()
    began = time.monotonic()
    with pytest.raises(PublishTimeoutError) as caught:
        client.publish("weather", b"x", timeout=0.5)
    assert time.monotonic() - began < 20
    assert caught.value.failures[0][2].sent
    proxy.black_hole(False)
    proxy.cut_connections()  # what was swallowed does not come again
    client.publish("weather", b"y", timeout=LIMIT)
    step_aside(client)


def test_a_connection_that_is_cut(client, proxy, node):
    """The event is sent again on the next connection, which the reader thread makes."""
    proxy.black_hole()
    publishing = Publishing(client)
    eventually(lambda: driver(client)._turn.reader)
    proxy.black_hole(False)
    proxy.cut_connections()
    assert publishing.end() is None
    assert node.events("weather")[-1].data == b"in the thread"
    assert client.stats()["reconnects"] == 1


def test_a_client_that_is_closed(client, proxy):
    """close() on another thread ends the call, which says that the event may be stored."""
    proxy.black_hole()
    publishing = Publishing(client)
    eventually(lambda: driver(client)._turn.reader)
    client.close(0.2)
    error = publishing.end()
    assert isinstance(error, PublishError)
    assert [failure.sent for _, _, failure in error.failures] == [True]


def test_ctrl_c(client, proxy):
    """It comes out although nothing arrives, and the client can be used."""
    proxy.black_hole()
    interrupter = threading.Thread(
        target=lambda: (eventually(lambda: driver(client)._turn.reader), os.kill(os.getpid(), signal.SIGINT))
    )
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        client.publish("weather", b"x")
    interrupter.join(LIMIT)
    proxy.black_hole(False)
    proxy.cut_connections()
    client.publish("weather", b"y", timeout=LIMIT)
    assert client.stats()["in_flight"] == 0


def test_an_event_that_is_refused(client, node):
    """What is no ack is left to the reader thread."""
    node.faults.nack_next(1)
    with pytest.raises(NackError):
        client.publish("weather", b"x")
    step_aside(client)


def test_nonsense_from_the_server(client, monkeypatch):
    """The reader thread handles it as it would its own: the stream fails, and the next call makes another."""
    turn = driver(client)._turn
    whole = turn.messages

    def spoiled():
        yield b"\xff\xff"
        yield from whole

    monkeypatch.setattr(turn, "messages", spoiled())
    with pytest.raises(PublishError, match="DecodeError"):
        client.publish("weather", b"x", timeout=LIMIT)
    step_aside(client)


def test_no_time_at_all(client):
    """Whoever does not wait at all is told at once that the event may be stored."""
    with pytest.raises(PublishTimeoutError):
        client.publish("weather", b"x", timeout=0)
    client.publish("weather", b"y", timeout=LIMIT)


class TestSignalHandlers:
    """They run on the main thread, in the middle of its read."""

    @pytest.fixture(autouse=True)
    def slow(self, node):
        """Keep the acks back, so that a signal arrives while one is waited for."""
        node.faults.delay_acks(0.05)

    def strike(self, client, handler):
        """Have a signal arrive while the main thread reads; it publishes until then, and returns what that raised."""
        struck = []

        def handle(*_):
            struck.append(None)
            handler()

        before = signal.signal(signal.SIGUSR1, handle)
        sender = threading.Thread(
            target=lambda: (eventually(lambda: driver(client)._turn.reader), os.kill(os.getpid(), signal.SIGUSR1))
        )
        sender.start()
        try:
            while not struck:
                client.publish("weather", b"x", timeout=LIMIT)
        except Exception as error:
            return error
        finally:
            sender.join(LIMIT)
            signal.signal(signal.SIGUSR1, before)
        return None

    @pytest.mark.parametrize("call", ["publish", "submit", "flush"])
    def test_a_handler_that_uses_the_client(self, client, call):
        """It gets what it waits for, on another connection, and so does the call that it interrupted."""
        calls = {
            "publish": lambda: client.publish("weather", b"y", timeout=20),
            "submit": lambda: client.submit("weather", b"y", timeout=20).result(20),
            "flush": lambda: client.flush(20),
        }
        assert self.strike(client, calls[call]) is None
        client.publish("weather", b"z", timeout=LIMIT)
        assert client.stats()["in_flight"] == 0

    def test_a_handler_that_closes_the_client(self, client, node, caplog):
        """Nothing is given up, although the thread that read does not go on before the client is closed."""
        error = self.strike(client, lambda: client.close(20))
        assert error is None or "closed" in str(error)
        assert not caplog.records or "unacknowledged" not in caplog.text
        assert node.events("weather")

    @pytest.mark.parametrize("kind", [RuntimeError, EnsignTimeoutError, KeyError, ValueError, TypeError])
    def test_a_handler_that_raises(self, client, kind):
        """Its exception comes out as it is, of whatever type, and the client can be used."""

        def handler():
            raise kind("from the handler")

        error = self.strike(client, handler)
        assert type(error) is kind and "from the handler" in str(error)
        assert choice._given_up is None
        client.publish("weather", b"z", timeout=LIMIT)
        assert client.stats()["in_flight"] == 0


def test_a_wheel_that_an_interrupt_left_locked(client):
    """The reader thread gives that connection up."""
    assert driver(client)._turn.wheel.acquire(timeout=LIMIT)
    client.publish("weather", b"x", timeout=LIMIT)
    step_aside(client)


def test_among_others(node, client):
    """Threads that publish one by one, in lists and by futures do not hinder each other; each finds its own order."""
    each = by_size(50, 50, 300, 2_000)

    def alone(who):
        for n in range(each):
            client.publish("weather", b"%d %d" % (who, n))

    def lists(who):
        for n in range(0, each, 5):
            client.publish("weather", [b"%d %d" % (who, n + i) for i in range(5)])

    def futures(who):
        for future in [client.submit("weather", b"%d %d" % (who, n)) for n in range(each)]:
            future.result(LIMIT)

    works = [alone, alone, alone, lists, futures]
    threads = [threading.Thread(target=work, args=(who,)) for who, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    stored = [event.data.split() for event in node.events("weather") if event.data != b"alone"]
    for who in range(len(works)):
        assert [int(number) for owner, number in stored if int(owner) == who] == list(range(each))
    step_aside(client)


def test_a_submit_while_another_reads(client, proxy):
    """The reader thread comes back for a future, whose answer another thread might read and has no use for."""
    for _ in range(by_size(5, 5, 20, 100)):
        step_aside(client)
        proxy.black_hole()
        publishing = Publishing(client)
        eventually(lambda: driver(client)._turn.reader)
        future = client.submit("weather", b"submitted")
        proxy.black_hole(False)
        proxy.cut_connections()
        assert future.result(LIMIT)
        assert publishing.end() is None
