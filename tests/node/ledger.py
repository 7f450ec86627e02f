"""What publishers did to a node, what a data file holds, and whether the two agree.

The file is read here with nothing but SQLite, so that an error in the node's own reading shows.
"""

import contextlib
import os
import shutil
import sqlite3
from typing import Dict, Iterable, List, NamedTuple

from ensign_sync.events import Event
from ensign_sync.wire import codec

_POSITION_BITS = 40


class Row(NamedTuple):
    """A stored event: where it stands, its id, who published it and as which of its events."""

    position: int
    id: bytes
    publisher: str
    number: int


class Account:
    """What one publisher did.

    Attributes:
        most: The numbers that it sent, each with how many copies of it may be stored.
        acked: The numbers that were acknowledged, in the order of the acks.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.most: Dict[int, int] = {}
        self.acked: List[int] = []

    def data(self, number: int) -> bytes:
        """Return the data of an event by its number."""
        return f"{self.name} {number}".encode("ascii")


def disagreements(rows: Iterable[Row], accounts: Iterable[Account]) -> List[str]:
    """Return what is wrong with the log of a topic to which these publishers, and nobody else, have published."""
    rows = list(rows)
    wrong = []
    if [row.position for row in rows] != list(range(len(rows))):
        wrong.append("the positions have a hole")
    if any(one.id >= other.id for one, other in zip(rows, rows[1:])):
        wrong.append("the ids do not rise")
    by_publisher: Dict[str, List[int]] = {}
    for row in rows:
        by_publisher.setdefault(row.publisher, []).append(row.number)
    for account in accounts:
        wrong += _wrong_with(account, by_publisher.pop(account.name, []))
    return wrong + [f"{name} never published" for name in by_publisher]


def _wrong_with(account: Account, stored: List[int]) -> List[str]:
    copies: Dict[int, int] = {}
    for number in stored:
        copies[number] = copies.get(number, 0) + 1
    name = account.name
    wrong = [f"{name} {number} was acknowledged and is not there" for number in account.acked if number not in copies]
    if account.acked != sorted(set(account.acked)):
        wrong.append(f"{name} was answered out of order")
    for number, count in copies.items():
        if count > account.most.get(number, 0):
            wrong.append(f"{name} {number} is there {count} times, and may be {account.most.get(number, 0)} times")
    # What was sent again was so in its order, behind what was stored of it before: so both ends are in order.
    for which, numbers in (("first", stored), ("last", stored[::-1])):
        seen = list(dict.fromkeys(numbers))
        if seen != sorted(seen, reverse=which == "last"):
            wrong.append(f"the {which} copies of the events of {name} are not in order")
    return wrong


def count_copies(rows: Iterable[Row]) -> int:
    """Return how many events are there that were there before."""
    rows = list(rows)
    return len(rows) - len({(row.publisher, row.number) for row in rows})


def encoded(data: bytes) -> bytes:
    """Return an event with this data as a publisher sends it."""
    return codec.encode_event(Event(data))


def copy_of(path: str, folder: str) -> str:
    """Copy the files of a store whose node is dead as they are; looking at them would change them."""
    target = os.path.join(folder, "copy.db")
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target + suffix)
        if os.path.exists(path + suffix):
            shutil.copyfile(path + suffix, target + suffix)
    return target


def integrity(path: str) -> str:
    """Return what SQLite says about a file: ``ok``, or what is wrong."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def read(path: str) -> Dict[str, List[Row]]:
    """Return the rows of every topic of a file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        topics = connection.execute("SELECT number, name FROM topics").fetchall()
        return {name: [_row(*found) for found in _events(connection, number)] for number, name in topics}


def _events(connection: sqlite3.Connection, number: int) -> Iterable[tuple]:
    span = (number, number << _POSITION_BITS, (number + 1) << _POSITION_BITS)
    query = f"SELECT key - (? << {_POSITION_BITS}), id, wrapper FROM events WHERE key >= ? AND key < ? ORDER BY key"
    return connection.execute(query, span)


def _row(position: int, id: bytes, wrapper: bytes) -> Row:
    event = codec.decode_event(codec.decode_row(wrapper), "")
    publisher, number = event.data.decode("ascii").split()
    assert bytes(event.id) == id, "the id in the wrapper is the one in the table"
    return Row(position, id, publisher, int(number))
