"""Where a subscription resumes after a restart of the program: in a file, or in an object of yours.

An object has ``load() -> mapping`` (an empty one, or None, if nothing was saved) and ``save(mapping)``. The mapping is
plain values that JSON can hold; it is saved whole each time, every ``interval`` seconds (an attribute, 1 if there is
none) if anything changed, and at close. With an interval of 0 it is saved before ``ack()`` returns. ``save`` runs on a
thread for callbacks then, or on the one that acknowledges.
"""

import json
import os
import threading
import weakref
import zlib
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union

from .exceptions import CheckpointError
from .handover.locking import holding

try:
    import fcntl
except ImportError:  # not on this platform: then nothing keeps two processes from using the same file
    fcntl = None  # type: ignore[assignment]

#: The first line of every such file.
_TITLE = b"ensign-sync checkpoint, format 1: each line is number, size, CRC-32 and state; the largest number counts\n"
_PREFIX = b"#"
_SMALLEST_SLOT = 512


class _Record(NamedTuple):
    number: int
    state: Dict[str, Any]
    offset: int
    size: int  # of the slot


class FileCheckpoint:
    """A checkpoint in a file that is safe against the end of the process at any moment.

    Two slots are written in turn, in place, each with a checksum: one of them is always whole. The text in them can be
    read. One subscription at a time can hold the file (an flock, on platforms that have it).

    Args:
        path: The file; it is made if it is not there. Its folder must be.
        interval: Save at most every so many seconds; with 0 an acknowledgement is in the file before ``ack()`` returns.
        fsync: Have the system write it to the disk each time, which adds power loss to what it is safe against.

    Raises (``load`` and ``save``):
        CheckpointError: The file is damaged, foreign, or in use; or it cannot be written.
    """

    def __init__(self, path: Union[str, "os.PathLike[str]"], interval: float = 0.0, fsync: bool = False) -> None:
        if not interval >= 0:
            raise CheckpointError(f"interval must be a number of seconds from 0 on, got {interval!r}")
        self.path = os.fspath(path)
        self.interval = float(interval)
        self.fsync = bool(fsync)
        self._lock = threading.Lock()
        self._fd: Optional[int] = None
        self._pid = 0  # of the process that has the file
        self._number = 0
        self._slots: List[int] = []  # where the two are
        self._slot_size = 0

    @holding("_lock")
    def load(self) -> Mapping[str, Any]:
        """Take hold of the file and return what was saved, an empty mapping if nothing was."""
        if self._fd is not None:
            raise CheckpointError(f"the checkpoint {self.path} is in use by another subscription of this program")
        try:
            fd = os.open(self.path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            return {}  # it is made with the first save, so that it is never without a state
        except OSError as error:
            raise CheckpointError(f"the checkpoint {self.path} cannot be opened: {error}") from error
        try:
            self._hold(fd)
            newest = self._newest(fd)
        except BaseException:
            os.close(fd)
            raise
        self._took(fd)
        return newest.state

    @holding("_lock")
    def save(self, state: Mapping[str, Any]) -> None:
        """Save a state; it is in the file when this returns."""
        body = json.dumps(state, separators=(",", ":")).encode("ascii")
        try:
            if self._fd is None:
                self._make(body)
            else:
                self._write(body)
        except OSError as error:
            raise CheckpointError(f"the checkpoint {self.path} cannot be written: {error}") from error

    @holding("_lock")
    def release(self) -> None:
        """Let go of the file, for the next subscription."""
        fd, self._fd = self._fd, None
        if fd is not None:
            if fcntl is not None and self._pid == os.getpid():
                fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile shares the lock
            os.close(fd)

    def _forked(self) -> None:
        """In a child: the file is the parent's."""
        self._lock = threading.Lock()
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __repr__(self) -> str:
        return f"FileCheckpoint({self.path!r}, interval={self.interval!r}, fsync={self.fsync!r})"

    # inside

    def _hold(self, fd: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint {self.path} is in use by another subscription, here or in another process: give each"
                " its own"
            ) from error

    def _newest(self, fd: int) -> _Record:
        """Find the state that counts, and the slots."""
        size = os.fstat(fd).st_size
        data = os.pread(fd, size, 0) if hasattr(os, "pread") else _read(fd, size)
        if not data.startswith(_TITLE):
            found = f"{data[:40]!r}" if data else "nothing"
            raise CheckpointError(
                f"{self.path} is no checkpoint of ensign-sync, or it is damaged: it begins with {found}; put the right"
                " file there, or another path to begin anew"
            )
        records = _records(data)
        if not records or any(record.offset + record.size > size for record in records):
            raise CheckpointError(
                f"the checkpoint {self.path} is damaged: no state in it is whole; put a copy there, or delete it to"
                " begin anew"
            )
        newest = max(records, key=lambda record: record.number)
        self._number, self._slot_size = newest.number, newest.size
        other = [r.offset for r in records if r.size == newest.size and abs(r.offset - newest.offset) == newest.size]
        self._slots = [newest.offset, other[0] if other else self._twin(newest, data)]
        return newest

    def _twin(self, newest: _Record, data: bytes) -> int:
        """Return where the other slot is: they lie side by side, the one with the even number first."""
        return newest.offset + newest.size if newest.number % 2 == 0 else newest.offset - newest.size

    def _make(self, body: bytes) -> None:
        """Make the file, whole from its first moment on."""
        self._slot_size, self._number = _slot_size(body), 0
        self._slots = [len(_TITLE), len(_TITLE) + self._slot_size]
        record = _line(0, body, self._slot_size)
        temporary = f"{self.path}.{os.getpid()}.{threading.get_ident()}.new"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            self._hold(fd)
            _write_all(fd, _TITLE + record + b" " * (self._slot_size - 1) + b"\n", 0)
            if self.fsync:
                os.fsync(fd)
            self._put_in_place(temporary)
        except BaseException:
            os.close(fd)
            os.unlink(temporary)
            raise
        self._took(fd)

    def _took(self, fd: int) -> None:
        self._fd, self._pid = fd, os.getpid()
        _held.add(self)

    def _put_in_place(self, temporary: str) -> None:
        try:
            os.link(temporary, self.path)  # unlike a renaming it does not replace what somebody else has made
        except FileExistsError as error:
            raise CheckpointError(f"the checkpoint {self.path} was made by another subscription meanwhile") from error
        except (OSError, AttributeError):  # not every file system has links
            os.rename(temporary, self.path)
        else:
            os.unlink(temporary)

    def _write(self, body: bytes) -> None:
        assert self._fd is not None
        number = self._number + 1
        if _slot_size(body) > self._slot_size:
            # Two new slots behind what is there, which stays whole until both are written; then only they count.
            self._slot_size = 2 * _slot_size(body)
            end = os.fstat(self._fd).st_size
            number += number % 2
            self._slots = [end, end + self._slot_size]
            _write_all(self._fd, b"".join(_line(number + n, body, self._slot_size) for n in (0, 1)), end)
            if self.fsync:
                os.fsync(self._fd)
            _write_all(self._fd, b" " * (end - len(_TITLE) - 1) + b"\n", len(_TITLE))
            number += 2
        record = _line(number, body, self._slot_size)
        even, odd = min(self._slots), max(self._slots)
        _write_all(self._fd, record, odd if number % 2 else even)
        if self.fsync:
            os.fsync(self._fd)
        self._number = number


#: Those that have a file, for a child that is forked.
_held: "weakref.WeakSet[FileCheckpoint]" = weakref.WeakSet()


def _in_child() -> None:
    for checkpoint in list(_held):
        checkpoint._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _slot_size(body: bytes) -> int:
    """Return how large a slot must be for a state, with room to spare."""
    needed = len(body) + 80
    return max(_SMALLEST_SLOT, 1 << needed.bit_length())


def _line(number: int, body: bytes, size: int) -> bytes:
    head = b"%c%d %d %d " % (_PREFIX, number, size, len(body))
    line = head + b"%08x " % zlib.crc32(head + body) + body
    return line + b" " * (size - len(line) - 1) + b"\n"


def _records(data: bytes) -> List[_Record]:
    """Return the records whose checksums are right."""
    found: List[_Record] = []
    offset = len(_TITLE)
    while True:
        offset = data.find(_PREFIX, offset)
        if offset < 0:
            return found
        record = _record(data, offset)
        if record is not None:
            found.append(record)
        offset += 1 if record is None else record.size


def _record(data: bytes, offset: int) -> Optional[_Record]:
    parts = data[offset + 1 : offset + 80].split(b" ", 4)
    try:
        number, size, length, checksum = int(parts[0]), int(parts[1]), int(parts[2]), int(parts[3], 16)
        head = data[offset : offset + 1 + sum(len(part) + 1 for part in parts[:3])]
        start = offset + len(head) + len(parts[3]) + 1
        body = data[start : start + length]
        if len(body) != length or zlib.crc32(head + body) != checksum:
            return None
        return _Record(number, json.loads(body.decode("ascii")), offset, size)
    except (ValueError, IndexError):
        return None


def _read(fd: int, size: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, size)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        if hasattr(os, "pwrite"):
            written = os.pwrite(fd, data, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            written = os.write(fd, data)
        data, offset = data[written:], offset + written
