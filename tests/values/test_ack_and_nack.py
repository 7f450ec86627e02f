"""Ack, Nack and the codes of refusal."""

import copy
import pickle
from datetime import datetime, timedelta, timezone

from ensign_sync import nack
from ensign_sync.ack import Ack
from ensign_sync.nack import Code, Nack
from ensign_sync.times import Instant
from tests.tables import each

NS = 1_700_000_000_123_456_789
CODES = [
    ("UNKNOWN", "Unknown", 0),
    ("MAX_EVENT_SIZE_EXCEEDED", "MaxEventSizeExceeded", 1),
    ("TOPIC_UNKNOWN", "TopicUnknown", 2),
    ("TOPIC_ARCHIVED", "TopicArchived", 3),
    ("TOPIC_DELETED", "TopicDeleted", 4),
    ("PERMISSION_DENIED", "PermissionDenied", 5),
    ("CONSENSUS_FAILURE", "ConsensusFailure", 6),
    ("SHARDING_FAILURE", "ShardingFailure", 7),
    ("REDIRECT", "Redirect", 8),
    ("INTERNAL", "Internal", 9),
    ("UNPROCESSED", "Unprocessed", 100),
    ("TIMEOUT", "Timeout", 101),
    ("UNHANDLED_MIMETYPE", "UnhandledMimetype", 102),
    ("UNKNOWN_TYPE", "UnknownType", 103),
    ("DELIVER_AGAIN_ANY", "DeliverAgainAny", 104),
    ("DELIVER_AGAIN_NOT_ME", "DeliverAgainNotMe", 105),
]


def test_codes():
    """Each code stands in both spellings, is its number, and shows its name."""
    for upper, title, number in CODES:
        code = getattr(nack, upper)
        assert code is getattr(nack, title) is nack.code_of(number) is Code(number)
        assert code == number and isinstance(code, int)
        assert str(code) == upper
        assert pickle.loads(pickle.dumps(code)) is copy.deepcopy(code) is code


def test_code_in_a_text():
    """A code shows its name in an f-string and in format() too, on each Python."""
    assert f"{Code.TOPIC_UNKNOWN}" == format(Code.TOPIC_UNKNOWN) == f"{Code.TOPIC_UNKNOWN!s}" == "TOPIC_UNKNOWN"
    assert f"{Code.TOPIC_UNKNOWN:d}" == "2"


def test_codes_are_complete():
    """There are exactly these codes; each but UNKNOWN has a text of the server."""
    assert [(code.name, code.value) for code in Code] == [(upper, number) for upper, _, number in CODES]
    assert set(nack.DEFAULT_TEXTS) == set(Code) - {Code.UNKNOWN}
    assert nack.DEFAULT_TEXTS[1] == "maximum event size has been exceeded"


@each("number", [10, 99, 106, -1])
def test_unknown_code(number):
    """A code that this version does not know stays a number."""
    assert nack.code_of(number) == number
    assert not isinstance(nack.code_of(number), Code)
    assert str(Nack(b"x", number, "why")) == f"id: b'x'\ncode: {number}\nerror: why"


def test_nack():
    """A nack has id, code and error, three lines of text, and compares by them."""
    refused = Nack(b"\x01", Code.TOPIC_UNKNOWN, "topic unknown or unhandled")
    assert (refused.id, refused.code, refused.error) == (b"\x01", 2, "topic unknown or unhandled")
    assert str(refused) == "id: b'\\x01'\ncode: TOPIC_UNKNOWN\nerror: topic unknown or unhandled"
    assert refused == Nack(id=b"\x01", code=Code(2), error="topic unknown or unhandled")
    assert refused != Nack(b"\x01", Code.INTERNAL)
    assert Nack(b"\x01", Code.INTERNAL).error == ""
    assert pickle.loads(pickle.dumps(refused)) == copy.deepcopy(refused) == refused


@each(
    "committed",
    [
        NS,
        Instant.from_ns(NS),
        datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=timezone.utc),
        datetime(2023, 11, 15, 0, 13, 20, 123456, tzinfo=timezone(timedelta(hours=2))),
    ],
    ids=["ns", "instant", "utc", "zone"],
)
def test_committed(committed):
    """The time is an Instant in UTC, of whatever it was made."""
    acked = Ack(b"id", committed)
    assert type(acked.committed) is Instant
    assert acked.committed.seconds == 1_700_000_000
    assert acked.committed.nanos // 1000 == 123_456
    assert str(acked) == "id: b'id'\ncommitted: 2023-11-14 22:13:20.123456+00:00"


def test_ack_keeps_nanoseconds():
    """The server's nanoseconds are not lost."""
    assert Ack(b"id", NS).committed.ns == Ack(b"id", Instant.from_ns(NS)).committed.ns == NS


def test_ack_without_time():
    """A server that says no time leaves None."""
    for acked in (Ack(b"id"), Ack(id=b"id", committed=None)):
        assert acked.id == b"id"
        assert acked.committed is None
        assert str(acked) == "id: b'id'\ncommitted: None"


def test_ack_equality():
    """Acks are equal when id and time are, hash alike then, and equal nothing else."""
    assert Ack(b"id", NS) == Ack(b"id", Instant.from_ns(NS))
    assert hash(Ack(b"id", NS)) == hash(Ack(b"id", Instant.from_ns(NS)))
    assert Ack(b"id", NS) != Ack(b"id")
    assert Ack(b"id", NS) != Ack(b"other", NS)
    assert Ack(b"id") != b"id"
    assert repr(Ack(b"id")) == "Ack(id=b'id', committed=None)"


def test_ack_copies():
    """An ack can be pickled and copied."""
    acked = Ack(b"id", NS)
    for other in (pickle.loads(pickle.dumps(acked)), copy.deepcopy(acked), copy.copy(acked)):
        assert other == acked
        assert other.committed.ns == NS
