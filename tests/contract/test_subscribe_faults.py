"""A subscription while everything that can break does: no holes, nothing twice, in order.

Each fault has a control: the same with the reading of the log switched off, which shows that it would be noticed.
"""

import functools
import os
import queue
import random
import resource
import signal
import subprocess
import sys
import threading

import pytest

from ensign_sync.node import Node
from ensign_sync.protocol.catchup import OVERHEAD, CatchUp
from ensign_sync.streams import healing
from ensign_sync.streams.connection import Connection
from tests.load import LIMIT, Load, strike
from tests.size import by_size
from tests.waiting import eventually

EVENTS = by_size(2_000, 1_000, 2_000, 20_000)


@pytest.fixture
def unhealed(monkeypatch):
    """Switch the reading of the log off."""
    monkeypatch.setattr(Connection, "_heal", lambda *args: None)


@pytest.fixture
def holds_little(monkeypatch):
    """Have subscriptions hold little of what arrives while the log is read, so that it shows in the buffer."""
    monkeypatch.setattr(healing, "CatchUp", functools.partial(CatchUp, most_held=HELD * (OVERHEAD + PAYLOAD)))


#: The largest payload of these events, and how many of those are held then.
PAYLOAD, HELD = 2_100, 20


class Consumer(threading.Thread):
    """Reads a subscription on a thread, and keeps the ids of what it had."""

    def __init__(self, subscription, pause=None):
        super().__init__(daemon=True)
        self.subscription, self._pause = subscription, pause
        self.had, self.gaps = [], []
        self.start()

    def run(self):
        for event in self.subscription:
            self.had.append(bytes(event.id))
            if self._pause is not None:
                self._pause(len(self.had))

    def check(self, node, topic="weather"):
        """Wait until everything is here that the log has; it is, once, in order."""
        log = [event.id.bytes for event in node.events(topic)]
        try:
            eventually(lambda: len(self.had) >= len(log), LIMIT)
        finally:
            missing = len(set(log) - set(self.had))
            print(f"{len(log)} in the log, {len(self.had)} delivered, {missing} missing, {self.subscription.stats()}")
        with node.client() as client:  # and nothing comes between that and the next event
            client.publish(topic, b"the last")
        log = [event.id.bytes for event in node.events(topic)]
        eventually(lambda: len(self.had) >= len(log), LIMIT)
        assert self.had == log

    def holes(self, node, topic="weather"):
        """Wait until nothing more comes; returns how much of the log is not here."""
        with pytest.raises(AssertionError):
            eventually(lambda: len(self.had) >= len(node.events(topic)), 2.0)
        return len({event.id.bytes for event in node.events(topic)} - set(self.had))


def subscribed(node, **options):
    """Return a client, and a consumer of a subscription from the beginning."""
    client = node.client()
    return client, Consumer(client.subscribe("weather", start="earliest", **options))


def each():
    """Return how many events each thread publishes."""
    return EVENTS // 4


class TestCuts:
    """Connections that are cut at random moments."""

    CUTS = by_size(10, 5, 20, 100)

    def test_no_holes(self, node, transport):
        """Whatever the stream misses while it is down is there, in its place."""
        struck, consumer = self.live_through(node)
        consumer.check(node)
        print(f"{transport}: {struck} cuts")
        assert struck >= self.CUTS // 2

    @pytest.mark.ends
    def test_control(self, node, unhealed):
        """Without the log there are holes."""
        _, consumer = self.live_through(node)
        assert consumer.holes(node) > 0

    def live_through(self, node):
        """Publish while connections are cut."""
        reader, consumer = subscribed(node)
        with node.client() as client:
            load = Load(client, each(), 7)
            struck = strike(load, self.CUTS, lambda: node.faults.drop_connections() > 0, 3)
            load.join()
        self.closing = reader
        return struck, consumer

    def teardown_method(self):
        """Close the client that was left open."""
        self.closing.close()


