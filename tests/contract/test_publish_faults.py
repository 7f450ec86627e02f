"""Publishing while everything that can break does; each fault has a control, which shows that it would be noticed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ensign_sync import EventTooLargeError, PublishError, PublishTimeoutError
from ensign_sync.streams import driver
from tests.load import LIMIT, THREADS, Load, strike, under_kills
from tests.proxy import far
from tests.size import by_size
from tests.waiting import eventually


class TestCuts:
    """Connections that are cut at random moments."""

    CUTS, EACH = by_size(10, 5, 40, 100), by_size(500, 250, 1_000, 2_500)

    def test_nothing_is_lost(self, node, proxy, transport):
        """Everything is acknowledged and stored in order; what is there twice was sent twice, and is counted."""
        with far(node, proxy) as client:
            load = Load(client, self.EACH)
            struck = strike(load, self.CUTS, lambda: proxy.cut_connections() > 0, 1)
            load.join()
            twice, stats = load.check(node), client.stats()
        assert not load.failed
        assert struck >= self.CUTS // 2
        assert twice <= stats["resent"]
        print(f"{transport}: {struck} cuts, {load.done} acknowledged, {stats['resent']} sent again, {twice} twice")

    @pytest.mark.ends
    def test_control(self, node, proxy, transport):
        """Without resending the same cuts fail events, each of which is named; still no ack is false."""
        with far(node, proxy, resend=False) as client:
            load = Load(client, self.EACH)
            struck = strike(load, self.CUTS, lambda: proxy.cut_connections() > 0, 1)
            load.join()
            assert load.check(node) == 0
        assert load.failed
        assert all(isinstance(error, PublishError) for error in load.failed)
        failed = sum(len(error.failures) for error in load.failed)
        assert 0 < failed <= self.EACH * THREADS - load.done
        print(f"{transport}: {struck} cuts failed {failed} events in {len(load.failed)} calls")


class TestKills:
    """A node that is killed and started again."""

    KILLS, EACH = by_size(2, 1, 4, 10), by_size(300, 150, 1_000, 2_500)

    def test_nothing_is_lost(self, tmp_path, transport):
        """What was acknowledged survived, the rest was sent again."""
        load, struck, twice, stats = under_kills(tmp_path, self.KILLS, self.EACH)
        assert not load.failed
        assert struck >= 1
        assert twice <= stats["resent"]
        print(f"{transport}: {struck} kills, {load.done} acknowledged, {stats['resent']} sent again, {twice} twice")

    @pytest.mark.ends
    def test_control(self, tmp_path, transport):
        """Without resending the same kills fail events."""
        load, struck, twice, _ = under_kills(tmp_path, self.KILLS, self.EACH, resend=False)
        assert load.failed
        assert twice == 0
        print(f"{transport}: {struck} kills failed {len(load.failed)} calls")


class TestBlackHole:
    """A network that swallows everything for a while."""

    SECONDS = by_size(1, 1, 3, 20)

    def test_nothing_is_lost(self, node, transport):
        """The events wait, and nothing is sent twice by itself."""
        with node.client(timeout=60) as client:
            load = Load(client, by_size(200, 100, 500, 2_500))
            eventually(lambda: load.done > 50, LIMIT)
            node.faults.black_hole(self.SECONDS)
            load.join()
            twice = load.check(node)
        assert not load.failed
        assert node.faults.struck["black_hole"] == 1
        print(f"{transport}: {self.SECONDS} s, {load.done} acknowledged, {twice} twice")

    @pytest.mark.ends
    def test_control(self, node, transport):
        """Whoever is less patient gets an error that says what became of each event."""
        with node.client() as client:
            client.publish("weather", b"0 0")
            node.faults.black_hole(self.SECONDS)
            with pytest.raises(PublishTimeoutError) as caught:
                client.publish("weather", [b"0 1", b"0 2"], timeout=0.2)
            assert [error.sent for _, _, error in caught.value.failures] == [True, True]
            client.publish("weather", b"0 3", timeout=60)
            client.close(LIMIT)
        assert b"0 3" in [event.data for event in node.events("weather")]


class TestUnanswered:
    """A server that does not answer when a stream is opened."""

    def test_it_is_opened_anew(self, node, proxy, monkeypatch):
        """After a while, and what waits is sent when it answers."""
        monkeypatch.setattr(driver, "OPENING_SECONDS", 0.2)
        with far(node, proxy) as client:
            client.publish("weather", b"first")
            proxy.black_hole()
            client._connection._publisher.start_over()  # over the connection that is there
            future = client.submit("weather", b"second")
            eventually(lambda: "did not answer" in str(client.stats()["last_error"]), LIMIT)
            proxy.black_hole(False)
            proxy.cut_connections()  # what was swallowed is lost
            future.result(LIMIT)
        assert [event.data for event in node.events("weather")] == [b"first", b"second"]


class TestStalledServer:
    """A server that takes nothing more."""

    def test_all_who_wait_wake_at_their_deadline(self, node, proxy):
        """Sixteen threads end with a clear error, and memory holds no more than the window."""
        with far(node, proxy, max_in_flight=64) as client:
            client.publish("weather", b"x")
            proxy.black_hole()
            errors = []

            def block(who):
                try:
                    if who % 2:
                        for _ in range(100):
                            client.submit("weather", bytes(1000), timeout=1.0)
                    else:
                        client.publish("weather", [bytes(1000)] * 100, timeout=1.0)
                except PublishTimeoutError as error:
                    errors.append(str(error))

            threads = [threading.Thread(target=block, args=(who,)) for who in range(16)]
            for thread in threads:
                thread.start()
            most = 0
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.01)
                    most = max(most, client.stats()["in_flight"])
            assert len(errors) == 16
            assert all("within 1 s" in error for error in errors)
            assert most <= 64
            proxy.black_hole(False)
            proxy.cut_connections()
            client.publish("weather", b"after", timeout=60)

    def test_the_window_in_bytes(self, node, proxy):
        """Few large events fill it too; one that is larger than the window goes alone."""
        with far(node, proxy, max_in_flight_bytes=100_000) as client:
            client.publish("weather", b"x")
            client.publish("weather", bytes(300_000))
            proxy.black_hole()
            with pytest.raises(PublishTimeoutError) as caught:
                client.publish("weather", [bytes(30_000)] * 20, timeout=0.5)
            assert sum(error.sent for _, _, error in caught.value.failures) == 4
            proxy.black_hole(False)
            proxy.cut_connections()

    def test_the_window_in_bytes_for_futures(self, node, proxy):
        """It holds for single events too."""
        with far(node, proxy, max_in_flight_bytes=100_000) as client:
            client.publish("weather", b"x")
            proxy.black_hole()
            for _ in range(4):
                client.submit("weather", bytes(30_000))
            with pytest.raises(PublishTimeoutError, match="no room"):
                client.submit("weather", bytes(30_000), timeout=0.2)
            assert client.stats()["in_flight"] == 4
            proxy.black_hole(False)
            proxy.cut_connections()


ENDS = {
    "end of file": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise RuntimeError('on purpose')", 1),
    # From 3.8 on Python ends as the signal would have ended it.
    "Ctrl-C": (
        "os.kill(os.getpid(), signal.SIGINT); signal.pause()",
        -signal.SIGINT if sys.version_info >= (3, 8) else 1,
    ),
    "SIGTERM": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
        4,
    ),
    "the client is forgotten": ("del client, futures", 0),
    "closed": ("client.close()", 0),
}


class TestEndsOfPrograms:
    """Whatever way a program ends, what it handed over is stored, and it ends soon."""

    @pytest.mark.parametrize("end", ENDS)
    def test_everything_is_stored(self, node, end):
        """A line that works takes all that was submitted, and the end does not wait for more."""
        text, expected = ENDS[end]
        program = f"""
