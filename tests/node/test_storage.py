"""The log of a node: what is appended is there, in order, also after a crash; what is not ours is not touched."""

import os
import sqlite3
import subprocess
import sys

import pytest

from ensign_sync.exceptions import NodeStorageError
from ensign_sync.node.schema import APPLICATION_ID
from ensign_sync.node.storage import Log, StoredEvent

PROJECT = b"p" * 16


@pytest.fixture(params=["memory", "file"])
def log(request, tmp_path):
    """An empty log, in memory and in a file."""
    path = ":memory:" if request.param == "memory" else str(tmp_path / "data.db")
    opened = Log(path)
    yield opened
    opened.close()


def events(topic, count, start=0):
    """Return events that can be told apart."""
    return [StoredEvent(topic, n.to_bytes(10, "big"), f"event {n}".encode(), n) for n in range(start, start + count)]


def test_events_are_read_from_any_position(log):
    """Reading from a position gives what is behind it, in order, over any number of pages."""
    topic = log.add_topic(b"a" * 16, PROJECT, "a", b"record").number
    other = log.add_topic(b"b" * 16, PROJECT, "b", b"record").number
    wanted = events(topic, 1200)
    assert log.append(wanted[:700] + events(other, 5)) == [*range(700), *range(5)]
    log.append(wanted[700:])
    assert list(log.read(topic)) == wanted
    assert list(log.read(topic, 1195)) == wanted[1195:]
    assert list(log.read(topic, 498, until=503)) == wanted[498:503]
    assert list(log.read(topic, 5000)) == []
    assert log.count(topic) == 1200
    assert list(log.read(other)) == events(other, 5)
    assert log.last_id() == wanted[-1].id


def test_a_reader_sees_what_was_there_when_it_began(log):
    """A query is a snapshot: what is appended during it is not in it."""
    topic = log.add_topic(b"a" * 16, PROJECT, "a", b"record").number
    log.append(events(topic, 3))
    reading = log.read(topic)
    assert next(reading).wrapper == b"event 0"
    log.append(events(topic, 3, start=3))
    assert len(list(reading)) == 2


def test_topics(log):
    """Topics are listed by id, changed and removed; a taken name or id is refused."""
    second = log.add_topic(b"b" * 16, PROJECT, "b", b"record")
    first = log.add_topic(b"a" * 16, PROJECT, "a", b"record")
    log.add_topic(b"c" * 16, b"q" * 16, "a", b"record")
    assert log.topics(PROJECT) == [first, second]
    for id, name in ((b"d" * 16, "a"), (b"a" * 16, "d")):
        with pytest.raises(KeyError):
            log.add_topic(id, PROJECT, name, b"record")
    log.change_topic(first.number, b"changed")
    assert log.topics(PROJECT)[0].record == b"changed"
    log.append(events(first.number, 3) + events(second.number, 2))
    log.remove_topic(first.number)
    assert log.append(events(first.number, 1) + events(second.number, 1)) == [-1, 2]
    assert list(log.read(first.number)) == []
    assert log.count(second.number) == 3
    again = log.add_topic(b"e" * 16, PROJECT, "a", b"record")
    assert list(log.read(again.number)) == [], "a topic of the same name starts empty"


def test_a_file_keeps_everything(tmp_path):
    """What was appended and kept is there when the file is opened again, and positions go on."""
    path = str(tmp_path / "data.db")
    log = Log(path)
    topic = log.add_topic(b"a" * 16, PROJECT, "a", b"record")
    log.append(events(topic.number, 3))
    log.keep("name", b"value")
    log.close()
    log.close()
    log = Log(path)
    assert log.topics(PROJECT) == [topic]
    log.append(events(topic.number, 2, start=3))
    assert list(log.read(topic.number)) == events(topic.number, 5)
    assert log.setting("name") == b"value"
    assert log.setting("other") is None
    log.close()
    assert os.stat(path).st_mode & 0o077 == 0, "the keys in it are nobody else's business"


def test_an_appended_event_survives_a_kill(tmp_path):
    """What append() has returned for is in the file, however the process ends."""
    path = str(tmp_path / "data.db")
    program = f"""
import os, signal
from ensign_sync.node.storage import Log, StoredEvent
log = Log({path!r})
topic = log.add_topic(b"a" * 16, b"p" * 16, "a", b"record")
for n in range(50):
    log.append([StoredEvent(topic.number, bytes(10), b"event %d" % n, 0)])
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert result.stdout == b"done\n", result.stderr
    log = Log(path)
    (topic,) = log.topics(PROJECT)
    assert [event.wrapper for event in log.read(topic.number)] == [b"event %d" % n for n in range(50)]
    log.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def make_foreign(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    connection.close()


def make_newer(path):
    Log(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()


def make_text(path):
    with open(path, "w") as file:
        file.write("not a database\n" * 1000)


def make_damaged(path):
    Log(path).close()
    with open(path, "r+b") as file:
        file.write(b"SQLite format 3\x00" + b"\xff" * 4000)


@pytest.mark.parametrize("make", [make_foreign, make_newer, make_text, make_damaged], ids=lambda f: f.__name__)
def test_files_that_are_not_ours_are_refused_and_not_touched(tmp_path, make):
    """A foreign, newer or damaged file is an error that names it, and stays as it is."""
    path = str(tmp_path / "data.db")
    make(path)
    there = sorted(os.listdir(str(tmp_path)))
    with open(path, "rb") as file:
        before = file.read()
    with pytest.raises(NodeStorageError, match=r"data\.db"):
        Log(path)
    with open(path, "rb") as file:
        assert file.read() == before
    assert sorted(os.listdir(str(tmp_path))) == there, "nothing is left behind"


def test_a_file_in_use_is_refused(tmp_path):
    """One node at a time; the error points to what can be done."""
    path = str(tmp_path / "data.db")
    log = Log(path)
    with pytest.raises(NodeStorageError, match="ensign-sync serve --data"):
        Log(path)
    log.close()
    Log(path).close()


def test_a_lock_file_of_somebody_else_is_not_touched(tmp_path):
    """Whatever stands in the place of the lock keeps its content."""
    for name in ("data.lock", "data.ensign-lock"):
        (tmp_path / name).write_text("precious")
    Log(str(tmp_path / "data")).close()
    for name in ("data.lock", "data.ensign-lock"):
        assert (tmp_path / name).read_text() == "precious"


def test_a_folder_that_does_not_exist(tmp_path):
    """A path that cannot be made is a clear error."""
    with pytest.raises(NodeStorageError, match="nowhere"):
        Log(str(tmp_path / "nowhere" / "data.db"))


def test_our_files_can_be_told_from_others(tmp_path):
    """The application id is in the file."""
    path = str(tmp_path / "data.db")
    Log(path).close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()
