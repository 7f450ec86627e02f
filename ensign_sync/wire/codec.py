"""The messages of the two streams and the event itself, as bytes (docs/protocol.rst, "Service and messages").

Everything that passes once per event is here; messages of single calls are in ``messages.py``.
"""

import functools
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

from ..api.v1beta1 import ensign_pb2, event_pb2, groups_pb2, query_pb2
from ..events import Event, received
from ..exceptions import EnsignTypeError
from ..ids import RLID
from ..mimetypes import from_wire
from ..nack import code_of
from ..protocol import frames
from ..protocol.frames import Payload, Pieces, Publication
from ..times import Instant
from .keys import keyed
from .reading import read_event, read_reply, read_row

#: What a server with default settings accepts in one request, and the room that its reply needs on top.
DEFAULT_REQUEST_LIMIT = 4 * 1024 * 1024
REPLY_SLACK = 1024

#: No request is larger than its payload by more.
WRAPPING = 64

_SECOND = 1_000_000_000


class BadMessage(ValueError):
    """Bytes that are not the message they should be."""


def _varint(number: int) -> bytes:
    """Encode an unsigned number as protobuf does."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


#: The same for numbers that come again, as lengths do.
varint = functools.lru_cache(maxsize=4096)(_varint)


#: What is sent: whole, or in pieces that are put together when it is.
Message = Union[bytes, Tuple[bytes, ...]]


def joined(message: Message) -> bytes:
    """Put a message together."""
    return message if isinstance(message, bytes) else b"".join(message)


#: From this size on a payload is left in pieces.
_LARGE = 8192

# the event

#: Mimetype and schema of the events so far, encoded: a program publishes few kinds.
_kinds: Dict[Tuple[Any, ...], bytes] = {}

#: The first pairs of metadata, encoded: where a program names its source or its host they are the same each time.
_pairs: Dict[Tuple[str, str], bytes] = {}

_MOST_KEPT = 1000
_SHORT = 100


def encode_event(event: Event) -> Payload:
    """Encode what the publisher made; raises TypeError or ValueError where an attribute was set to nonsense.

    By hand, since this is the way of every event: a message object would take three times as long.
    """
    if type(event) is not Event:
        return _encode_event(event)
    data, created, schema, meta = event.data, event._created, event._type, event.meta
    if type(data) is not bytes or type(created) is not int or created < _SECOND or not data:
        return _encode_event(event)
    try:
        if schema is None:
            kind: Tuple[Any, ...] = (event.mimetype, event._kind)
        else:
            numbers = (schema.major_version, schema.minor_version, schema.patch_version)
            kind = (event.mimetype, (schema.name, numbers))
        rest = _kinds.get(kind) or _encode_kind(event, kind)
        if meta:
            for pair in meta.items():
                rest = (_pairs.get(pair) or _encode_pair(pair)) + rest
    except (TypeError, ValueError, AttributeError):
        return _encode_event(event)  # which knows what to say
    seconds, nanos = divmod(created, _SECOND)
    if nanos >= 1 << 28 and 1 << 28 <= seconds < 1 << 35:
        # Three times in four, in this and the next centuries; by hand, since no other event has the same.
        at = b"\x7a\x0c\x08%b\x10%c%c%c%c%c" % (
            varint(seconds),
            nanos & 127 | 128,
            nanos >> 7 & 127 | 128,
            nanos >> 14 & 127 | 128,
            nanos >> 21 & 127 | 128,
            nanos >> 28,
        )
    else:
        at = b"\x08" + varint(seconds) + (b"\x10" + _varint(nanos) if nanos else b"")
        at = b"\x7a%c%b" % (len(at), at)
    pieces = (b"\x12", varint(len(data)), data, rest, at)
    return b"".join(pieces) if len(data) < _LARGE else Pieces(pieces)


def encode_keyed(event: Event, number: int, made: frames.Made) -> frames.Keyed:
    """Encode an event with a key, see ``keys.py``; raises what ``encode_event`` does."""
    return keyed(encode_event(event), number, made)


def _encode_pair(pair: Tuple[str, str]) -> bytes:
    """Encode a pair of metadata, and keep it if it is short."""
    name, value = str.encode(pair[0]), str.encode(pair[1])
    entry = b"".join((b"\x0a", varint(len(name)), name, b"\x12", varint(len(value)), value))
    encoded = b"\x1a" + varint(len(entry)) + entry
    if len(_pairs) < _MOST_KEPT and len(encoded) < _SHORT:
        _pairs[pair] = encoded
    return encoded


def _encode_kind(event: Event, kind: Tuple[Any, ...]) -> bytes:
    plain = Event.__new__(Event)
    plain.data, plain.meta, plain.mimetype, plain._type, plain._created = b"", {}, event.mimetype, event.type, None
    encoded = bytes(_encode_event(plain))
    name, numbers = kind[1]
    if all(type(number) is int for number in numbers) and type(name) is str:  # True is no other than 1
        if len(_kinds) >= _MOST_KEPT:
            _kinds.clear()
        _kinds[kind] = encoded
    return encoded


def _encode_event(event: Event) -> bytes:
    proto = event_pb2.Event(data=event.data, metadata=event.meta, mimetype=int(event.mimetype))  # type: ignore[arg-type]
    kind = event.type
    proto.type.name = kind.name
    proto.type.major_version = kind.major_version
    proto.type.minor_version = kind.minor_version
    proto.type.patch_version = kind.patch_version
    created = event.created
    if created is not None:
        instant = created if isinstance(created, Instant) else Instant.from_datetime(created)
        proto.created.seconds = instant.seconds
        proto.created.nanos = instant.nanos
    return proto.SerializeToString()


def decode_event(delivery: frames.Delivery, topic: str) -> Event:
    """Decode a stored event. One that is no event (a server checks nothing) becomes raw data of no mimetype."""
    event = read_event(delivery, topic)
    if event is not None:
        return event
    try:
        proto = event_pb2.Event.FromString(delivery.payload)
        meta = dict(proto.metadata)
        if not all(type(key) is str and type(value) is str for key, value in meta.items()):
            raise BadMessage("metadata that is no text, which some protobuf versions let pass until it is looked at")
    except Exception:  # not only DecodeError: some protobuf versions stumble over their own warning
        proto, meta = event_pb2.Event(data=delivery.payload), {}
    kind = proto.type
    return received(
        data=proto.data,
        mimetype=from_wire(proto.mimetype),
        schema=(kind.name, (kind.major_version, kind.minor_version, kind.patch_version)),
        meta=meta,
        created=proto.created.seconds * _SECOND + proto.created.nanos,
        id=RLID(delivery.id) if len(delivery.id) == RLID.size else None,
        committed=delivery.committed,
        topic=topic,
    )


def request_size(payload: Payload) -> int:
    """Return the size of the request that carries an encoded event."""
    # topic id and local id have 16 bytes each; the rest is tags and lengths
    body = 18 + 1 + len(varint(len(payload))) + len(payload) + 19
    return 1 + len(varint(body)) + body


# the publish stream, from the client's side


def encode_publisher_frame(frame: Any) -> Message:
    """Encode an OpenStream or a Publication."""
    if type(frame) is Publication:
        # By hand: this is the way of every event, and a message object would copy the payload twice.
        topic_id, local_id, payload = frame
        size = len(payload)
        length, first, last = varint(size), varint(len(topic_id)), varint(len(local_id))
        whole = varint(len(first) + len(topic_id) + len(length) + size + len(last) + len(local_id) + 4)
        if isinstance(payload, Pieces):
            head, tail = (b"\x0a", whole, b"\x12", first, topic_id, b"\x4a", length), (b"\x82\x01", last, local_id)
            return (*head, *payload.pieces, *tail)
        return b"".join(
            (b"\x0a", whole, b"\x12", first, topic_id, b"\x4a", length, payload, b"\x82\x01", last, local_id)
        )
    if isinstance(frame, frames.OpenStream):
        opening = ensign_pb2.OpenStream(client_id=frame.client_id, topics=frame.topics)
        return ensign_pb2.PublisherRequest(open_stream=opening).SerializeToString()
    raise EnsignTypeError(f"a publisher does not send {type(frame).__name__}")


def decode_publisher_reply(data: bytes) -> Any:
    """Decode an Ack, Nack, Ready or CloseStream; anything else is Unknown."""
    size = len(data)
    # By the tags of an ack, its id of 16 bytes and its time, and the lengths of them.
    if 24 <= size < 128 and (
        (data[0], data[1], data[2], data[3], data[20], data[21]) == (0x0A, size - 2, 0x0A, 16, 0x12, size - 22)
    ):
        # An ack of one of our ids: by hand, and its time is only decoded when somebody looks.
        return frames.Ack(data[4:20], data[22:])
    reply = ensign_pb2.PublisherReply.FromString(data)
    kind = reply.WhichOneof("embed")
    if kind == "ack":
        ack = reply.ack
        return frames.Ack(ack.id, ack.committed.seconds * _SECOND + ack.committed.nanos or None)
    if kind == "nack":
        return frames.Nack(reply.nack.id, code_of(reply.nack.code), reply.nack.error)
    if kind == "ready":
        return _ready(reply.ready)
    if kind == "close_stream":
        end = reply.close_stream
        return frames.CloseStream(end.events, end.topics, end.acks, end.nacks)
    return frames.Unknown(kind or "")


def acknowledges(id: bytes, data: bytes) -> bool:
    """Tell whether a message is the ack of an id of 16 bytes, which ``decode_publisher_reply`` then takes by hand."""
    size = len(data)
    return (
        24 <= size < 128
        and data[4:20] == id
        and (data[0], data[1], data[2], data[3], data[20], data[21]) == (0x0A, size - 2, 0x0A, 16, 0x12, size - 22)
    )


# the subscribe stream, from the client's side


def encode_subscriber_frame(frame: Any) -> bytes:
    """Encode a Subscription, Ack or Nack."""
    if type(frame) is frames.Ack and len(frame.id) == RLID.size:
        return b"\x0a\x0c\x0a\x0a" + frame.id
    request = ensign_pb2.SubscribeRequest()
    if isinstance(frame, frames.Ack):
        request.ack.id = frame.id
    elif isinstance(frame, frames.Nack):
        request.nack.id = frame.id
        request.nack.code = int(frame.code)  # type: ignore[assignment]
    elif isinstance(frame, frames.Subscription):
        subscription = request.subscription
        subscription.client_id = frame.client_id
        subscription.topics.extend(frame.topics)
        if frame.group:
            subscription.group.CopyFrom(groups_pb2.ConsumerGroup(name=frame.group))
        if frame.query:
            subscription.query.CopyFrom(query_pb2.Query(query=frame.query))
    else:
        raise EnsignTypeError(f"a subscriber does not send {type(frame).__name__}")
    return request.SerializeToString()


def decode_subscribe_reply(data: bytes) -> Any:
    """Decode a Delivery or Ready; anything else is Unknown."""
    delivery = read_reply(data)
    if delivery is not None:
        return delivery
    reply = ensign_pb2.SubscribeReply.FromString(data)
    kind = reply.WhichOneof("embed")
    if kind == "event":
        return _delivery(reply.event)
    if kind == "ready":
        return _ready(reply.ready)
    return frames.Unknown(kind or "")


def decode_row(data: bytes) -> frames.Delivery:
    """Decode a row of a query."""
    return read_row(data) or _delivery(event_pb2.EventWrapper.FromString(data))


def decode_row_with_origin(data: bytes) -> frames.Delivery:
    """Decode a row of a query, and by which client it was published."""
    wrapper = event_pb2.EventWrapper.FromString(data)
    return _delivery(wrapper)._replace(origin=wrapper.publisher.client_id)


# both streams, from the server's side


class Wrapper:
    """An event as a publisher sent it, for the server: what it may read, and how it is stored."""

    __slots__ = ("_proto",)

    def __init__(self, proto: event_pb2.EventWrapper) -> None:
        self._proto = proto

    @property
    def topic_id(self) -> bytes:
        """The topic it is for, unchecked."""
        return self._proto.topic_id

    @property
    def local_id(self) -> bytes:
        """The publisher's own id."""
        return self._proto.local_id

    @property
    def payload(self) -> bytes:
        """The encoded event, unchecked."""
        return self._proto.event

    def stored(self, id: bytes, publisher: bytes) -> bytes:
        """Return the bytes to store: with the server's id and publisher, without the local id, else as sent."""
        proto = self._proto
        proto.id = id
        proto.ClearField("local_id")
        proto.publisher.ParseFromString(publisher)
        return proto.SerializeToString()


