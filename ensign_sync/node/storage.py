"""The log of a node on disk or in memory: topics, events in order, and a few settings.

The only door to storage. SQLite in WAL mode; an appended batch is one transaction, which is on disk when ``append``
returns. Events of a topic have the positions 0, 1, 2 …, and reading from any position costs the same.
"""

import os
import sqlite3
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import NodeStorageError

#: Tells our files from other SQLite files ("ESyn"), and their layout from a later one.
APPLICATION_ID = 0x4553796E
LAYOUT = 1

#: The key of an event is its topic's number and its position in one integer, so a range of positions is a range of
#: the table itself: no index, and large events do not get in the way.
_POSITION_BITS = 40
_PAGE_ROWS = 500

_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE topics (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, project BLOB NOT NULL, name TEXT NOT NULL,
    record BLOB NOT NULL, UNIQUE (project, name)
);
CREATE TABLE events (
    key INTEGER PRIMARY KEY, id BLOB NOT NULL, wrapper BLOB NOT NULL, committed INTEGER NOT NULL
);
"""


class StoredTopic(NamedTuple):
    """A topic: its number in the store, its id, project and name, and the message that describes it."""

    number: int
    id: bytes
    project: bytes
    name: str
    record: bytes


class StoredEvent(NamedTuple):
    """An event of a topic: its id, its wrapper as it goes over the wire, and when it was stored."""

    topic: int
    id: bytes
    wrapper: bytes
    committed_ns: int


class Log:
    """A store, in a file or in memory. Any thread may call any method; one process at a time may hold a file."""

    def __init__(self, path: str = ":memory:") -> None:
        """Open the store, or make it.

        Raises:
            NodeStorageError: The file is no store of ours, is newer, damaged, in use or not writable.
        """
        self.path = path
        self._in_memory = path == ":memory:"
        self._lock = threading.Lock()  # one user at a time of the writing connection
        self._read_lock = self._lock if self._in_memory else threading.Lock()
        self._guard: Optional[_Guard] = None
        self._closed = False
        if not self._in_memory:
            self._guard = _Guard(path)
        try:
            self._writer = self._open()
            self._reader = self._writer if self._in_memory else self._connect()
            self._next: Dict[int, int] = {topic.number: self._last(topic.number) + 1 for topic in self._all_topics()}
        except BaseException:
            self._release(refused=True)
            raise

    # settings

    def setting(self, name: str) -> Optional[bytes]:
        """Return what was kept under a name."""
        with self._lock:
            row = self._writer.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def keep(self, name: str, value: bytes) -> None:
        """Keep a value under a name."""
        with self._lock, _Transaction(self._writer):
            self._writer.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    # topics

    def topics(self, project: bytes) -> List[StoredTopic]:
        """Return the topics of a project in the order of their ids."""
        return sorted((t for t in self._all_topics() if t.project == project), key=lambda topic: topic.id)

    def add_topic(self, id: bytes, project: bytes, name: str, record: bytes) -> StoredTopic:
        """Add a topic; KeyError if its id, or its name in the project, is taken."""
        with self._lock:
            try:
                with _Transaction(self._writer):
                    cursor = self._writer.execute(
                        "INSERT INTO topics (id, project, name, record) VALUES (?, ?, ?, ?)",
                        (id, project, name, record),
                    )
            except sqlite3.IntegrityError as error:
                raise KeyError(name) from error
            number = int(cursor.lastrowid or 0)
            self._next[number] = self._last(number) + 1
        return StoredTopic(number, id, project, name, record)

    def change_topic(self, number: int, record: bytes) -> None:
        """Replace the message that describes a topic."""
        with self._lock, _Transaction(self._writer):
            self._writer.execute("UPDATE topics SET record = ? WHERE number = ?", (record, number))

    def remove_topic(self, number: int) -> None:
        """Remove a topic and its events."""
        with self._lock:
            with _Transaction(self._writer):
                self._writer.execute("DELETE FROM topics WHERE number = ?", (number,))
                self._writer.execute("DELETE FROM events WHERE key >= ? AND key < ?", _range(number))
            self._next.pop(number, None)

    # events

    def append(self, events: Sequence[StoredEvent]) -> List[bool]:
        """Store events in one transaction; on disk when this returns. Tells for each whether its topic still exists."""
        rows: List[Tuple[int, bytes, bytes, int]] = []
        there: List[bool] = []
        with self._lock:
            positions: Dict[int, int] = {}
            for event in events:
                at = positions.get(event.topic, self._next.get(event.topic, -1))
                there.append(at >= 0)
                if at >= 0:
                    rows.append((event.topic << _POSITION_BITS | at, event.id, event.wrapper, event.committed_ns))
                    positions[event.topic] = at + 1
            try:
                with _Transaction(self._writer):
                    self._writer.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
            except sqlite3.Error as error:
                raise NodeStorageError(f"events could not be stored in {self.path}: {error}") from error
            # Only now: a transaction that failed must not leave a hole in the positions.
            self._next.update(positions)
        return there

    def count(self, topic: int) -> int:
        """Return how many events a topic has, which is the position of its next one."""
        return self._next.get(topic, 0)

    def read(self, topic: int, offset: int = 0, until: Optional[int] = None) -> Iterator[StoredEvent]:
        """Yield the events of a topic from a position on, as there are at the first step, in order."""
        end = min(self.count(topic), until if until is not None else self.count(topic))
        at = offset
        while at < end:
            most = min(end, at + _PAGE_ROWS)
            with self._read_lock:
                if self._closed:
                    return
                rows = self._reader.execute(
                    "SELECT id, wrapper, committed FROM events WHERE key >= ? AND key < ? ORDER BY key",
                    (topic << _POSITION_BITS | at, topic << _POSITION_BITS | most),
                ).fetchall()
            for id, wrapper, committed in rows:
                yield StoredEvent(topic, id, wrapper, committed)
            at = most

    def last_id(self) -> bytes:
        """Return the largest event id that was ever stored, or nothing."""
        with self._lock:
            last = [self._last_event_id(number) for number in self._next]
        return max(last, default=b"")

    def clear(self) -> None:
        """Remove all topics and events."""
        with self._lock:
            with _Transaction(self._writer):
                self._writer.execute("DELETE FROM topics")
                self._writer.execute("DELETE FROM events")
            self._next.clear()

    def close(self) -> None:
        """Close the file; what was appended stays."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._writer.close()
        if not self._in_memory:
            with self._read_lock:
                self._reader.close()
        self._release(refused=False)

    # inside

    def _all_topics(self) -> List[StoredTopic]:
        with self._lock:
            rows = self._writer.execute("SELECT number, id, project, name, record FROM topics").fetchall()
        return [StoredTopic(n, bytes(id), bytes(project), name, bytes(record)) for n, id, project, name, record in rows]

    def _last(self, number: int) -> int:
        low, high = _range(number)
        row = self._writer.execute("SELECT max(key) FROM events WHERE key >= ? AND key < ?", (low, high)).fetchone()
        return -1 if row[0] is None else int(row[0]) - low

    def _last_event_id(self, number: int) -> bytes:
        key = number << _POSITION_BITS | max(0, self._next[number] - 1)
        row = self._writer.execute("SELECT id FROM events WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else b""

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def _open(self) -> sqlite3.Connection:
        try:
            fresh = self._in_memory or not os.path.exists(self.path) or os.path.getsize(self.path) == 0
            if fresh and not self._in_memory:
                # Made by us, so that nobody else can read the keys in it, from the first moment on.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = self._connect()
            try:
                if fresh:
                    _create(connection)
                else:
                    _check(connection, self.path)
                if not self._in_memory:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
            return connection
        except (sqlite3.Error, OSError) as error:
            raise NodeStorageError(f"data file {self.path} cannot be used: {error}") from error

    def _release(self, refused: bool) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.release(refused)


class _Transaction:
    """All or nothing. The connection is in autocommit mode, so that nothing else begins or ends one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _range(number: int) -> Tuple[int, int]:
    return number << _POSITION_BITS, (number + 1) << _POSITION_BITS


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT}; COMMIT;"
    )


def _check(connection: sqlite3.Connection, path: str) -> None:
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION_ID:
        raise NodeStorageError(f"{path} is an SQLite file, but not the data of a node; give another path")
    layout = connection.execute("PRAGMA user_version").fetchone()[0]
    if layout > LAYOUT:
        raise NodeStorageError(
            f"{path} was written by a later version (layout {layout}, this one knows {LAYOUT}): upgrade ensign-sync"
        )


class _Guard:
    """A lock beside a data file, held for as long as the log is open; where there is no flock SQLite's own must do.

    The file is never written to, whatever it was before, and goes again if it was made for a log that is refused.
    """

    def __init__(self, path: str) -> None:
        self._path = path + ".ensign-lock"
        self._made = not os.path.exists(self._path)
        self._descriptor = -1
        try:
            import fcntl
        except ImportError:
            return
        try:
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise NodeStorageError(f"data file {path} cannot be used: {error}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise NodeStorageError(
                f"data file {path} is in use by another process: stop that one, or let one node have it"
                f" ('ensign-sync serve --data {path}') and every program connect to that"
            ) from None

    def release(self, refused: bool) -> None:
        """Let go of the lock."""
        if self._descriptor >= 0:
            if refused and self._made:
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1
