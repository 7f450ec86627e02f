"""The layout of a data file, and how a file is found to be ours before anything is written to it."""

import contextlib
import os
import sqlite3
import urllib.parse
from typing import Dict, Iterator

from ..exceptions import NodeStorageError
from . import wal

#: Tells our files from other SQLite files ("ESyn"), and their layout from a later one.
APPLICATION_ID = 0x4553796E
LAYOUT = 2
EMPTY = 0

_WAL = "-wal"

#: Files up to this size are checked page by page when they are opened; larger ones as they are read.
_CHECKED_BYTES = 32 * 2**20

_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE topics (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, project BLOB NOT NULL, name TEXT NOT NULL,
    record BLOB NOT NULL, first INTEGER NOT NULL DEFAULT 0, end INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, UNIQUE (project, name)
);
CREATE TABLE events (
    key INTEGER PRIMARY KEY, id BLOB NOT NULL, wrapper BLOB NOT NULL, committed INTEGER NOT NULL
);
CREATE TABLE fingerprints (
    topic INTEGER NOT NULL, hash BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (topic, hash)
) WITHOUT ROWID;
CREATE TABLE records (
    kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
"""

#: What turns a layout into the one after it. A topic's number is the upper part of its events' keys, see storage.py.
_MIGRATIONS: Dict[int, str] = {
    1: """
ALTER TABLE topics ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE topics ADD COLUMN end INTEGER NOT NULL DEFAULT 0;
ALTER TABLE topics ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE topics SET
    end = ifnull((SELECT max(key) - (number << 40) + 1 FROM events
                  WHERE key >= number << 40 AND key < (number + 1) << 40), 0),
    bytes = ifnull((SELECT sum(length(wrapper)) FROM events
                    WHERE key >= number << 40 AND key < (number + 1) << 40), 0);
CREATE TABLE fingerprints (
    topic INTEGER NOT NULL, hash BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (topic, hash)
) WITHOUT ROWID;
CREATE TABLE records (
    kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
""",
}


def prepare(connection: sqlite3.Connection, layout: int) -> None:
    """Make the tables of an empty store, or bring one of an earlier layout to this one."""
    if layout == EMPTY:
        connection.executescript(f"BEGIN; {_TABLES} {_marks(LAYOUT)} COMMIT;")
        return
    while layout < LAYOUT:
        connection.executescript(f"BEGIN IMMEDIATE; {_MIGRATIONS[layout]} {_marks(layout + 1)} COMMIT;")
        layout += 1


def examine(path: str) -> int:
    """Return the layout of a file, or EMPTY if there is nothing in it yet.

    Raises:
        NodeStorageError: The file is foreign, damaged or newer, or may not be written; it was not changed.
    """
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        if os.path.exists(path + _WAL):
            raise NodeStorageError(
                f"data file {path} is gone, and {path + _WAL} holds events of it: restore both from a backup, or move"
                " that file away; it was not changed"
            )
        return EMPTY
    if not os.access(path, os.W_OK):
        raise NodeStorageError(f"data file {path} cannot be used: it is not writable")
    with unchanged(path) as connection:
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
            return EMPTY  # whoever made it was killed before it was done
        layout = check(connection, path)
        if sum(os.path.getsize(name) for name in (path, path + _WAL) if os.path.exists(name)) <= _CHECKED_BYTES:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok" or not wal.is_whole(path + _WAL):
                found = found if found != "ok" else f"{path + _WAL} has lost events"
                text = f"data file {path} is damaged ({found}): restore it from a backup; it was not changed"
                raise NodeStorageError(text)
    return layout


@contextlib.contextmanager
def unchanged(path: str) -> Iterator[sqlite3.Connection]:
    """Open a file to look at it.

    Who is the last to close a file moves into it what stands beside it in a write-ahead log, unless it may only read.
    """
    beside = [path + suffix for suffix in (_WAL, "-shm")]
    there = [os.path.exists(other) for other in beside]
    address = f"file:{urllib.parse.quote(path)}{'?mode=ro' if there[0] else ''}"
    connection = sqlite3.connect(address, timeout=5.0, isolation_level=None, uri=True)
    try:
        yield connection
    finally:
        connection.close()
        for other, was_there in zip(beside, there):
            if not was_there and os.path.exists(other):
                os.unlink(other)


def _marks(layout: int) -> str:
    return f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {layout};"


def check(connection: sqlite3.Connection, path: str) -> int:
    """Return the layout of a store that is ours; NodeStorageError if it is foreign or newer."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise NodeStorageError(f"{path} is an SQLite file, but not the data of a node; give another path")
    layout = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 1 <= layout <= LAYOUT:
        raise NodeStorageError(
            f"{path} was written by a later version (layout {layout}, this one knows {LAYOUT}): upgrade ensign-sync"
        )
    return layout


class Guard:
    """A lock beside a data file, held for as long as the log is open; where there is no flock SQLite's own must do.

    The file is never written to, whatever it was before, and goes again if it was made for a log that is refused.
    """

    def __init__(self, path: str) -> None:
        """Take the lock; NodeStorageError if another process has it."""
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