class TestKills:
    """A server that is killed and started again."""

    KILLS = by_size(2, 1, 3, 10)

    def test_no_holes(self, tmp_path, transport):
        """The subscription goes on where it was."""
        with Node(str(tmp_path / "log.db"), topics=["weather"]) as node:
            reader, consumer = subscribed(node)
            with reader, node.client() as client:
                load = Load(client, each(), 8)
                struck = strike(load, self.KILLS, lambda: self.kill(node), 4)
                load.join()
                consumer.check(node)
        print(f"{transport}: {struck} kills")
        assert struck >= 1

    @pytest.mark.ends
    def test_control(self, tmp_path, unhealed):
        """Without the log there are holes."""
        with Node(str(tmp_path / "log.db"), topics=["weather"]) as node:
            reader, consumer = subscribed(node)
            with reader, node.client() as client:
                client.publish("weather", b"before")
                self.kill(node)
                node.faults.unregister_window(1.0)  # so that what follows falls into the time before it is back
                client.publish("weather", [b"%d" % n for n in range(100)])
                assert consumer.holes(node) > 0

    def kill(self, node):
        """Kill it and start it again."""
        node.faults.kill()
        node.restart()


class TestWindow:
    """A server that does not know a subscriber yet for a while after it has said Ready."""

    CUTS = by_size(3, 2, 5, 30)

    def test_no_holes(self, node, transport):
        """What passes in that window is read from the log, also when nothing comes after it."""
        node.faults.unregister_window(by_size(200, 200, 500, 1000) / 1000)
        reader, consumer = subscribed(node)
        with reader, node.client() as client:
            load = Load(client, each(), 9)
            strike(load, self.CUTS, lambda: node.faults.drop_connections() > 0, 5)
            load.join()
            consumer.check(node)
        print(f"{transport}: {node.faults.struck}")
        assert node.faults.struck["unregister_window"] >= 1

    @pytest.mark.ends
    def test_control(self, node, unhealed):
        """Without the log there are holes."""
        node.faults.unregister_window(0.5)
        reader, consumer = subscribed(node)
        with reader, node.client() as client:
            client.publish("weather", [b"%d" % n for n in range(100)])
            assert consumer.holes(node) == 100


class TestSlowReader:
    """A program that does not read for a while."""

    SIZE = by_size(3_000, 3_000, 5_000, 40_000)

    @pytest.mark.parametrize("size", [1, 100, 1000])
    def test_a_small_buffer(self, node, transport, size, holds_little):
        """What does not fit is read from the log when there is room; memory does not hold it meanwhile."""
        go_on = threading.Event()
        reader, consumer = subscribed(node, max_buffered=size)
        consumer._pause = lambda number: number > 5 or go_on.wait(LIMIT)
        with reader, node.client() as client:
            client.publish("weather", [b"%d" % n for n in range(self.SIZE)])
            assert len(consumer.had) <= 5
            # Small events take little more than what each is counted with besides its payload. At the end of a query
            # what was held goes into the buffer as a whole.
            most_held = HELD * (OVERHEAD + PAYLOAD) // OVERHEAD
            assert consumer.subscription.stats()["buffered"] <= size + most_held + 2 < self.SIZE
            go_on.set()
            consumer.check(node)

    @pytest.mark.ends
    def test_a_program_that_stands_still(self, transport):
        """Stopped as a whole it lets the server's buffer overflow, which drops events and says nothing."""
        count = by_size(50_000, 50_000, 50_000, 80_000)
        with Node(topics=["weather"], process=True) as node:
            program = Program(node, transport)
            try:
                with node.client() as client:
                    client.publish("weather", b"first")
                    program.wait_for(1)
                    program.stop()
                    for start in range(0, count, 10_000):
                        client.publish("weather", [b"%d %s" % (n, b"x" * 200) for n in range(start, start + 10_000)])
                    program.go_on()
                    client.publish("weather", b"last")
                program.wait_for(count + 2)
                dropped = program.finish(node)
            finally:
                program.end()
        print(f"{transport}: {dropped} were not delivered live")
        assert dropped > 0


