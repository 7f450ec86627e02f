"""Identifiers: ULID (topics, projects, keys), RLID (events), and the hash of topic names.

See docs/protocol.rst, "Identifiers".
"""

import base64
import functools
import os
from typing import Any, Dict, Tuple, Type, TypeVar, Union

from .times import Instant, time_ns

_Bytes = bytes  # the class below has a property of this name
_Self = TypeVar("_Self", bound="SortableID")

_UPPER = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Dict[str, int] = {c: i for i, c in enumerate(_UPPER)}
_VALUES.update({c.lower(): i for c, i in list(_VALUES.items())})


@functools.total_ordering
class SortableID:
    """An identifier whose bytes sort by time: 6 bytes of milliseconds, then what makes it unique.

    It compares and hashes by its bytes, and equals the bytes and the text of the same identifier.
    """

    size = 0
    length = 0
    alphabet = _UPPER

    __slots__ = ("_raw",)
    _raw: _Bytes

    def __init__(self, value: Union[_Bytes, str, "SortableID"]) -> None:
        if isinstance(value, SortableID):
            value = value._raw
        if isinstance(value, str):
            value = self._decode(value)
        if not isinstance(value, (_Bytes, bytearray)):
            raise TypeError(f"{type(self).__name__} is made of bytes or text, not {type(value).__name__}")
        if len(value) != self.size:
            raise ValueError(f"{type(self).__name__} has {self.size} bytes, got {len(value)}")
        self._raw = _Bytes(value)

    @classmethod
    def _decode(cls, text: str) -> _Bytes:
        if len(text) != cls.length:
            raise ValueError(f"{cls.__name__} has {cls.length} characters, got {len(text)}: {text!r}")
        number = 0
        for character in text:
            if character not in _VALUES:
                raise ValueError(f"{character!r} in {text!r} is no character of a {cls.__name__}")
            number = number * 32 + _VALUES[character]
        if number >> (8 * cls.size):
            raise ValueError(f"{text!r} is larger than any {cls.__name__}")
        return number.to_bytes(cls.size, "big")

    @classmethod
    def parse(cls: Type[_Self], value: Union[_Bytes, str, "SortableID"]) -> _Self:
        """Read an identifier from its bytes or its text, in either case; ValueError says what is wrong."""
        return cls(value)

    @property
    def bytes(self) -> _Bytes:
        """The bytes as they stand on the wire."""
        return self._raw

    @property
    def milliseconds(self) -> int:
        """The time of its making in milliseconds since 1970."""
        return int.from_bytes(self._raw[:6], "big")

    @property
    def time(self) -> Instant:
        """The time of its making."""
        return Instant.from_ns(self.milliseconds * 1_000_000)

    def __bytes__(self) -> _Bytes:
        return self._raw

    def __str__(self) -> str:
        number = int.from_bytes(self._raw, "big")
        return "".join(self.alphabet[(number >> shift) & 31] for shift in range(5 * (self.length - 1), -1, -5))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __hash__(self) -> int:
        return hash(self._raw)

    def _comparable(self, other: object) -> Any:
        if isinstance(other, SortableID):
            return other._raw
        if isinstance(other, str):
            try:
                return self._decode(other)
            except ValueError:
                return None
        return other if isinstance(other, _Bytes) else None

    def __eq__(self, other: object) -> bool:
        return bool(self._raw == self._comparable(other))

    def __lt__(self, other: object) -> bool:
        raw = self._comparable(other)
        if raw is None:
            return NotImplemented
        return bool(self._raw < raw)


class ULID(SortableID):
    """The identifier of topics, projects and keys: 16 bytes, 26 upper-case characters."""

    size = 16
    length = 26
    __slots__ = ()

    @classmethod
    def new(cls) -> "ULID":
        """Make a ULID of this moment."""
        return cls((time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))


class RLID(SortableID):
    """The identifier of events: 6 bytes of milliseconds and a counter of 4, 16 lower-case characters."""

    size = 10
    length = 16
    alphabet = _UPPER.lower()
    __slots__ = ()

    @classmethod
    def of(cls, milliseconds: int, sequence: int) -> "RLID":
        """Put an identifier together from its two parts."""
        return cls(milliseconds.to_bytes(6, "big") + (sequence & 0xFFFFFFFF).to_bytes(4, "big"))

    @property
    def sequence(self) -> int:
        """The counter: 1 more for each event that the node stored since it started."""
        return int.from_bytes(self._raw[6:], "big")


def rlid(raw: bytes) -> RLID:
    """Make an identifier of 10 bytes without a look at them."""
    id = RLID.__new__(RLID)
    id._raw = raw
    return id


def is_ulid(text: str) -> bool:
    """Tell whether a text has the form of a ULID."""
    if len(text) != ULID.length or text[:1] > "7":
        return False
    return all(character in _VALUES for character in text)


_MASK = (1 << 64) - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & _MASK


def _final_mix(value: int) -> int:
    for constant in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * constant) & _MASK
    return value ^ (value >> 33)


def _scramble(word: int, first: int, turn: int, second: int) -> int:
    return (_rotate((word * first) & _MASK, turn) * second) & _MASK


def _mix_block(h1: int, h2: int, block: bytes) -> Tuple[int, int]:
    k1, k2 = int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")
    h1 = _rotate(h1 ^ _scramble(k1, _C1, 31, _C2), 27)
    h1 = ((h1 + h2) * 5 + 0x52DCE729) & _MASK
    h2 = _rotate(h2 ^ _scramble(k2, _C2, 33, _C1), 31)
    return h1, ((h2 + h1) * 5 + 0x38495AB5) & _MASK


def murmur3_128(data: bytes) -> bytes:
    """Compute the server's hash: murmur3 x64 128-bit, seed 0, both halves big-endian."""
    h1 = h2 = 0
    whole = len(data) // 16 * 16
    for start in range(0, whole, 16):
        h1, h2 = _mix_block(h1, h2, data[start : start + 16])
    tail = data[whole:]
    if len(tail) > 8:
        h2 ^= _scramble(int.from_bytes(tail[8:], "little"), _C2, 33, _C1)
    if tail:
        h1 ^= _scramble(int.from_bytes(tail[:8], "little"), _C1, 31, _C2)
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    h1, h2 = _final_mix(h1), _final_mix(h2)
    h1 = (h1 + h2) & _MASK
    return h1.to_bytes(8, "big") + ((h2 + h1) & _MASK).to_bytes(8, "big")


def topic_name_hash(name: str) -> str:
    """Return the text that the server's TopicNames gives in the place of a name."""
    return base64.urlsafe_b64encode(murmur3_128(name.encode("utf-8"))).decode("ascii").rstrip("=")
