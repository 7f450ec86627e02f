"""How much a node keeps, what reading from a position costs, and how soon a node with many events is there."""

import contextlib
import os
import sqlite3
import threading
import time

import pytest

from ensign_sync import QueryNoRows
from ensign_sync.ids import ULID
from ensign_sync.node import Node
from ensign_sync.node.retention import Retention
from ensign_sync.node.storage import Log, StoredEvent
from ensign_sync.protocol import frames
from ensign_sync.wire import codec
from tests.node import ledger
from tests.size import by_size
from tests.waiting import eventually

pytestmark = pytest.mark.ends

MB = 10**6
ROWS = 200_000
#: A node looks at what is too much once a second, so a second of publishing, twice, may be there beyond the limit.
SLACK = 2.0


def data_of(client, query):
    """Return the data of the rows of a query."""
    try:
        return [row.data.decode() for row in client.query(query)]
    except QueryNoRows:
        return []


def extents(path):
    """Return what the topics of a file have, by name: the first position, the next one, and the bytes."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        rows = connection.execute("SELECT name, first, end, bytes FROM topics").fetchall()
    return {name: tuple(extent) for name, *extent in rows}


def assert_consistent(path):
    """What is said about each topic is what is there: no hole from the first position on, and the right bytes."""
    said, there = extents(path), ledger.read(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        sizes = dict(
            connection.execute(
                "SELECT name, ifnull((SELECT sum(length(wrapper)) FROM events"
                " WHERE key >= number << 40 AND key < number + 1 << 40), 0) FROM topics"
            ).fetchall()
        )
    for name, (first, end, size) in said.items():
        assert [row.position for row in there[name]] == list(range(first, end))
        assert size == sizes[name]
    assert ledger.integrity(path) == "ok"


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "friendly"])
def test_events_beyond_an_age_go(strict, tmp_path):
    """The oldest go, positions stay: OFFSET means the same event as before, below the first it means the first."""
    path = str(tmp_path / "data.db")
    with Node(path, topics=["one", "two", "empty"], strict=strict, retain="60s") as node, node.client() as client:
        for topic in ("one", "two"):
            client.publish(topic, [f"p {n}" for n in range(1_200)])
        node.faults.step_clock(3600)
        client.publish("one", [f"p {n}" for n in range(1_200, 1_210)])
        eventually(lambda: extents(path)["one"][:2] == (1_200, 1_210) and extents(path)["two"][:2] == (1_200, 1_200))
        kept = [f"p {n}" for n in range(1_200, 1_210)]
        for offset, expected in ((0, kept), (17, kept), (1_200, kept), (1_203, kept[3:]), (1_209, kept[9:])):
            assert data_of(client, f"SELECT * FROM one OFFSET {offset}") == expected
        assert len(node.events("one")) == len(node.wait_for("one", 10)) == 10
        for query in ("SELECT * FROM one OFFSET 1210", "SELECT * FROM two", "SELECT * FROM empty"):
            assert data_of(client, query) == []
        client.publish("two", "p 1200")
        assert data_of(client, "SELECT * FROM two OFFSET 1200") == ["p 1200"]
        assert client.info().events == 11
    with Node(path, strict=strict) as node, node.client() as client:
        assert data_of(client, "SELECT * FROM one OFFSET 1203") == kept[3:], "also after a restart"
        client.publish("one", "p 1210")
        assert data_of(client, "SELECT * FROM one OFFSET 1210") == ["p 1210"]
    assert_consistent(path)


def test_the_oldest_of_all_topics_go_first(tmp_path):
    """Up to a size of all topics together: old events go before new ones, and no more than need be."""
    path = str(tmp_path / "data.db")
    with Node(path, topics=["old", "new"], retain="100KB", process=True) as node, node.client() as client:
        client.publish("old", [f"p {n}".ljust(1000) for n in range(80)])
        client.publish("new", [f"p {n}".ljust(1000) for n in range(60)])
        eventually(lambda: sum(size for _, _, size in extents(path).values()) <= 100_000)
        first, end, _ = extents(path)["old"]
        assert 0 < first < end == 80
        assert extents(path)["new"][:2] == (0, 60)
    assert sum(size for _, _, size in extents(path).values()) > 95_000
    assert_consistent(path)


def test_topics_of_the_same_age_go_together(tmp_path):
    """Of two topics that are published to in turn neither is emptied for the other."""
    path = str(tmp_path / "data.db")
    with Node(path, topics=["one", "two"], process=True) as node, node.client() as client:
        for n in range(60):
            for topic in ("one", "two"):
                client.submit(topic, f"p {n}".ljust(1000))
            client.flush(30)
    with Node(path, retain="60KB", process=True):
        eventually(lambda: sum(size for _, _, size in extents(path).values()) <= 60_000)
    ones, twos = extents(path)["one"], extents(path)["two"]
    assert abs(ones[0] - twos[0]) <= 1
    assert ones[2] + twos[2] > 55_000
    assert_consistent(path)


def test_a_node_under_load_stays_within_its_size(tmp_path):
    """Publishing much more than is kept: what is there stays near the limit, and OFFSET means the same."""
    path, limit = str(tmp_path / "data.db"), 200_000
    stop, samples = threading.Event(), []
    with Node(path, topics=["one", "two"], retain=f"{limit}B", process=True, faults=False) as node:
        loads = [Load(node, topic, stop) for topic in ("one", "two")]
        try:
            with node.client() as client, contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
                until = time.monotonic() + by_size(4, 2, 8, 60)
                while time.monotonic() < until or sum(load.bytes for load in loads) < 5 * limit:
                    assert all(load.thread.is_alive() for load in loads)
                    published = sum(load.bytes for load in loads)
                    kept = connection.execute("SELECT sum(bytes) FROM topics").fetchone()[0]
                    files = os.path.getsize(path)
                    samples.append((time.monotonic(), published, kept, files))
                    look_at_an_offset(client, path)
        finally:
            stop.set()
            for load in loads:
                load.thread.join(60)
        assert [load.error for load in loads] == [None, None]
        eventually(lambda: sum(size for _, _, size in extents(path).values()) <= limit)
    assert sum(size for _, _, size in extents(path).values()) > limit // 2
    assert_consistent(path)
    peak, file = max(kept for _, _, kept, _ in samples), max(size for *_, size in samples)
    total, seconds = samples[-1][1], samples[-1][0] - samples[0][0]
    shown = f"peak {peak / MB:.2f} MB, file {file / MB:.2f} MB"
    print(f"\n{total / MB:.1f} MB in {seconds:.0f} s, {limit / MB:g} MB to be kept: {shown}")
    for now, published, kept, _ in samples:
        lately = published - max((there for then, there, *_ in samples if then <= now - SLACK), default=0)
        assert kept <= limit + lately * Load.overhead
    assert file <= 2 * peak + MB, "the room of what is gone is used again"


class Load:
    """A thread that publishes events of the same size until it is told to stop."""

    #: An event is stored with its id, publisher and more, and some are on their way when it is counted.
    overhead = 1.5

    def __init__(self, node, topic, stop):
        self.node, self.topic, self.stop = node, topic, stop
        self.bytes, self.error = 0, None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            with self.node.client() as client:
                number = 0
                while not self.stop.is_set():
                    client.publish(self.topic, [f"p {n}".ljust(1000) for n in range(number, number + 50)], timeout=60)
                    number += 50
                    self.bytes += 50 * 1000
        except Exception as error:
            self.error = error


def look_at_an_offset(client, path):
    """The row at a position has the number of the position, unless it was removed meanwhile."""
    first, end, _ = extents(path)["one"]
    for position in (first, (first + end) // 2):
        for row in data_of(client, f"SELECT * FROM one OFFSET {position} LIMIT 1"):
            number = int(row.split()[1])
            assert number == position or position < number <= extents(path)["one"][0]


@pytest.mark.parametrize("text", ["", "5", "MB", "-5MB", "0s", "5 parsecs", "1e3s", "5Mb5"])
def test_what_is_no_retention(text):
    """Neither an age nor a size: the error says what is understood, before anything is made."""
    with pytest.raises(ValueError, match="give a number and one of"):
        Retention.parse(text)
    with pytest.raises(ValueError, match="give a number and one of"):
        Node(retain=text)


# many events


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The path of a file with a topic of many events, ``p 0000000`` and so on, and how many they are."""
    path = str(tmp_path_factory.mktemp("large") / "data.db")
    with Node(path, topics=["weather"]) as node, node.client() as client:
        topic_id = ULID(client.topic_id("weather")).bytes
    request = codec.encode_publisher_frame(frames.Publication(topic_id, b"1" * 16, ledger.encoded(b"p 0000000")))
    publisher = codec.encode_publisher("me", "127.0.0.1", "me", "test")
    pattern = codec.decode_publisher_request(request).stored(b"TEN-BYTES!", publisher)
    log = Log(path)
    (topic,) = log.all_topics()
    now, count = time.time_ns(), by_size(ROWS, ROWS, ROWS, 1_000_000)
    time_of_ids = (now // 10**6 - 1).to_bytes(6, "big")
    for start in range(0, count, 2_000):
        events = []
        for n in range(start, start + 2_000):
            id = time_of_ids + n.to_bytes(4, "big")
            wrapper = pattern.replace(b"TEN-BYTES!", id).replace(b"p 0000000", b"p %07d" % n)
            events.append(StoredEvent(topic.number, id, wrapper, now))
        log.append(events)
    log.close()
    return path, count


def test_a_node_with_many_events_starts_soon(large):
    """With a publish and a read of the last event: far below 20 s; 2 s is what is wanted of it."""
    path, count = large
    began = time.monotonic()
    with Node(path) as node:
        ready = time.monotonic() - began
        with node.client() as client:
            assert data_of(client, f"SELECT * FROM weather OFFSET {count - 1}") == [f"p {count - 1:07d}"]
            client.publish("weather", f"p {count:07d}")
        whole = time.monotonic() - began
    print(f"\n{count} events, {os.path.getsize(path) / MB:.0f} MB: ready after {ready:.2f} s, used after {whole:.2f} s")
    assert whole < 20


def test_any_offset_costs_the_same(large):
    """The first row from any position takes at most ten times as long as from the start."""
    path, count = large
    best = {}
    with Node(path) as node, node.client() as client:
        for offset in (0, 1_000, count // 2, count - 1, 0):
            query, expected = f"SELECT * FROM weather OFFSET {offset} LIMIT 1", [f"p {offset:07d}"]
            for _ in range(30):
                began = time.perf_counter()
                assert data_of(client, query) == expected
                best[offset] = min(best.get(offset, 1e9), time.perf_counter() - began)
    told = ", ".join(f"{offset}: {seconds * 1000:.2f} ms" for offset, seconds in best.items())
    print(f"\nOFFSET n LIMIT 1 on {count} rows, best of 30: {told}")
    assert max(best.values()) <= 10 * best[0]
