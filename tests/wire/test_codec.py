"""Bytes: what is encoded by hand is what protobuf would write, and everything survives the way there and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2
from ensign_sync.events import Event, Type
from ensign_sync.exceptions import EnsignTypeError
from ensign_sync.ids import RLID, ULID
from ensign_sync.nack import Code
from ensign_sync.protocol import frames
from ensign_sync.times import Instant
from ensign_sync.wire import codec
from tests.size import by_size

QUICK = settings(max_examples=by_size(25, 50, 500, 5_000), deadline=None)
ids16 = st.binary(min_size=16, max_size=16)
TOPICS = st.dictionaries(st.text("abc.-_1", min_size=1, max_size=10), ids16, max_size=3)
TEXT = st.text("ab \n\0äß漢\U0001f600", max_size=10)


@QUICK
@given(topic=st.binary(max_size=200), local=st.binary(max_size=200), payload=st.binary(max_size=40_000))
def test_a_publication_is_what_protobuf_writes(topic, local, payload):
    """The request made by hand means the same to protobuf, whatever the lengths."""
    request = ensign_pb2.PublisherRequest.FromString(
        codec.encode_publisher_frame(frames.Publication(topic, local, payload))
    )
    assert (request.event.topic_id, request.event.local_id, request.event.event) == (topic, local, payload)
    assert request.WhichOneof("embed") == "event"


@QUICK
@given(size=st.one_of(st.integers(1, 300), st.integers(8_000, 9_000), st.integers(60_000, 70_000)))
def test_a_large_event_is_put_together_when_it_is_sent(size):
    """Whether an event is kept whole or in pieces, its request is what protobuf writes, of the size that was told."""
    event = Event(bytes(size), meta={"key": "value"})
    payload = codec.encode_event(event)
    proto = event_pb2.Event.FromString(bytes(payload))
    assert (proto.data, dict(proto.metadata), len(payload)) == (event.data, event.meta, proto.ByteSize())
    encoded = codec.joined(codec.encode_publisher_frame(frames.Publication(bytes(16), bytes(16), payload)))
    request = ensign_pb2.PublisherRequest.FromString(encoded)
    assert request.event.event == bytes(payload)
    assert codec.request_size(payload) == request.ByteSize() == len(encoded)


@QUICK
@given(size=st.one_of(st.integers(0, 300), st.integers(16_300, 16_400), st.integers(2**21 - 100, 2**21 + 100)))
def test_request_size_is_exact(size):
    """The size that is checked before sending is the size that is sent."""
    payload = bytes(size)
    encoded = codec.encode_publisher_frame(frames.Publication(bytes(16), bytes(16), payload))
    assert codec.request_size(payload) == len(encoded)


@QUICK
@given(
    data=st.binary(min_size=1, max_size=100),
    mimetype=st.sampled_from([0, 1, 50, 514, 1009]),
    name=st.text("abcXYZ09_äß漢", min_size=1, max_size=10),
    version=st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
    meta=st.dictionaries(TEXT, TEXT, max_size=4),
    created=st.integers(0, 4 * 10**18),
    committed=st.none() | st.integers(1, 4 * 10**18),
    sequence=st.integers(0, 2**32 - 1),
)
def test_an_event_survives_the_way_there_and_back(data, mimetype, name, version, meta, created, committed, sequence):
    """Everything that a publisher set is what a subscriber reads."""
    event = Event(data, mimetype, name, ".".join(map(str, version)), meta)
    event.created = Instant.from_ns(created)
    id = RLID.of(1_700_000_000_000, sequence)
    delivery = frames.Delivery(id.bytes, bytes(16), codec.encode_event(event), committed)
    back = codec.decode_event(delivery, "weather")
    assert (back.data, back.mimetype, back.type, back.meta) == (data, mimetype, event.type, meta)
    assert back.id == id
    assert back.topic == "weather"
    assert (back.created.ns if back.created else 0) == created
    assert back.committed.ns == (committed if committed is not None else id.milliseconds * 1_000_000)


@QUICK
@given(
    data=st.binary(min_size=1, max_size=300),
    mimetype=st.sampled_from([0, 1, 50, 514, 1009]),
    name=st.text("abcXYZ09_äß漢", min_size=1, max_size=10),
    version=st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
    meta=st.dictionaries(TEXT, TEXT | st.integers(100, 300).map("x".__mul__), max_size=4),
    created=st.integers(1, 2**63 - 1) | st.integers(1, 4 * 10**9).map(lambda s: s * 10**9),
)
def test_an_event_is_what_protobuf_writes(data, mimetype, name, version, meta, created):
    """The event made by hand means the same to protobuf, which would not write it in fewer bytes."""
    event = Event(data, mimetype, name, ".".join(map(str, version)), meta)
    event._created = created
    for _ in range(2):  # the second time its kind is known
        encoded = bytes(codec.encode_event(event))
        proto = event_pb2.Event.FromString(encoded)
        kind = proto.type
        assert (proto.data, dict(proto.metadata), proto.mimetype, kind.name) == (data, meta, mimetype, name)
        assert (kind.major_version, kind.minor_version, kind.patch_version) == version
        assert proto.created.seconds * 10**9 + proto.created.nanos == created
        assert proto.ByteSize() == len(encoded)


@pytest.mark.parametrize("value", [1, None, "\ud800"], ids=repr)
def test_metadata_that_is_no_text(value):
    """What somebody put there after the event was made is refused."""
    event = Event(b"x", meta={"a": "b"})
    event.meta["key"] = value
    with pytest.raises((TypeError, ValueError)):
        codec.encode_event(event)


class Overridden(Event):
    """An event that says itself what it is."""

    @property
    def type(self):
        return Type("overridden", "9.9.9")


def test_what_a_subclass_overrides_is_sent():
    """It is asked as anybody would ask it."""
    proto = event_pb2.Event.FromString(bytes(codec.encode_event(Overridden(b"x"))))
    assert proto.type.name == "overridden"


@pytest.mark.parametrize("meta", [None, (), []], ids=repr)
def test_metadata_that_was_taken_away(meta):
    """It is none."""
    event = Event(b"x", meta={"a": "b"})
    event.meta = meta
    assert not event_pb2.Event.FromString(bytes(codec.encode_event(event))).metadata


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x0a\x05abc", bytes(range(256))], ids=repr)
def test_what_is_no_event_becomes_data(payload):
    """A payload that cannot be decoded is handed out as it is."""
    back = codec.decode_event(frames.Delivery(b"short", bytes(16), payload), "")
    assert back.data == payload
    assert back.id is None


@QUICK
@given(id=st.binary(max_size=20), committed=st.integers(1, 4 * 10**18))
def test_ack(id, committed):
    """An ack keeps its id and its time."""
    back = codec.decode_publisher_reply(codec.encode_publisher_reply(frames.Ack(id, committed)))
    assert back == frames.Ack(id, committed)
    assert back.committed.ns == committed


def test_ack_without_a_time():
    """A server that does not say when leaves None."""
    assert codec.decode_publisher_reply(codec.encode_publisher_reply(frames.Ack(b"x"))).committed is None


@pytest.mark.parametrize("code", [*Code, 77], ids=str)
def test_nack(code):
    """A nack keeps its id, code and text, also a code that nobody knows."""
    nack = frames.Nack(b"id", code, "why")
    assert codec.decode_publisher_reply(codec.encode_publisher_reply(nack)) == nack


@QUICK
@given(client=TEXT, server=TEXT, topics=TOPICS)
def test_ready_on_both_streams(client, server, topics):
    """Ready keeps its topics on either stream."""
    ready = frames.Ready(client, server, topics)
    assert codec.decode_publisher_reply(codec.encode_publisher_reply(ready)) == ready
    assert codec.decode_subscribe_reply(codec.encode_subscribe_ready(ready)) == ready


def test_the_other_publisher_messages():
    """OpenStream, CloseStream and what nobody knows."""
    opening = frames.OpenStream("me", ("a", "b"))
    assert codec.decode_publisher_request(codec.encode_publisher_frame(opening)) == opening
    closing = frames.CloseStream(1, 2, 3, 4)
    assert codec.decode_publisher_reply(codec.encode_publisher_reply(closing)) == closing
    assert codec.decode_publisher_reply(codec.encode_publisher_reply(frames.CloseStream())) == frames.CloseStream()
    assert codec.decode_publisher_request(b"") == frames.Unknown()
    assert codec.decode_publisher_reply(b"") == frames.Unknown()


def test_the_subscriber_messages():
    """Subscription, Ack and Nack, with and without group and query."""
    for message in (
        frames.Subscription("me", ("a",), "crew", "SELECT * FROM a"),
        frames.Subscription("me"),
        frames.Ack(b"0123456789"),
        frames.Nack(b"0123456789", Code.DELIVER_AGAIN_ANY),
    ):
        assert codec.decode_subscribe_request(codec.encode_subscriber_frame(message)) == message
    assert codec.decode_subscribe_request(b"") == frames.Unknown()
    assert codec.decode_subscribe_reply(b"") == frames.Unknown()


@pytest.mark.parametrize(
    "encode",
    [codec.encode_publisher_frame, codec.encode_subscriber_frame, codec.encode_publisher_reply],
    ids=lambda f: f.__name__,
)
def test_frames_of_the_wrong_side_are_refused(encode):
    """A frame that a role does not send is an error and no message."""
    with pytest.raises(EnsignTypeError, match="Unknown"):
        encode(frames.Unknown())


@QUICK
@given(nanos=st.sampled_from([0, 1, 999_999_999]), stale=st.booleans(), payload=st.binary(max_size=300))
def test_a_live_event_carries_the_time_of_its_commit(nanos, stale, payload):
    """The time put behind the stored bytes is what is read, whatever the publisher had put there."""
    wrapper = event_pb2.EventWrapper(topic_id=bytes(16), event=payload, local_id=b"local", key=b"k", offset=7)
    if stale:
        wrapper.committed.seconds, wrapper.committed.nanos = 5, 77
    request = ensign_pb2.PublisherRequest(event=wrapper)
    received = codec.decode_publisher_request(request.SerializeToString())
    assert (received.topic_id, received.local_id, received.payload) == (bytes(16), b"local", payload)
    id = RLID.of(1_700_000_000_000, 1).bytes
    stored = received.stored(id, codec.encode_publisher("key", "here:1", "me", "test"))
    committed = 1_700_000_000 * 10**9 + nanos
    live = codec.decode_subscribe_reply(codec.encode_live(stored, committed))
    assert live == frames.Delivery(id, bytes(16), payload, committed)
    row = event_pb2.EventWrapper.FromString(stored)
    assert (row.local_id, row.key, row.offset) == (b"", b"k", 7)
    assert row.publisher.publisher_id == "key"


def test_topic_ids_of_any_length():
    """A topic id that is no ULID does not stop a codec; the server answers it."""
    assert codec.encode_publisher_frame(frames.Publication(b"", b"", b""))
    assert ULID(bytes(16)).bytes == bytes(16)


@QUICK
@given(id=ids16 | st.binary(max_size=40), committed=st.none() | st.integers(1, 4 * 10**18))
def test_acks(id, committed):
    """An ack is the same to protobuf and to us, whether it is taken apart by hand or not."""
    data = codec.encode_publisher_reply(frames.Ack(id, committed))
    ack = codec.decode_publisher_reply(data)
    assert (ack.id, ack.committed.ns if ack.committed else None) == (id, committed)
    assert ack == frames.Ack(id, committed)
