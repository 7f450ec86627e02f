"""The bytes of an event on its way in, read by hand: a message object would take three times as long.

What is not laid out as servers and publishers do it is left to protobuf: then these functions return None, and
``codec.py`` asks there. Fields stand in the order of their numbers (docs/protocol.rst, "Service and messages").
"""

import functools
from typing import Any, Dict, NamedTuple, Optional, Tuple

from ..api.v1beta1 import event_pb2
from ..events import Event, Kind, received
from ..ids import rlid
from ..mimetypes import from_wire
from ..protocol.frames import Delivery
from . import keys

_delivery: Any = functools.partial(tuple.__new__, Delivery)

#: From here on a length takes four bytes, which is left to protobuf.
_LONG = 1 << 21


#: The tags of offset, epoch and region, which nobody asks for.
_NUMBERS = frozenset((0x18, 0x20, 0x28))

#: So many shapes and middles are kept.
_MOST_KEPT = 1000

#: So many bytes the time of an event takes with its tag and length: most have nanoseconds, some none.
_TIMES = (14, 8, 13, 12, 11, 10)


def read_reply(data: bytes) -> Optional[Delivery]:
    """Read a reply that is an event."""
    shape = _replies.get(len(data))
    if shape is not None:
        delivery = _read_shaped(data, shape)
        if delivery is not None:
            return delivery
    try:
        if data[0] != 0x0A:
            return None
        size, at = data[1], 2
        if size >= 128:
            size, at = size & 127 | data[2] << 7, 3
            if size >= 1 << 14:
                size, at = size & 0x3FFF | data[3] << 14, 4
        if size >= _LONG or size != len(data) - at:
            return None
        return _read_wrapper(data, at, _replies)
    except IndexError:
        return None


def read_row(data: bytes) -> Optional[Delivery]:
    """Read a row of a query."""
    shape = _rows.get(len(data))
    if shape is not None:
        delivery = _read_shaped(data, shape)
        if delivery is not None:
            return delivery
    try:
        return _read_wrapper(data, 0, _rows)
    except IndexError:
        return None


class _Shape(NamedTuple):
    """Where the parts of a message lie, and what stands between them."""

    head: bytes  # up to the id
    id: int
    after_topic: int
    publisher: bytes  # its tag and length, if it is there
    before_event: int
    event_head: bytes
    event: int
    end: int
    committed: bytes  # its tag and length, if it is there


#: The shapes so far, by the length of the message: those of a topic are alike.
_replies: Dict[int, _Shape] = {}
_rows: Dict[int, _Shape] = {}

_LARGEST_SHAPED = 4096


def _read_shaped(data: bytes, shape: _Shape) -> Optional[Delivery]:
    """Read a message of a shape that was seen before; None if it is not of that shape after all."""
    head, at, after_topic, publisher, before_event, event_head, event, end, committed = shape
    if (
        data[:at] != head
        or data[at + 10 : at + 12] != b"\x12\x10"
        or data[before_event:event] != event_head
        or data[after_topic : after_topic + len(publisher)] != publisher
        or data[end : end + 2] != committed
    ):
        return None
    stored = data[end + 2 :] if committed else None
    result: Delivery = _delivery((data[at : at + 10], data[at + 12 : after_topic], data[event:end], stored, False, ""))
    return result


