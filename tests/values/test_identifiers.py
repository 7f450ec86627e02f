"""Identifiers and the hash of topic names."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.ids import RLID, ULID, is_ulid, murmur3_128, topic_name_hash
from ensign_sync.times import Instant, time_ns
from tests.size import by_size
from tests.tables import each

QUICK = settings(max_examples=by_size(10, 50, 500, 5_000), deadline=None)
KINDS = [ULID, RLID]
RAW = {ULID: st.binary(min_size=16, max_size=16), RLID: st.binary(min_size=10, max_size=10)}

VECTORS = [
    (RLID, "0183425f666f006feb6b", "061m4qv6dw06ztvb", 0x0183425F666F),
    (RLID, "018bcfe5687b0000002a", "065wzsb8fc00001a", 1_700_000_000_123),
    (RLID, "00" * 10, "0" * 16, 0),
    (RLID, "ff" * 10, "z" * 16, 281_474_976_710_655),
    (ULID, "01563e3ab5d3d6764c61efb99302bd5b", "01ARZ3NDEKTSV4RRFFQ69G5FAV", 1_469_922_850_259),
    (ULID, "00" * 16, "0" * 26, 0),
    (ULID, "ff" * 16, "7" + "Z" * 25, 281_474_976_710_655),
]


@each(("kind", "raw", "text", "milliseconds"), VECTORS)
def test_vectors(kind, raw, text, milliseconds):
    """Known identifiers: bytes to text and back, in both cases, and the milliseconds in them."""
    raw = bytes.fromhex(raw)
    for source in (raw, bytearray(raw), text, text.upper(), text.lower(), kind(raw)):
        for identifier in (kind(source), kind.parse(source)):
            assert type(identifier) is kind
            assert identifier.bytes == bytes(identifier) == raw
            assert str(identifier) == text
            assert repr(identifier) == f"{kind.__name__}({text!r})"
            assert identifier.milliseconds == milliseconds


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(st.data())
def test_round_trip(kind, data):
    """Any bytes survive the way through text, pickle and copy."""
    raw = data.draw(RAW[kind])
    identifier = kind(raw)
    assert kind(str(identifier)).bytes == raw
    for other in (pickle.loads(pickle.dumps(identifier)), copy.copy(identifier), copy.deepcopy(identifier)):
        assert type(other) is kind
        assert other.bytes == raw


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(st.data())
def test_order(kind, data):
    """The order of identifiers is that of their bytes and that of their texts."""
    first, second = data.draw(RAW[kind]), data.draw(RAW[kind])
    a, b = kind(first), kind(second)
    assert (a < b) == (first < second) == (str(a) < str(b))
    assert (a <= b) == (first <= second)
    assert (a > b) == (first > second)
    assert (a >= b) == (first >= second)
    assert (a == b) == (first == second) == (str(a) == str(b))


@each("kind", KINDS)
def test_equality(kind):
    """An identifier equals its bytes and its text in any case, from both sides, and hashes as its bytes."""
    identifier = kind(bytes(range(1, kind.size + 1)))
    other = kind(bytes(kind.size))
    for same in (identifier.bytes, str(identifier), str(identifier).upper(), str(identifier).lower()):
        assert identifier == same and same == identifier
        assert other != same and same != other
    assert hash(identifier) == hash(identifier.bytes)
    assert {identifier: 1}[identifier.bytes] == {identifier.bytes: 1}[identifier] == 1
    for stranger in (None, 5, "", "x" * kind.length, str(identifier) + "0", b"", identifier.bytes + b"\0", object()):
        assert identifier != stranger


@each("kind", KINDS)
def test_order_with_bytes_and_text(kind):
    """Bytes and text take part in the order; what is no identifier is a TypeError."""
    low, high = kind(b"\x01" * kind.size), kind(b"\x02" * kind.size)
    for value in (low.bytes, str(low)):
        assert value < high and high > value
        assert low <= value and value >= low
    for stranger in (5, None, "nonsense"):
        with pytest.raises(TypeError):
            low < stranger  # noqa: B015
    assert sorted([high, low]) == [low, high] == sorted([high, low], key=str)


def test_kinds_differ():
    """An identifier of one kind does not equal one of the other."""
    assert ULID(bytes(16)) != RLID(bytes(10))


def test_time():
    """The time of an identifier is its milliseconds as an instant."""
    identifier = RLID("065wzsb8fc00001a")
    assert type(identifier.time) is Instant
    assert identifier.time.ns == 1_700_000_000_123_000_000
    assert ULID("01ARZ3NDEKTSV4RRFFQ69G5FAV").time.isoformat() == "2016-07-30T23:54:10.259000+00:00"


def test_time_beyond_the_calendar():
    """An identifier of a year that no calendar has can be used all but for its time, which is a ValueError."""
    identifier = ULID(b"\xff" * 16)
    assert str(identifier).startswith("7ZZ")
    with pytest.raises(ValueError, match="outside the years"):
        identifier.time  # noqa: B018


@each(("milliseconds", "sequence"), [(0, 0), (1_700_000_000_123, 42), (2**48 - 1, 2**32 - 1)])
def test_rlid_parts(milliseconds, sequence):
    """An RLID is put together from time and counter, and taken apart again."""
    identifier = RLID.of(milliseconds, sequence)
    assert (identifier.milliseconds, identifier.sequence) == (milliseconds, sequence)


def test_rlid_counter_wraps():
    """The counter has 32 bits and starts again after the last."""
    assert RLID.of(7, 2**32).sequence == 0
    assert RLID.of(7, 2**32 + 5) == RLID.of(7, 5)


def test_new_ulid():
    """A new ULID carries the present and differs from the next."""
    before = time_ns() // 1_000_000
    made = [ULID.new() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(before <= identifier.milliseconds <= time_ns() // 1_000_000 for identifier in made)


BAD_TEXTS = [
    (ULID, "", "''"),
    (ULID, "short", "'short'"),
    (ULID, "0" * 27, "0" * 27),
    (ULID, "8" + "0" * 25, "8" + "0" * 25),
    (ULID, "Z" * 26, "Z" * 26),
    (ULID, "0" * 25 + "I", "'I'"),
    (ULID, "0" * 25 + " ", "' '"),
    (RLID, "065wzsb8fc00001", "065wzsb8fc00001"),
    (RLID, "065wzsb8fc00001aa", "065wzsb8fc00001aa"),
    (RLID, "065wzsb8fc00001٣", "٣"),
    *[(RLID, "0" * 15 + letter, f"'{letter}'") for letter in "ilouILOU-é\n"],
]


def test_bad_text():
    """A text of the wrong length, with a wrong character or too large is a ValueError that shows it."""
    for kind, text, named in BAD_TEXTS:
        with pytest.raises(ValueError) as caught:
            kind(text)
        assert kind.__name__ in str(caught.value)
        assert named in str(caught.value) or repr(text) in str(caught.value)


@each("kind", KINDS)
def test_bad_bytes(kind):
    """Bytes of the wrong length are a ValueError that names both lengths."""
    for size in (0, 1, 9, 11, 15, 17, 26):
        with pytest.raises(ValueError, match=f"{kind.__name__} has {kind.size} bytes, got {size}"):
            kind(bytes(size))


def test_kinds_are_not_converted():
    """A ULID is no RLID: the lengths differ."""
    with pytest.raises(ValueError, match="RLID has 10 bytes, got 16"):
        RLID(ULID.new())


def test_bad_type():
    """What is neither bytes nor text is a TypeError that names the type."""
    for value in (None, 5, 1.5, ["0" * 26], object()):
        with pytest.raises(TypeError, match=f"ULID is made of bytes or text, not {type(value).__name__}"):
            ULID(value)


FORMS = [
    ("01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
    ("01arz3ndektsv4rrffq69g5fav", True),
    ("7" + "Z" * 25, True),
    ("8" + "0" * 25, False),
    ("a" * 26, False),
    ("0" * 25, False),
    ("0" * 27, False),
    ("", False),
    ("0" * 25 + "U", False),
    ("my-topic-of-26-characters!", False),
]


def test_is_ulid():
    """The form of a ULID, in either case; what has it can be parsed."""
    for text, expected in FORMS:
        assert is_ulid(text) is expected, text
        if expected:
            assert ULID(text) == text


@QUICK
@given(st.text("017890aAzZiIuU", min_size=25, max_size=27))
def test_is_ulid_agrees(text):
    """A text has the form exactly if it can be parsed."""
    try:
        ULID(text)
    except ValueError:
        assert not is_ulid(text)
    else:
        assert is_ulid(text)


TOPIC_NAMES = [
    ("", "AAAAAAAAAAAAAAAAAAAAAA"),
    ("mock1", "lVEWQE8IkIM1MokVF0V1mw"),
    ("testing.testapp.shipments", "aGdsSRMLeh-urMLeQu2XRQ"),
    ("testing.topics.topica", "IdTcxHgZmlLM8oBj_YytLw"),
    ("testing.topics.topicb", "F7x4fhbO4EhHVNDmBjMRIQ"),
    ("orders", "eSzJgKSXQbxMxa_A-KmQMQ"),
    ("größe", "ltkOAteswhE9jvt-ieiIrQ"),
]


def test_topic_name_hash():
    """The hash of a name is unpadded URL-safe base64 of 22 characters."""
    for name, text in TOPIC_NAMES:
        assert topic_name_hash(name) == text


MURMUR = [
    (0, "00000000000000000000000000000000"),
    (1, "7ace5c908374fe16778867e4430e6785"),
    (7, "ee338173b524c1ec85669269c8324fc8"),
    (8, "afaa785ecc16210724b42e30cdda0436"),
    (9, "6aa3c342eeee051061b89e7903dd2b41"),
    (15, "aa4e3f21767eac61dcf608ed9febda3b"),
    (16, "e6a3b14a6ecdcfe9ed09a0563ebddf22"),
    (17, "5488322dfad670f0f496873b7c201f53"),
    (24, "6a2dacf0ed5550c9604163711143b3a8"),
    (25, "e607f2d0bbb1445fd394c1dab68eed19"),
    (31, "5101548f28ddf5caf9893bc97ec3284c"),
    (32, "eb44762a16117b3dbbe9d7c2a9ec01da"),
    (33, "78859956a2d5c048aeafa75d4b29eff1"),
]


def test_murmur_lengths():
    """The hash agrees with the reference implementation around each length where it takes another path."""
    for length, expected in MURMUR:
        assert murmur3_128(bytes((i * 37 + 1) % 256 for i in range(length))).hex() == expected


PUBLISHED = [
    (b"hello", "cbd8a7b341bd9b025b1e906a48ae1d19"),
    (b"The quick brown fox jumps over the lazy dog", "e34bbc7bbc071b6c7a433ca9c49a9347"),
]


def test_murmur_vectors():
    """Published vectors of murmur3 x64 128."""
    for data, expected in PUBLISHED:
        assert murmur3_128(data).hex() == expected