import os, signal, sys
from ensign_sync import Ensign
client = Ensign()
client.publish("weather", b"0 0")
futures = [client.submit("weather", b"0 %d" % n) for n in range(1, 300)]
{text}
"""
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env={**os.environ, **node.env()},
            stderr=subprocess.PIPE,
            timeout=LIMIT,
        )
        assert time.monotonic() - began < 30
        assert ended.returncode == expected, ended.stderr.decode()
        assert b"unacknowledged" not in ended.stderr
        assert [int(event.data.split()[1]) for event in node.events("weather")] == list(range(300))


class TestLargeEvents:
    """Events beyond what a server takes."""

    LARGE = bytes(5 * 2**20)

    def test_refused_before_anything_is_sent(self, node, client):
        """Its caller hears of it; who publishes at the same time does not."""
        stop, others = threading.Event(), []

        def publish():
            while not stop.is_set():
                others.append(client.publish("weather", [b"x"] * 10))

        thread = threading.Thread(target=publish)
        thread.start()
        eventually(lambda: others)
        for call in (
            lambda: client.publish("weather", [b"good", self.LARGE, b"good"]),
            lambda: client.submit("weather", self.LARGE),
        ):
            with pytest.raises(EventTooLargeError):
                call()
        with pytest.raises(PublishError) as caught:
            client.publish_from("weather", iter([b"one", self.LARGE, b"two"]))
        assert caught.value.failures[0][0] == 1
        stop.set()
        thread.join(LIMIT)
        assert b"good" not in [event.data for event in node.events("weather")]
        assert all(None not in acks for acks in others)
        assert client.stats()["resent"] == 0

    def test_a_limit_that_is_too_high(self, node):
        """The one event that ends its stream fails, and only it; the others are stored, in order."""
        with node.client(channel_options=[("grpc.max_send_message_length", 8 * 2**20)]) as client:
            events = [b"%d" % n for n in range(50)]
            events[20] = self.LARGE
            with pytest.raises(PublishError) as caught:
                client.publish("weather", events, timeout=60)
            ((index, event, error),) = caught.value.failures
            assert (index, len(event.data)) == (20, len(self.LARGE))
            assert isinstance(error, EventTooLargeError)
            assert "RESOURCE_EXHAUSTED" in str(error.__cause__)
            assert [n for n, ack in enumerate(caught.value.acks) if ack is None] == [20]
            with pytest.raises(EventTooLargeError, match=str(8 * 2**20)):
                client.publish("weather", bytes(9 * 2**20))
        stored = list(dict.fromkeys(int(event.data) for event in node.events("weather")))
        assert stored == [n for n in range(50) if n != 20]