def _read_wrapper(data: bytes, at: int, shapes: Dict[int, _Shape]) -> Optional[Delivery]:
    """Read id, topic id, perhaps numbers and the publisher, the event, and perhaps the time at which it was stored."""
    if data[at : at + 2] != b"\x0a\x0a" or data[at + 12 : at + 14] != b"\x12\x10":
        return None
    after_topic = after_numbers = end = at + 30
    while data[end] in _NUMBERS:
        if data[end + 1] >= 128:
            return None
        after_numbers = end = end + 2
    if data[end] == 0x32:
        if data[end + 1] >= 128:
            return None
        end += 2 + data[end + 1]
    if data[end] != 0x4A:
        return None
    before_event = end
    size, begin = data[end + 1], end + 2
    if size >= 128:
        size, begin = size & 127 | data[end + 2] << 7, end + 3
        if size >= 1 << 14:
            size, begin = size & 0x3FFF | data[end + 3] << 14, end + 4
            if size >= _LONG:
                return None
    end = begin + size
    committed: Optional[bytes] = None
    left = len(data) - end
    if left:
        if data[end] != 0x7A or data[end + 1] != left - 2 or left >= 128:
            return None
        committed = data[end + 2 :]
    if after_numbers == after_topic and len(data) <= _LARGEST_SHAPED:
        if len(shapes) >= _MOST_KEPT:
            shapes.clear()
        publisher = data[after_topic : min(after_topic + 2, before_event)]
        event_head, time_head = data[before_event:begin], data[end : end + 2]
        shapes[len(data)] = _Shape(
            data[: at + 2], at + 2, after_topic, publisher, before_event, event_head, begin, end, time_head
        )
    id, topic_id, payload = data[at + 2 : at + 12], data[at + 14 : at + 30], data[begin:end]
    result: Delivery = _delivery((id, topic_id, payload, committed, False, ""))
    return result


class _Middle(NamedTuple):
    """What stands between the data of an event and the time of its making."""

    mimetype: int
    kind: Kind
    meta: Tuple[Tuple[str, str], ...]


#: The middles so far: a publisher's events are alike.
_middles: Dict[bytes, _Middle] = {}

_LONGEST = 1000


def read_event(delivery: Delivery, topic: str) -> Optional[Event]:
    """Read a stored event."""
    payload = delivery.payload
    if len(payload) < 16 or payload[0] != 0x12 or len(delivery.id) != 10:
        return None
    time = 14
    key: Optional[bytes] = None
    if payload[-14] != 0x7A or payload[-13] != 12:
        key = keys.key_of(payload)
        if key is not None:
            payload = payload[: -keys.SIZE]
            if len(payload) < 16:
                return None
        for time in _TIMES:
            if payload[-time] == 0x7A and payload[1 - time] == time - 2:
                break
        else:
            return None
    size, begin = payload[1], 2
    if size >= 128:
        size, begin = size & 127 | payload[2] << 7, 3
        if size >= 1 << 14:
            size, begin = size & 0x3FFF | payload[3] << 14, 4
            if size >= _LONG:
                return None
    end = begin + size
    if end > len(payload) - time:
        return None
    middle = payload[end:-time]
    known = _middles.get(middle) or _understood(middle, payload[-time:])
    if known is None:
        return None
    mimetype, kind, pairs = known
    meta = dict(pairs)
    if key is not None:
        try:
            meta[keys.NAME] = key.decode()
        except UnicodeDecodeError:
            return None
    return received(
        payload[begin:end],
        mimetype,
        kind,
        meta,
        payload[2 - time :],
        rlid(delivery.id),
        delivery.committed,
        topic,
    )


def _understood(middle: bytes, time: bytes) -> Optional[_Middle]:
    """Have protobuf read what stands in the middle and at the end, each for itself: then they are what they seem."""
    if len(middle) > _LONGEST:
        return None
    try:
        proto, last = event_pb2.Event.FromString(middle), event_pb2.Event.FromString(time)
        meta = tuple(proto.metadata.items())
        if proto.data or proto.HasField("created") or not last.HasField("created"):
            return None
        if not all(type(text) is str for pair in meta for text in pair):
            return None
    except Exception:  # not only DecodeError: some protobuf versions stumble over their own warning
        return None
    kind = proto.type
    known = _Middle(
        from_wire(proto.mimetype), (kind.name, (kind.major_version, kind.minor_version, kind.patch_version)), meta
    )
    if len(_middles) >= _MOST_KEPT:
        _middles.clear()
    _middles[middle] = known
    return known

