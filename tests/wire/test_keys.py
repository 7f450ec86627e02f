"""The key of an event is found in its bytes, and is what protobuf reads as its metadata."""

from ensign_sync.api.v1beta1 import event_pb2
from ensign_sync.events import Event
from ensign_sync.protocol.frames import Delivery, Made
from ensign_sync.wire import codec, keys, reading

MADE = Made(1.5)
NUMBER = 0x01A226E0C20406915A959416BB3BF500
TEXT = "01a226e0c20406915a959416bb3bf500"


def test_a_key_is_the_last_pair_of_metadata():
    """Small or large, with metadata or without; a pair of the same name that stands before it does not hold."""
    for event in (
        Event(b"x"),
        Event(b"x" * 100_000, meta={"a": "b"}),
        Event(b"x", meta={keys.NAME: "theirs", "z": ""}),
    ):
        payload = codec.encode_keyed(event, NUMBER, MADE)
        assert (payload.key, payload.made, len(payload)) == (TEXT.encode(), MADE, len(bytes(payload)))
        assert len(payload) == len(codec.encode_event(event)) + keys.SIZE
        proto = event_pb2.Event.FromString(bytes(payload))
        assert dict(proto.metadata) == {**event.meta, keys.NAME: TEXT}
        assert proto.data == event.data
        assert keys.key_of(bytes(payload)) == payload.key


def test_small_numbers_have_as_many_digits():
    """So that every key is as long."""
    assert codec.encode_keyed(Event(b"x"), 7, MADE).key == b"7".rjust(32, b"0")


def test_no_key():
    """Where the end of an event is not one."""
    for payload in (b"", b"x", bytes(codec.encode_event(Event(b"x", meta={keys.NAME: TEXT})))):
        assert keys.key_of(payload) is None


def test_it_is_read_by_hand(monkeypatch):
    """As protobuf reads it; nonsense in its place is left to that."""
    payload = bytes(codec.encode_keyed(Event(b"x", meta={"a": "b"}), NUMBER, MADE))

    def read(payload):
        return reading.read_event(Delivery(b"i" * 10, b"t" * 16, payload), "topic")

    assert read(payload).meta == {"a": "b", keys.NAME: TEXT}
    assert codec.decode_event(Delivery(b"i" * 10, b"t" * 16, payload), "topic").meta == read(payload).meta
    assert read(payload[:-1] + b"\xff") is None
    assert read(payload[-keys.SIZE :]) is None
    assert read(b"\x12\x01x" + payload[-keys.SIZE :]) is None