def encode_publisher(publisher_id: str, ipaddr: str, client_id: str, user_agent: str) -> bytes:
    """Encode who published, as it is stored with each event of a stream."""
    return event_pb2.Publisher(
        publisher_id=publisher_id, ipaddr=ipaddr, client_id=client_id, user_agent=user_agent
    ).SerializeToString()


def decode_publisher_request(data: bytes) -> Any:
    """Decode an OpenStream or a Wrapper; anything else is Unknown."""
    request = ensign_pb2.PublisherRequest.FromString(data)
    kind = request.WhichOneof("embed")
    if kind == "event":
        return Wrapper(request.event)
    if kind == "open_stream":
        return frames.OpenStream(request.open_stream.client_id, tuple(request.open_stream.topics))
    return frames.Unknown()


def encode_publisher_reply(frame: Any) -> bytes:
    """Encode an Ack, Nack, Ready or CloseStream."""
    reply = ensign_pb2.PublisherReply()
    if isinstance(frame, frames.Ack):
        reply.ack.id = frame.id
        committed = frame._committed
        if isinstance(committed, int):
            reply.ack.committed.seconds, reply.ack.committed.nanos = divmod(committed, _SECOND)
    elif isinstance(frame, frames.Nack):
        reply.nack.id, reply.nack.error = frame.id, frame.error
        reply.nack.code = int(frame.code)  # type: ignore[assignment]
    elif isinstance(frame, frames.Ready):
        _put_ready(reply.ready, frame)
    elif isinstance(frame, frames.CloseStream):
        reply.close_stream.SetInParent()
        for name, value in frame._asdict().items():
            setattr(reply.close_stream, name, value)
    else:
        raise EnsignTypeError(f"a server does not send {type(frame).__name__} to a publisher")
    return reply.SerializeToString()


