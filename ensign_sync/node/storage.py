"""The log of a node on disk or in memory: topics, events in order, and what the node has to remember.

The only door to storage. SQLite in WAL mode; an appended batch is one transaction, which is on disk when ``append``
returns. Events of a topic have the positions 0, 1, 2 …, and reading from any position costs the same. Positions are
stable: when old events are removed, those of the others stay.
"""

import os
import sqlite3
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..exceptions import NodeStorageError
from .schema import EMPTY, Guard, check, examine, prepare

#: The key of an event is its topic's number and its position in one integer, so a range of positions is a range of
#: the table itself: no index, and large events do not get in the way.
_POSITION_BITS = 40
_PAGE_ROWS = 500
_PAGE_BYTES = 4 * 2**20
_TRIM_ROWS = 10_000


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
    fingerprint: bytes = b""  # by which a topic that deduplicates will know a copy of it


class Extent(NamedTuple):
    """What a topic has: the position of its first event, of the next one to come, and the bytes of its events."""

    first: int = 0
    end: int = 0
    size: int = 0


class Log:
    """A store, in a file or in memory. Any thread may call any method; one process at a time may hold a file."""

    def __init__(self, path: str = ":memory:", durable: bool = True) -> None:
        """Open the store, or make it; one that need not outlive the machine is faster.

        Raises:
            NodeStorageError: The file is no store of ours, is newer, damaged, in use or not writable.
        """
        self.path = path
        self._in_memory = path == ":memory:"
        self._durable = durable
        self._lock = threading.RLock()  # one user at a time of the writing connection
        self._read_lock = self._lock if self._in_memory else threading.RLock()
        self._closed = False
        self._guard = None if self._in_memory else Guard(path)
        try:
            self._writer = self._open()
            self._reader = self._writer if self._in_memory else self._connect()
            # Both are replaced, never changed, so that whoever reads them needs no lock.
            self._topics: Dict[int, StoredTopic] = {}
            self._extents: Dict[int, Extent] = {}
            self._last_number = 0
            self._load()
        except BaseException as error:
            self._release(refused=True)
            if isinstance(error, (sqlite3.Error, OverflowError)):
                raise self._unusable(error) from error
            raise

    # what the node has to remember

    def setting(self, name: str) -> Optional[bytes]:
        """Return what was kept under a name."""
        with self._lock:
            row = self._writer.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def keep(self, name: str, value: bytes) -> None:
        """Keep a value under a name."""
        self._write("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def records(self, kind: str) -> Dict[str, bytes]:
        """Return the records of a kind by name."""
        with self._lock:
            rows = self._writer.execute("SELECT name, value FROM records WHERE kind = ?", (kind,)).fetchall()
        return {name: bytes(value) for name, value in rows}

    def put_record(self, kind: str, name: str, value: Optional[bytes]) -> None:
        """Keep a record, or with None forget it."""
        if value is None:
            self._write("DELETE FROM records WHERE kind = ? AND name = ?", (kind, name))
        else:
            self._write("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (kind, name, value))

    # topics

    def topics(self, project: bytes) -> List[StoredTopic]:
        """Return the topics of a project in the order of their ids; takes no lock."""
        return sorted((t for t in self._topics.values() if t.project == project), key=lambda topic: topic.id)

    def all_topics(self) -> List[StoredTopic]:
        """Return the topics of all projects; takes no lock."""
        return list(self._topics.values())

    def topic(self, number: int) -> Optional[StoredTopic]:
        """Return a topic by its number; takes no lock."""
        return self._topics.get(number)

    def add_topic(self, id: bytes, project: bytes, name: str, record: bytes) -> StoredTopic:
        """Add a topic; KeyError if its id, or its name in the project, is taken."""
        with self._lock:
            topic = StoredTopic(self._last_number + 1, id, project, name, record)
            columns = "number, id, project, name, record"
            try:
                self._write(f"INSERT INTO topics ({columns}) VALUES (?, ?, ?, ?, ?)", topic)
            except sqlite3.IntegrityError as error:
                raise KeyError(name) from error
            # Never used twice: an event on its way to a topic that was removed must not end up in another one.
            self._last_number = topic.number
            self._extents = {**self._extents, topic.number: Extent()}
            self._topics = {**self._topics, topic.number: topic}
        return topic

    def change_topic(self, number: int, record: bytes) -> None:
        """Replace the message that describes a topic."""
        with self._lock:
            self._write("UPDATE topics SET record = ? WHERE number = ?", (record, number))
            if number in self._topics:
                self._topics = {**self._topics, number: self._topics[number]._replace(record=record)}

    def remove_topic(self, number: int) -> None:
        """Remove a topic; its events cannot be read any more, and go with ``forget_events``."""
        with self._lock:
            self._write("DELETE FROM topics WHERE number = ?", (number,))
            self._topics = {n: topic for n, topic in self._topics.items() if n != number}
            self._extents = {n: extent for n, extent in self._extents.items() if n != number}

    def forget_events(self, number: int) -> None:
        """Remove the events of a topic that is gone, in steps that keep nobody waiting for long."""
        left, (low, high) = 1, _range(number)
        rows = "SELECT key FROM events WHERE key >= ? AND key < ? LIMIT ?"
        while left:
            with self._lock:
                if self._closed:
                    return  # the next start goes on with it
                with _Transaction(self._writer):
                    done = self._writer.execute(f"DELETE FROM events WHERE key IN ({rows})", (low, high, _TRIM_ROWS))
                left = done.rowcount
        self.forget_fingerprints(number)

    # events

    def append(self, events: Sequence[StoredEvent]) -> List[int]:
        """Store events in one transaction; on disk when this returns.

        Returns the position of each, -1 where its topic does not exist any more.

        Raises:
            NodeStorageError: Nothing was stored.
        """
        with self._lock:
            extents: Dict[int, Extent] = {}
            rows: List[Tuple[int, bytes, bytes, int]] = []
            marks: List[Tuple[int, bytes, int]] = []
            positions: List[int] = []
            for event in events:
                number = event.topic
                extent = extents.get(number) or self._extents.get(number)
                if extent is None:
                    positions.append(-1)
                    continue
                at = extent.end
                rows.append((number << _POSITION_BITS | at, event.id, event.wrapper, event.committed_ns))
                if event.fingerprint:
                    marks.append((number, event.fingerprint, at))
                positions.append(at)
                extents[number] = Extent(extent.first, at + 1, extent.size + len(event.wrapper))
            try:
                with _Transaction(self._writer):
                    self._writer.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
                    self._save_extents(extents)
                    if marks:
                        self._writer.executemany("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", marks)
            except sqlite3.Error as error:
                raise NodeStorageError(f"events could not be stored in {self.path}: {error}") from error
            # Only now: a transaction that failed must not leave a hole in the positions.
            self._extents = {**self._extents, **extents}
        return positions

    def insert(self, topic: int, events: Sequence[StoredEvent]) -> List[int]:
        """Store events of one topic where their ids belong; later events move to higher positions.

        For a node whose clock was set back and that, like the real server, keeps its log in the order of the ids: those
        given have neighbouring ids. Returns positions as ``append`` does.
        """
        with self._lock:
            extent = self._extents.get(topic)
            if extent is None:
                return [-1] * len(events)
            at = self._place(topic, events[0].id, extent)
            size = extent.size + sum(len(event.wrapper) for event in events)
            extents = {topic: Extent(extent.first, extent.end + len(events), size)}
            base = topic << _POSITION_BITS | at
            rows = [(base + n, event.id, event.wrapper, event.committed_ns) for n, event in enumerate(events)]
            try:
                with _Transaction(self._writer):
                    # Over the negative numbers, so that no key is there twice on the way.
                    span = (base, (topic + 1) << _POSITION_BITS)
                    self._writer.execute("UPDATE events SET key = -key WHERE key >= ? AND key < ?", span)
                    self._writer.execute("UPDATE events SET key = ? - key WHERE key < 0", (len(events),))
                    self._writer.execute("DELETE FROM fingerprints WHERE topic = ?", (topic,))
                    self._writer.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
                    self._save_extents(extents)
            except sqlite3.Error as error:
                raise NodeStorageError(f"events could not be stored in {self.path}: {error}") from error
            self._extents = {**self._extents, **extents}
        return list(range(at, at + len(events)))

    def rewrite(self, topic: int, changed: Dict[int, bytes]) -> None:
        """Replace the wrappers at some positions, for a policy that came later; ids and positions stay."""
        with self._lock:
            extent = self._extents.get(topic)
            if extent is None or not changed:
                return
            size = extent.size
            with _Transaction(self._writer):
                for position, wrapper in changed.items():
                    key = topic << _POSITION_BITS | position
                    row = self._writer.execute("SELECT length(wrapper) FROM events WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        size += len(wrapper) - int(row[0])
                        self._writer.execute("UPDATE events SET wrapper = ? WHERE key = ?", (wrapper, key))
                extents = {topic: extent._replace(size=size)}
                self._save_extents(extents)
            self._extents = {**self._extents, **extents}

    def extent(self, topic: int) -> Extent:
        """Return what a topic has; takes no lock."""
        return self._extents.get(topic, Extent())

    def count(self, topic: int) -> int:
        """Return the position of a topic's next event, which is how many it ever had; takes no lock."""
        return self.extent(topic).end

    def read(self, topic: int, offset: int = 0, until: Optional[int] = None) -> Iterator[StoredEvent]:
        """Yield the events of a topic from a position on, as there are at the first step, in order."""
        return (event for _, event in self.read_positions(topic, offset, until))

    def read_positions(
        self, topic: int, offset: int = 0, until: Optional[int] = None
    ) -> Iterator[Tuple[int, StoredEvent]]:
        """Yield positions and events as ``read`` does.

        Raises:
            NodeStorageError: The file is damaged.
        """
        extent = self.extent(topic)
        end = min(extent.end, until if until is not None else extent.end)
        at = max(offset, extent.first)
        mean = extent.size // max(1, extent.end - extent.first) + 1
        page = max(1, min(_PAGE_ROWS, _PAGE_BYTES // mean))
        while at < end:
            most = min(end, at + page)
            base = topic << _POSITION_BITS
            with self._read_lock:
                if self._closed:
                    return
                try:
                    rows = self._reader.execute(
                        "SELECT key, id, wrapper, committed FROM events WHERE key >= ? AND key < ? ORDER BY key",
                        (base | at, base | most),
                    ).fetchall()
                except sqlite3.Error as error:
                    raise NodeStorageError(f"events could not be read from {self.path}: {error}") from error
            for key, id, wrapper, committed in rows:
                yield key - base, StoredEvent(topic, id, wrapper, committed)
            at = most

    def event_at(self, topic: int, position: int) -> Optional[StoredEvent]:
        """Return the event at a position, None if it is gone."""
        return next(self.read(topic, position, position + 1), None) if position >= self.extent(topic).first else None

    def find(self, topic: int, fingerprint: bytes) -> Optional[int]:
        """Return the position of the event that was stored with a fingerprint."""
        with self._lock:
            query = "SELECT position FROM fingerprints WHERE topic = ? AND hash = ?"
            row = self._writer.execute(query, (topic, fingerprint)).fetchone()
        return None if row is None or row[0] < self.extent(topic).first else int(row[0])

    def add_fingerprints(self, topic: int, known: Dict[bytes, int]) -> None:
        """Keep the fingerprints of events that were stored without."""
        rows = [(topic, fingerprint, position) for fingerprint, position in known.items()]
        with self._lock, _Transaction(self._writer):
            self._writer.executemany("INSERT OR IGNORE INTO fingerprints VALUES (?, ?, ?)", rows)

    def forget_fingerprints(self, topic: int) -> None:
        """Forget all fingerprints of a topic."""
        self._write("DELETE FROM fingerprints WHERE topic = ?", (topic,))

    def last_id(self) -> bytes:
        """Return the largest event id that is stored, or nothing."""
        with self._lock:
            ends = [self._id_at(number, extent.end - 1) for number, extent in self._extents.items() if extent.end]
        return max(ends, default=b"")

    def trim(self, topic: int, first: int) -> int:
        """Remove the events before a position, as many as one short transaction may; returns the new first one."""
        with self._lock:
            extent = self._extents.get(topic)
            if extent is None or first <= extent.first:
                return extent.first if extent else 0
            first = min(first, extent.end, extent.first + _TRIM_ROWS)
            span = (topic << _POSITION_BITS | extent.first, topic << _POSITION_BITS | first)
            where = "FROM events WHERE key >= ? AND key < ?"
            with _Transaction(self._writer):
                gone = self._writer.execute(f"SELECT ifnull(sum(length(wrapper)), 0) {where}", span).fetchone()[0]
                self._writer.execute(f"DELETE {where}", span)
                self._writer.execute("DELETE FROM fingerprints WHERE topic = ? AND position < ?", (topic, first))
                extents = {topic: Extent(first, extent.end, extent.size - int(gone))}
                self._save_extents(extents)
            self._extents = {**self._extents, **extents}
        return first

    def clear(self) -> None:
        """Remove all topics and events."""
        with self._lock:
            with _Transaction(self._writer):
                for table in ("topics", "events", "fingerprints"):
                    self._writer.execute(f"DELETE FROM {table}")
            self._topics, self._extents = {}, {}

    # the file

    def backup(self, target: str) -> None:
        """Write a copy as of now to a new file, which only its owner may read; the log goes on meanwhile.

        Raises:
            NodeStorageError: The file exists, or cannot be written.
        """
        if self._in_memory:
            with self._lock:
                copy_to(self._writer, self.path, target)
            return
        source = self._connect()
        try:
            copy_to(source, self.path, target)
        finally:
            source.close()

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

    def _load(self) -> None:
        columns = "number, id, project, name, record, first, end, bytes"
        for row in self._writer.execute(f"SELECT {columns} FROM topics"):
            number, id, project, name, record = row[:5]
            self._topics[number] = StoredTopic(number, bytes(id), bytes(project), name, bytes(record))
            self._extents[number] = Extent(*row[5:])
        self._last_number = max(self._topics, default=0)
        self._remove_orphans()

    def _remove_orphans(self) -> None:
        """Remove the events of topics whose removal was cut short."""
        at = 0
        while True:
            row = self._writer.execute("SELECT min(key) FROM events WHERE key >= ?", (at,)).fetchone()
            if row[0] is None:
                return
            number = int(row[0]) >> _POSITION_BITS
            if number not in self._topics:
                self.forget_events(number)
            self._last_number = max(self._last_number, number)
            at = (number + 1) << _POSITION_BITS

    def _write(self, statement: str, values: Tuple[Any, ...]) -> None:
        """Run one statement as a transaction."""
        with self._lock:
            try:
                with _Transaction(self._writer):
                    self._writer.execute(statement, values)
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                raise NodeStorageError(f"{self.path} could not be written: {error}") from error

    def _save_extents(self, extents: Dict[int, Extent]) -> None:
        """Write what topics have; needs an open transaction."""
        rows = [(*extent, number) for number, extent in extents.items()]
        self._writer.executemany("UPDATE topics SET first = ?, end = ?, bytes = ? WHERE number = ?", rows)

    def _id_at(self, topic: int, position: int) -> bytes:
        """Return the id of the event at a position; needs the lock."""
        key = topic << _POSITION_BITS | position
        row = self._writer.execute("SELECT id FROM events WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else b""

    def _place(self, topic: int, id: bytes, extent: Extent) -> int:
        """Return the position of the first event whose id is larger; needs the lock."""
        low, high = extent.first, extent.end
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._id_at(topic, middle) < id else (low, middle)
        return low

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def _open(self) -> sqlite3.Connection:
        try:
            layout = EMPTY if self._in_memory else examine(self.path)
            if layout == EMPTY and not self._in_memory:
                # Made by us, so that nobody else can read the keys in it, from the first moment on.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
                os.chmod(self.path, 0o600)
            connection = self._connect()
            try:
                prepare(connection, layout)
                if not self._in_memory:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
            except BaseException:
                connection.close()
                raise
            return connection
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: BaseException) -> NodeStorageError:
        return NodeStorageError(f"data file {self.path} cannot be used: {error}")

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
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            # Also after a commit that failed, as on a full disk; SQLite itself may have rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _range(number: int) -> Tuple[int, int]:
    return number << _POSITION_BITS, (number + 1) << _POSITION_BITS


def new_file(path: str) -> None:
    """Make a file that only its owner may read; NodeStorageError if there is one."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise NodeStorageError(f"backup {path} cannot be written: {error}; give the path of a new file") from error


def copy_to(source: sqlite3.Connection, name: str, target: str) -> None:
    """Copy a store as of now to a new file; who writes to it meanwhile is not held up.

    Raises:
        NodeStorageError: The source is no store of ours, or the target exists or cannot be written.
    """
    try:
        check(source, name)
    except sqlite3.Error as error:
        raise NodeStorageError(f"data file {name} cannot be copied: {error}") from error
    new_file(target)
    try:
        copy = sqlite3.connect(target, isolation_level=None)
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, and not three
        finally:
            copy.close()
    except BaseException as error:
        os.unlink(target)
        if isinstance(error, (sqlite3.Error, OSError)):
            raise NodeStorageError(f"backup {target} cannot be written: {error}") from error
        raise