class Program:
    """A program in a process of its own that reads a subscription and prints how many events it had."""

    TEXT = """
import sys
from ensign_sync import Ensign
client = Ensign()
had = []
with client.subscribe("weather", start="earliest") as events:
    print("ready", flush=True)
    for event in events:
        had.append(str(event.id))
        if len(had) % 1000 == 1 or len(had) > int(sys.argv[1]) - 5:
            print(len(had), flush=True)
        if len(had) == int(sys.argv[1]):
            break
    print("live", events.stats()["received"], flush=True)
print(*had, flush=True)
client.close()
"""

    def __init__(self, node, transport):
        count = by_size(50_000, 50_000, 50_000, 80_000) + 2
        env = {**os.environ, **node.env(), "ENSIGN_SYNC_TRANSPORT": transport}
        arguments = [sys.executable, "-c", self.TEXT, str(count)]
        self._process = subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, universal_newlines=True)
        assert self._process.stdout.readline() == "ready\n"

    def wait_for(self, count):
        """Wait until it had so many events."""
        while int(self._process.stdout.readline()) < count:
            continue

    def stop(self):
        """Have it stand still."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        """Have it go on."""
        self._process.send_signal(signal.SIGCONT)

    def finish(self, node):
        """Check what it had; returns how much of that did not come live."""
        live = int(self._process.stdout.readline().split()[1])
        had = self._process.stdout.readline().split()
        log = [str(event.id) for event in node.events("weather")]
        assert had == log
        assert self._process.wait(LIMIT) == 0
        return len(log) - live

    def end(self):
        """Be done with it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()