def decode_subscribe_request(data: bytes) -> Any:
    """Decode a Subscription, Ack or Nack; anything else is Unknown."""
    request = ensign_pb2.SubscribeRequest.FromString(data)
    kind = request.WhichOneof("embed")
    if kind == "subscription":
        asked = request.subscription
        group = asked.group.name or asked.group.id.hex()
        return frames.Subscription(asked.client_id, tuple(asked.topics), group, asked.query.query)
    if kind == "ack":
        return frames.Ack(request.ack.id)
    if kind == "nack":
        return frames.Nack(request.nack.id, code_of(request.nack.code), request.nack.error)
    return frames.Unknown()


class GroupRequest(NamedTuple):
    """The consumer group of a subscription: its names, how it delivers, its patience in seconds (0 if not set)."""

    id: bytes
    name: str
    at_most_once: bool
    timeout: float


def decode_group(data: bytes) -> Optional[GroupRequest]:
    """Decode the consumer group in a subscriber's first message, None if it names none."""
    group = ensign_pb2.SubscribeRequest.FromString(data).subscription.group
    if not group.id and not group.name:
        return None
    at_most_once = group.delivery == groups_pb2.AT_MOST_ONCE
    timeout = group.delivery_timeout
    return GroupRequest(group.id, group.name, at_most_once, max(0.0, timeout.seconds + timeout.nanos / 1e9))


