"""Events that are read by hand are what protobuf makes of the same bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2
from ensign_sync.events import Event
from ensign_sync.protocol.frames import Delivery
from ensign_sync.wire import codec, reading
from tests.size import by_size

MANY = settings(max_examples=by_size(300, 100, 500, 50_000), deadline=None)
TEXT = st.text(max_size=20)
SIZES = st.sampled_from([1, 5, 100, 127, 128, 129, 300, 16_383, 16_384, 20_000, 2_097_151, 2_097_152])


@st.composite
def wrappers(draw):
    """Make a stored event as servers and publishers of any kind may."""
    event = event_pb2.Event(mimetype=draw(st.sampled_from([0, 50, 1, 999])))
    event.data = b"d" * draw(SIZES) if draw(st.booleans()) else draw(st.binary(max_size=60))
    for key, value in draw(st.dictionaries(TEXT, TEXT, max_size=2)).items():
        event.metadata[key] = value
    if draw(st.booleans()):
        event.type.name, event.type.major_version = draw(TEXT), draw(st.integers(0, 3))
    if draw(st.booleans()):
        event.created.seconds = draw(st.sampled_from([0, 1, 1_700_000_000, 2**35, -5]))
        event.created.nanos = draw(st.sampled_from([0, 1, 200, 999_999_999, 2**28]))
    wrapper = event_pb2.EventWrapper(id=draw(st.sampled_from([b"i" * 10, b"i" * 9, b""])), topic_id=b"t" * 16)
    payload = event.SerializeToString()
    wrapper.event = draw(st.sampled_from([payload, payload, payload, payload[:-1], payload + payload, b"\xff\xff"]))
    wrapper.offset, wrapper.epoch = draw(st.sampled_from([(0, 0), (1, 1), (200, 1)]))
    if draw(st.booleans()):
        wrapper.publisher.client_id = "c" * draw(st.sampled_from([1, 30, 200]))
    if draw(st.booleans()):
        wrapper.committed.seconds, wrapper.committed.nanos = 1_700_000_000, draw(st.integers(0, 999_999_999))
    wrapper.is_duplicate = draw(st.sampled_from([False, False, True]))
    wrapper.key = draw(st.sampled_from([b"", b"", b"key"]))
    return wrapper


def by_protobuf(function, *args):
    """Do the same without the short ways."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("read_reply", "read_row", "read_event"):
            patch.setattr(codec, name, lambda *args: None)
        return function(*args)


def looked_at(delivery):
    """Return a delivery with its time as it is looked at."""
    return delivery._replace(committed=Event.committed.fget(codec.decode_event(delivery, "")))


def everything(event):
    """Return all that a program can see of an event."""
    names = ("data", "mimetype", "type", "meta", "created", "committed", "id", "topic")
    return [getattr(event, name) for name in names]


@MANY
@given(wrapper=wrappers())
def test_the_same(wrapper):
    """Replies, rows and events, however they are made."""
    for function, data in (
        (codec.decode_subscribe_reply, ensign_pb2.SubscribeReply(event=wrapper).SerializeToString()),
        (codec.decode_row, wrapper.SerializeToString()),
    ):
        expected = by_protobuf(function, data)
        assert looked_at(function(data)) == looked_at(expected)
        for topic in ("a", "a"):  # the second time what stands in the middle is known
            event = codec.decode_event(function(data), topic)
            assert everything(event) == everything(by_protobuf(codec.decode_event, expected, topic))


@MANY
@given(wrapper=wrappers(), cut=st.integers(1, 80), flip=st.integers(0, 80))
def test_broken(wrapper, cut, flip):
    """Bytes that were cut or changed are what protobuf makes of them, or no event for both."""
    data = bytearray(wrapper.SerializeToString()[:200])
    data[flip % len(data)] ^= 1 << flip % 8
    broken = bytes(data[: max(1, len(data) - cut)])
    for message in (broken, bytes(data)):
        try:
            expected = by_protobuf(codec.decode_row, message)
        except Exception:
            expected = None
        read = reading.read_row(message)
        if read is not None and expected is not None:
            assert looked_at(read)[:3] == looked_at(expected)[:3]


def test_the_short_way_is_taken():
    """What our own publishers and servers make is read by hand."""
    payload = bytes(codec.encode_event(Event(b"x" * 100, meta={"source": "here"}, schema_name="R")))
    wrapper = event_pb2.EventWrapper(id=b"i" * 10, topic_id=b"t" * 16, event=payload)
    wrapper.publisher.client_id = "me"
    row = codec.encode_row(wrapper.SerializeToString(), 1_700_000_000_123_456_789)
    delivery = reading.read_row(row)
    assert isinstance(delivery, Delivery) and delivery.payload == payload
    event = reading.read_event(delivery, "weather")
    assert (event.data, event.meta, event.type.name, event.topic) == (b"x" * 100, {"source": "here"}, "R", "weather")
    assert event.committed.ns == 1_700_000_000_123_456_789
    event.meta["more"] = "x"
    assert reading.read_event(delivery, "weather").meta == {"source": "here"}
