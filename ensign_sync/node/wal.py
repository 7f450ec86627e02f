"""Whether the write-ahead log that a killed node left beside its data file is whole.

SQLite reads it up to the first frame that is not as it was written, and takes that for its end. That is right for a
transaction that was cut short; behind damage in the middle there are more transactions, which would be lost in silence.
The format is in https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
"""

import os
import struct
from typing import BinaryIO, Tuple

_HEADER = struct.Struct(">8I")  # magic, format, page size, checkpoints, two salts, two sums
_FRAME = struct.Struct(">6I")  # page, size of the file after a commit or 0, two salts, two sums
_MAGIC = 0x377F0682
#: A transaction is on disk before the next one is begun, so more than one behind a bad frame were whole.
_CUT_SHORT = 1


def is_whole(path: str) -> bool:
    """Tell whether no transaction is missing before another one; a file that is not there or empty is whole."""
    if not os.path.exists(path):
        return True
    with open(path, "rb") as file:
        raw = file.read(_HEADER.size)
        if len(raw) < _HEADER.size or not raw.strip(b"\0"):
            return True
        magic, _, page, _, *salts_and_sums = _HEADER.unpack(raw)
        salts, sums = tuple(salts_and_sums[:2]), (salts_and_sums[2], salts_and_sums[3])
        if magic & ~1 != _MAGIC or _add((0, 0), raw[:24], magic) != sums:
            return False
        return _commits_behind_damage(file, page, magic, salts, sums) <= _CUT_SHORT


def _commits_behind_damage(
    file: BinaryIO, page: int, magic: int, salts: Tuple[int, ...], sums: Tuple[int, int]
) -> int:
    """Return how many transactions end behind the first frame that is not as it was written."""
    good, commits = True, 0
    while True:
        raw = file.read(_FRAME.size + page)
        if len(raw) < _FRAME.size + page:
            return commits
        _, size, salt, other_salt, *expected = _FRAME.unpack_from(raw)
        ours = (salt, other_salt) == salts
        if good:
            sums = _add(_add(sums, raw[:8], magic), raw[_FRAME.size :], magic)
            good = ours and list(sums) == expected
        if not good and ours and size:
            commits += 1


def _add(sums: Tuple[int, int], data: bytes, magic: int) -> Tuple[int, int]:
    """Return the sums with those of more data; the lowest bit of the magic number says in which order bytes are."""
    one, other = sums
    for first, second in struct.iter_unpack(">2I" if magic & 1 else "<2I", data):
        one = (one + first + other) & 0xFFFFFFFF
        other = (other + second + one) & 0xFFFFFFFF
    return one, other