def encode_subscribe_ready(frame: frames.Ready) -> bytes:
    """Encode the first message to a subscriber."""
    reply = ensign_pb2.SubscribeReply()
    _put_ready(reply.ready, frame)
    return reply.SerializeToString()


def encode_live(stored: bytes, committed_ns: int) -> bytes:
    """Encode a stored event for subscribers."""
    row = encode_row(stored, committed_ns)
    return b"".join((b"\x0a", varint(len(row)), row))


def encode_row(stored: bytes, committed_ns: int) -> bytes:
    """Encode a stored event with its time: messages can be joined, so the time is simply put behind."""
    seconds, nanos = divmod(committed_ns, _SECOND)
    stamp = b"\x08" + varint(seconds) + b"\x10" + varint(nanos)  # zero too: it overrides what a publisher put there
    return b"".join((stored, b"\x7a", varint(len(stamp)), stamp))


# pieces


def _ready(ready: Any) -> frames.Ready:
    topics: Dict[str, bytes] = dict(ready.topics)
    return frames.Ready(ready.client_id, ready.server_id, topics)


def _put_ready(target: Any, frame: frames.Ready) -> None:
    target.SetInParent()
    target.client_id, target.server_id = frame.client_id, frame.server_id
    for name, topic_id in frame.topics.items():
        target.topics[name] = topic_id


def _delivery(wrapper: Any) -> frames.Delivery:
    committed: Optional[int] = None
    if wrapper.HasField("committed"):
        committed = wrapper.committed.seconds * _SECOND + wrapper.committed.nanos
    return frames.Delivery(wrapper.id, wrapper.topic_id, wrapper.event, committed, wrapper.is_duplicate)
