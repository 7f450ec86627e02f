"""The key by which an event can be told from all others in the log: a pair of its metadata, as the last of its bytes.

A server keeps the bytes of an event as they came (docs/protocol.rst, "Service and messages"), so it is found there
without the event being decoded. Where the publisher has a pair of that name already, the last one holds.
"""

from typing import Optional

from ..protocol.frames import Keyed, Made, Payload, Pieces

#: The name of the pair.
NAME = "ensign-sync-id"

#: The value is so many characters long: a number in hexadecimal digits.
LENGTH = 32

_HEAD = b"\x1a%c\x0a%c%b\x12%c" % (len(NAME) + LENGTH + 4, len(NAME), NAME.encode(), LENGTH)

#: What it adds to an event, in bytes.
SIZE = len(_HEAD) + LENGTH


def keyed(payload: Payload, number: int, made: Made) -> Keyed:
    """Add a number of up to 128 bits to an encoded event as its key."""
    key = b"%032x" % number
    pieces = payload.pieces if isinstance(payload, Pieces) else (payload,)
    return Keyed((*pieces, _HEAD, key), key, made)


def key_of(payload: bytes) -> Optional[bytes]:
    """Return the key of an encoded event, None if it has none."""
    return payload[-LENGTH:] if payload[-SIZE:-LENGTH] == _HEAD else None
