"""Data files of a node that had a hard life: clocks that go back, damage, an earlier layout, a full disk."""

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import deque

import grpc
import pytest

from ensign_sync.ack import Ack
from ensign_sync.exceptions import NodeStorageError
from ensign_sync.nack import Nack
from ensign_sync.node import Node
from ensign_sync.node.schema import APPLICATION_ID, LAYOUT
from ensign_sync.node.storage import Log, StoredEvent
from ensign_sync.wire import codec, methods
from tests.node import ledger
from tests.node.raw import Raw, event
from tests.waiting import eventually

#: Hardly depends on the Python below it.
pytestmark = pytest.mark.ends

INTERNAL = 9
PAGE = 4096


@pytest.fixture
def path(tmp_path):
    """The path of a data file that is not there yet, in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    return str(folder / "data.db")


def publish(node, *data):
    """Publish events, and wait for the acks; an in-process node tells its ids best by its log."""
    with node.client() as client:
        client.publish("weather", [text.encode() for text in data], timeout=60)


def stored(node, topic="weather"):
    """Return the data of the events of a topic, and their ids."""
    events = node.events(topic)
    return [e.data.decode() for e in events], [bytes(e.id) for e in events]


# the order of the ids


@pytest.mark.parametrize("process", [False, True], ids=["here", "process"])
def test_ids_rise_whatever_the_clock_does(path, process):
    """On a friendly node each id is above all before it: with the clock set back, before and after restarts."""
    with Node(path, topics=["weather"], strict=False, process=process) as node:
        for number, step in enumerate((0, -5, -5, 3600, -3600)):
            node.faults.step_clock(step)
            publish(node, *(f"{number}.{n}" for n in range(10)))
        # The next process knows nothing of the steps; the last ones were set an hour ahead.
        node.restart()
        node.faults.step_clock(-5)
        publish(node, "first after a restart with the clock set back")
        node.faults.step_clock(-5)
        node.restart()
        publish(node, "first after another one")
        data, ids = stored(node)
        assert data[-2:] == ["first after a restart with the clock set back", "first after another one"]
        assert all(one < other for one, other in zip(ids, ids[1:]))
        assert len(ids) == 52


def test_ids_rise_after_the_death_of_a_clock_that_was_ahead(path):
    """After a kill the ids go on above those of a clock that was an hour ahead, strict or friendly."""
    for strict in (True, False):
        with Node(path, topics=["weather"], strict=strict, process=True) as node:
            before = stored(node)[1]
            node.faults.step_clock(3600)
            publish(node, *map(str, range(5)))
            node.faults.kill()
            node.restart()
            publish(node, *map(str, range(5)))
            ids = stored(node)[1]
            assert len(ids) == len(before) + 10
            assert all(one < other for one, other in zip(ids, ids[1:]))


def test_a_strict_log_is_in_the_order_of_the_ids(path):
    """As the real server's: set back by 2 s, new events go in front; the live order is the one of publishing."""
    with Node(path, topics=["weather"], strict=True) as node, Raw(node) as raw:
        subscriber = raw.subscriber()
        for step, numbers in ((0, "0123"), (-2, "4567"), (2, "89")):
            node.faults.step_clock(step)
            publish(node, *numbers)
        live = [codec.decode_event(subscriber.take(), "weather").data.decode() for _ in range(10)]
        subscriber.cancel()
        assert "".join(live) == "0123456789"
        assert "".join(stored(node)[0]) == "4567012389"
        with node.client() as client:
            rows = "".join(row.data.decode() for row in client.query("SELECT * FROM weather OFFSET 4"))
        assert rows == "012389", "positions have moved: what was read up to 4 comes again"
    with Node(path, strict=True) as node:
        publish(node, "x")
        data, ids = stored(node)
        assert "".join(data) == "4567012389x"
        assert ids == sorted(ids)
    assert ledger.integrity(path) == "ok"


# files that cannot be used