class TestEverything:
    """All of it at once."""

    STRIKES = by_size(10, 5, 20, 100)

    def test_no_holes(self, tmp_path, transport):
        """Cuts, kills, closed streams, a window, expired tokens and a slow reader."""
        with self.node(tmp_path) as node:
            reader, consumer = self.slowly(node)
            with reader, node.client() as client:
                struck = self.live_through(node, client)
                consumer.check(node)
        print(f"{transport}: {struck}")

    @pytest.mark.ends
    def test_control(self, tmp_path, unhealed):
        """Without the log there are holes."""
        with self.node(tmp_path) as node:
            reader, consumer = self.slowly(node)
            with reader, node.client() as client:
                self.live_through(node, client)
                assert consumer.holes(node) > 0

    @pytest.mark.ends
    def test_a_clock_that_steps(self, tmp_path, transport):
        """With steps of the server's clock, forward and back, everything is there once; the order is another."""
        with self.node(tmp_path) as node:
            reader, consumer = self.slowly(node)
            with reader, node.client() as client:
                rng = random.Random(14)
                struck = self.live_through(node, client, lambda: node.faults.step_clock(rng.uniform(-0.1, 0.1)))
                log = [event.id.bytes for event in node.events("weather")]
                eventually(lambda: len(consumer.had) >= len(log), LIMIT)
                assert sorted(consumer.had) == log
        print(f"{transport}: {struck}")

    @pytest.mark.ends
    def test_a_group(self, tmp_path, transport):
        """The members of a consumer group that the server keeps have everything between them, with two that leave."""
        with self.node(tmp_path, strict=False, faults=True) as node:
            members = [node.client() for _ in range(4)]
            had = [Consumer(m.subscribe("weather", start="earliest", consumer_group="g")) for m in members]
            with node.client() as client:
                struck = self.live_through(node, client)
                for member in members[:2]:
                    member.close()
                log = {event.id.bytes for event in node.events("weather")}
                eventually(lambda: set().union(*(one.had for one in had)) >= log, LIMIT)
            for member in members:
                member.close()
        each_had = [len(one.had) for one in had]
        print(f"{transport}: {struck}, {len(log)} events, {each_had} delivered")
        assert all(each_had)

    def node(self, tmp_path, **options):
        """Return a node with a file."""
        return Node(str(tmp_path / "log.db"), topics=["weather", "other"], **options)

    def slowly(self, node):
        """Return a client, and a consumer that stops now and then."""
        reader, consumer = subscribed(node, max_buffered=50)
        consumer._pause = lambda number: threading.Event().wait(0.2) if number % 500 == 0 else None
        return reader, consumer

    def live_through(self, node, client, *more):
        """Publish while all of it strikes; returns how often what did."""
        rng, kills = random.Random(11), []

        def kill():
            kills.append(1)
            node.faults.kill()
            node.restart()
            node.faults.unregister_window(0.05)

        faults = [
            node.faults.drop_connections,
            node.faults.close_streams,
            node.faults.expire_tokens,
            lambda: node.faults.refuse(0.1),
            lambda: node.faults.black_hole(0.1),
            kill,
            *more,
        ]
        node.faults.unregister_window(0.05)
        order = [fault for _ in range(self.STRIKES // len(faults) + 1) for fault in rng.sample(faults, len(faults))]
        load = Load(client, each(), 12)
        struck = strike(load, self.STRIKES, lambda: order.pop()(), 13)
        load.join()
        assert struck >= self.STRIKES // 2
        return f"{struck} strikes, {len(kills)} kills, {node.faults.struck}"


class TestSteps:
    """A clock of the server that steps back."""

    def test_everything_once(self, node, transport):
        """What was put in before what had been read is there too, once; only the order is that of the arrival."""
        reader, consumer = subscribed(node)
        with reader, node.client() as client:
            for n in range(by_size(4, 3, 10, 30)):
                client.publish("weather", [b"%d" % n for n in range(200)])
                node.faults.step_clock(-0.05 if n % 2 else 0.05)
                client.publish("weather", [b"%d" % n for n in range(50)])
                if n % 3 == 2:
                    node.faults.drop_connections()
            log = [event.id.bytes for event in node.events("weather")]
            eventually(lambda: len(consumer.had) >= len(log), LIMIT)
            assert sorted(consumer.had) == log


@pytest.mark.ends
def test_memory(node, transport, holds_little):
    """A reader that is slower than a firehose stays in bounded memory."""
    count = by_size(10_000, 10_000, 10_000, 200_000)
    payload = b"x" * 2_000
    reader, consumer = subscribed(node, max_buffered=100)
    go_on = threading.Event()
    consumer._pause = lambda number: number > 5 or go_on.wait(LIMIT)
    with reader, node.client() as client:
        client.publish("weather", [payload] * 1_000)
        before = consumer.subscription.stats()["buffered"]
        client.publish_from("weather", (payload for _ in range(count)))
        held = consumer.subscription._stream.healing._machine._held_bytes
        print(f"{before} buffered before, {held} bytes held, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KiB")
        assert held <= HELD * (OVERHEAD + PAYLOAD)
        assert consumer.subscription.stats()["buffered"] <= 100 + HELD + 2 < count
        go_on.set()


def has_looked(catching_up):
    """Tell whether nothing more is going to be asked of the log."""
    with catching_up._lock:
        return catching_up._idle.told == 2 and catching_up._healer._thread is None


@pytest.mark.ends
def test_an_idle_subscription(node):
    """Nothing is asked of the log after the two looks, nor anything done that takes time of a processor."""
    with node.client() as client, client.subscribe("weather", start="latest") as sub:
        eventually(lambda: has_looked(sub._stream.healing), 30)
        reads, used = sub.stats()["reads"], sum(os.times()[:2])
        with pytest.raises(queue.Empty):
            sub.get(3.0)
        assert sub.stats()["reads"] == reads
        assert sum(os.times()[:2]) - used < 0.15  # the node's threads included; ten times what it takes