def fill(path, size=300):
    """Make a store whose node was killed: 100 events of a size are in the file itself, 100 in its write-ahead log."""
    program = f"""
import os, signal
from ensign_sync.node.storage import Log, StoredEvent
log = Log({path!r})
number = log.add_topic(b"a" * 16, b"p" * 16, "weather", b"record").number
for n in range(200):
    if n == 100:
        log.close()
        log = Log({path!r})
    data = b"event %d " % n + b"x" * ({size} if n < 100 else 300)
    log.append([StoredEvent(number, n.to_bytes(10, "big"), data, n)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert os.path.getsize(path + "-wal") > 50 * PAGE


def fill_and_close(path):
    """Make a store that was closed well."""
    fill(path)
    Log(path).close()
    assert not os.path.exists(path + "-wal")


def overwrite(path, at, size=PAGE):
    """Put bytes over a part of a file that mean nothing."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes(n * 151 % 251 for n in range(size)))


def garbage_over_pages(path):
    fill_and_close(path)
    overwrite(path, 5 * PAGE, 3 * PAGE)


def half(path):
    fill_and_close(path)
    os.truncate(path, os.path.getsize(path) // 2)


def a_stump(path):
    fill_and_close(path)
    os.truncate(path, 100)


def garbage_over_pages_of_a_killed_node(path):
    fill(path)
    overwrite(path, 5 * PAGE, 3 * PAGE)


def half_of_a_killed_node(path):
    fill(path)
    os.truncate(path, os.path.getsize(path) // 2)


def emptied_beside_its_wal(path):
    fill(path)
    os.truncate(path, 0)


def removed_beside_its_wal(path):
    fill(path)
    os.unlink(path)


def garbage_at_the_start_of_the_wal(path):
    fill(path)
    overwrite(path + "-wal", 0)


def garbage_in_the_middle_of_the_wal(path):
    fill(path)
    overwrite(path + "-wal", os.path.getsize(path + "-wal") // 2)


def a_folder(path):
    os.mkdir(path)


def killed_with(path, *statements):
    """Have a program write to a file with a write-ahead log, and die."""
    program = f"""
import os, signal, sqlite3
connection = sqlite3.connect({path!r}, isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
for statement in {statements!r}:
    connection.execute(statement)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL
    assert os.path.getsize(path + "-wal") > 0


def a_foreign_file_of_a_killed_program(path):
    killed_with(path, "CREATE TABLE mine (a)", "INSERT INTO mine VALUES (1)")


def a_newer_file_of_a_killed_node(path):
    fill_and_close(path)
    killed_with(path, "PRAGMA user_version = 99")


UNUSABLE = [
    garbage_over_pages,
    half,
    a_stump,
    garbage_over_pages_of_a_killed_node,
    half_of_a_killed_node,
    emptied_beside_its_wal,
    removed_beside_its_wal,
    garbage_at_the_start_of_the_wal,
    garbage_in_the_middle_of_the_wal,
    a_folder,
    a_foreign_file_of_a_killed_program,
    a_newer_file_of_a_killed_node,
]


def content(path):
    """Return what stands in the folder of a file: the names, and the bytes of files."""
    folder = os.path.dirname(path)
    found = {}
    for name in os.listdir(folder):
        if name.endswith("-shm"):
            continue  # an index that SQLite makes anew whenever it opens a file
        there = os.path.join(folder, name)
        found[name] = None
        if os.path.isfile(there):
            with open(there, "rb") as file:
                found[name] = file.read()
    return found


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__)
def test_a_file_that_cannot_be_used_is_named_and_not_changed(path, make):
    """What is there may be all that is left of somebody's data: it is refused, and stays byte for byte."""
    make(path)
    before = content(path)
    for _ in range(2):
        with pytest.raises(NodeStorageError, match=r"data\.db"):
            Node(path).stop()
        assert content(path) == before


@pytest.mark.parametrize("mode", [0o000, 0o400], ids=["unreadable", "read-only"])
def test_a_file_without_permission(mode):
    """A file that may not be read, or not be written, is refused at the start and not at the first event."""
    # Whom nothing is forbidden becomes somebody else first, to whom the folders of a test are closed.
    program = """
import os, sys
from ensign_sync.exceptions import NodeStorageError
from ensign_sync.node.storage import Log

def look():
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, sorted(os.listdir(folder))

folder, mode = sys.argv[1], int(sys.argv[2])
os.chmod(folder, 0o777)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
path = os.path.join(folder, "data.db")
Log(path).close()
os.chmod(path, mode)
before = look()
try:
    Log(path).close()
except NodeStorageError as error:
    print(error)
assert look() == before
"""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, "-c", program, folder, str(mode)]
        ended = subprocess.run(arguments, stdout=subprocess.PIPE, timeout=60, check=True)
    assert b"data.db cannot be used" in ended.stdout


def test_a_transaction_that_was_cut_short_is_no_damage(path):
    """Half a frame at the end of the write-ahead log is what a kill leaves: everything before it is there."""
    fill(path)
    with open(path + "-wal", "ab") as file:
        file.write(b"\xa5" * (PAGE + PAGE // 2))
    log = Log(path)
    assert [e.committed_ns for e in log.read(1)] == list(range(200))
    log.close()
    assert ledger.integrity(path) == "ok"


def test_a_damaged_page_of_a_large_file(path, caplog):
    """A file too large to be checked at the start: its damage is an error where it is read, and the rest is served."""
    with Node(path, topics=["weather"]) as node, node.client() as client:
        client.publish("weather", [b"%05d" % n + b"x" * 20_000 for n in range(1_700)], timeout=120)
    size = os.path.getsize(path)
    assert size > 33 * 2**20
    overwrite(path, size // 2 // PAGE * PAGE, 16 * PAGE)
    with Node(path) as node, node.client() as client:
        assert len(client.query("SELECT * FROM weather LIMIT 500").fetchall()) == 500
        with pytest.raises(Exception, match="INTERNAL"):
            client.query("SELECT * FROM weather").fetchall()
        assert "data.db" in caplog.text
        client.publish("weather", "more", timeout=30)
        rows = client.query("SELECT * FROM weather OFFSET 1600").fetchall()
        assert [row.data[:5] for row in rows] == [b"%05d" % n for n in range(1_600, 1_700)] + [b"more"]


# files that can


def test_a_start_that_was_cut_short(tmp_path):
    """A node that is killed while it makes its file finds it the next time, and makes it."""
    program = """
import os, signal, sys
from ensign_sync.node.storage import Log
for n in range(20):
    path = os.path.join(sys.argv[1], f"{n}.db")
    child = os.fork()
    if child == 0:
        Log(path)
        signal.pause()
    while not os.path.exists(path) or os.path.getsize(path) == 0:
        continue
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=True)
    for n in range(20):
        log = Log(str(tmp_path / f"{n}.db"))
        topic = log.add_topic(b"a" * 16, b"p" * 16, "a", b"record").number
        assert log.append([StoredEvent(topic, bytes(10), b"event", 0)]) == [0]
        log.close()


def test_an_empty_file_becomes_one_of_ours(path):
    """A file without a byte in it is as good as none; then nobody else may read it, whatever it was before."""
    with open(path, "wb"):
        os.chmod(path, 0o644)
    with Node(path, topics=["weather"]) as node:
        publish(node, "x")
        modes = {name: os.stat(os.path.join(os.path.dirname(path), name)).st_mode & 0o777 for name in content(path)}
        assert modes == dict.fromkeys(("data.db", "data.db-wal", "data.db.ensign-lock"), 0o600)
    with Node(path) as node:
        assert stored(node)[0] == ["x"]


FIRST_LAYOUT = f"""
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE topics (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, project BLOB NOT NULL, name TEXT NOT NULL,
    record BLOB NOT NULL, UNIQUE (project, name)
);
CREATE TABLE events (
    key INTEGER PRIMARY KEY, id BLOB NOT NULL, wrapper BLOB NOT NULL, committed INTEGER NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_layout(path):
    """Events, positions, sizes, topics and the key of a file of layout 1 are there, and it goes on from them."""
    new = path + ".new"
    with Node(new, topics=["weather", "empty", "other"], strict=False) as node:
        publish(node, *(f"event {n}" for n in range(700)))
        with node.client() as client:
            client.publish("other", ["one", "two"])
        expected = {topic: stored(node, topic) for topic in node.topic_names()}
        key = (node.client_id, node.client_secret)
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(FIRST_LAYOUT + "PRAGMA journal_mode = WAL;")
        old.execute("ATTACH ? AS new", (new,))
        old.execute("INSERT INTO settings SELECT * FROM new.settings WHERE name IN ('api key', 'signing key')")
        old.execute("INSERT INTO topics SELECT number, id, project, name, record FROM new.topics")
        old.execute("INSERT INTO events SELECT * FROM new.events")
        old.commit()
    for _ in range(2):
        with Node(path, strict=False) as node, node.client() as client:
            assert (node.client_id, node.client_secret) == key
            assert {topic: stored(node, topic) for topic in node.topic_names()} == expected
            rows = [row.data for row in client.query("SELECT * FROM weather OFFSET 698 LIMIT 2")]
            assert rows == [b"event 698", b"event 699"]
            client.publish("weather", "later", timeout=30)
            expected["weather"] = stored(node)
            ids = expected["weather"][1]
            assert ids == sorted(set(ids))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (LAYOUT,)
        rows = connection.execute("SELECT name, number, first, end, bytes FROM topics").fetchall()
        spans = {name: connection.execute(SUM, (number, number + 1)).fetchone() for name, number, *_ in rows}
    assert {name: tuple(extent) for name, _, *extent in rows} == {
        "weather": (0, 702, spans["weather"][0]),
        "other": (0, 2, spans["other"][0]),
        "empty": (0, 0, 0),
    }
    assert ledger.integrity(path) == "ok"


SUM = "SELECT sum(length(wrapper)) FROM events WHERE key >= ? << 40 AND key < ? << 40"


# a full disk


def allow(node, size):
    """Let the files of the node's process grow to a size, as a disk does that is full then."""
    hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "friendly"])
def test_a_full_disk(strict, path):
    """What cannot be stored is refused as INTERNAL and not there; what was stored is; with room again it goes on."""
    account = ledger.Account("p")
    with Node(path, topics=["weather"], strict=strict, process=True, faults=False) as node, Raw(node) as raw:
        stream, topics = raw.publisher("weather")
        subscriber = raw.subscriber("weather", group="" if strict else "g")
        waiting = deque()

        def answers(count):
            """Publish so many events; return the answers in order."""
            for _ in range(count):
                number = len(account.most)
                account.most[number] = 1
                waiting.append(number)
                data = ledger.encoded(account.data(number))
                stream.send(event(topics["weather"], number.to_bytes(16, "big"), data))
            found = [stream.take() for _ in range(count)]
            for answer in found:
                number = waiting.popleft()
                assert answer.id == number.to_bytes(16, "big")
                if isinstance(answer, Ack):
                    account.acked.append(number)
                else:
                    assert isinstance(answer, Nack)
                    account.most[number] = 0  # said not to be stored
            return found

        assert all(isinstance(answer, Ack) for answer in answers(100))
        allow(node, max(os.path.getsize(path + suffix) for suffix in ("", "-wal")) + 4 * PAGE)
        refused = [answer for _ in range(60) for answer in answers(1) if isinstance(answer, Nack)]
        refused += [answer for answer in answers(200) if isinstance(answer, Nack)]
        assert len(refused) > 200
        assert {answer.code for answer in refused} == {INTERNAL}
        # All that only reads goes on.
        there = len(account.acked)
        assert len(raw.rows("SELECT * FROM weather")) == len(node.events("weather")) == there
        raw(methods.STATUS)
        assert isinstance(answers(1)[0], Nack), "the stream survives, and the disk is still full"
        allow(node, resource.RLIM_INFINITY)
        assert all(isinstance(answer, Ack) for answer in answers(100))
        delivered = [subscriber.take() for _ in range(len(account.acked))]
        assert [d.id for d in delivered] == [bytes(e.id) for e in node.events("weather")]
        subscriber.cancel()
        node.faults.kill()
        stream.rest()
        assert stream.status[0] == grpc.StatusCode.UNAVAILABLE.name
        node.restart()
        eventually(lambda: len(node.events("weather")) == there + 100)
    assert ledger.integrity(path) == "ok"
    assert ledger.disagreements(ledger.read(path)["weather"], [account]) == []
    print(f"\n{len(refused)} of {len(account.most)} events refused on a full disk")


def test_a_start_on_a_full_disk(path):
    """A node that cannot make its file, or write to it, says so and names it; what is there stays."""
    program = """
import resource, sys
from ensign_sync.exceptions import NodeStorageError
from ensign_sync.node import Node
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    Node(sys.argv[1], topics=["weather"]).stop()
except NodeStorageError as error:
    print(error)
"""
    for room in (0, 3 * PAGE):
        ended = subprocess.run([sys.executable, "-c", program, path, str(room)], stdout=subprocess.PIPE, timeout=60)
        assert b"data.db" in ended.stdout
    with Node(path, topics=["weather"]) as node:
        publish(node, "x")
        assert stored(node)[0] == ["x"]
