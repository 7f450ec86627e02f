"""Deduplication: which events are the same, how the second is stored, and what comes back of it."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.api.v1beta1 import event_pb2, topic_pb2
from ensign_sync.ids import RLID
from ensign_sync.wire.codec import BadMessage
from ensign_sync.wire.dedup import Policy, equal, fingerprint, mark, peek, rebuild, unmark, with_policy
from tests.size import by_size
from tests.tables import each

QUICK = settings(max_examples=by_size(25, 25, 250, 5_000), deadline=None)

UNKNOWN, NONE, STRICT, DATAGRAM, KEY_GROUPED, UNIQUE_KEY, UNIQUE_FIELD = range(7)
EARLIEST, LATEST = 1, 2
DEDUPLICATING = [
    Policy(STRICT),
    Policy(DATAGRAM),
    Policy(KEY_GROUPED, keys=("a", "b")),
    Policy(UNIQUE_KEY, keys=("a", "b")),
    Policy(UNIQUE_FIELD, fields=("a", "b")),
]
NO_KEYS, NO_FIELDS = "no keys specified for key based hashing", "no fields specified for field based hashing"
NOT_KEYS, NOT_FIELDS = "do not specify keys for this policy", "do not specify fields for this policy"

#: A length that leads nowhere, the end of a group that did not begin, field number 0, a tag without an end.
NO_MESSAGES = [b"\x12\x7fab", b"\x0c", b"\x12\x01a\x0cjunk", b"\x00\x01", b"\xff" * 12]
#: Key and value of the metadata and name of the type, no UTF-8.
GARBAGE = [*NO_MESSAGES, b"\x1a\x03\x0a\x01\xff", b"\x1a\x06\x0a\x01a\x12\x01\xff", b"\x2a\x03\x0a\x01\xff"]
#: Field 900, which no message has.
UNKNOWN_FIELD = b"\xa2\x38\x03new"

FIRST, SECOND = RLID.of(1_700_000_000_000, 1).bytes, RLID.of(1_700_000_000_000, 2).bytes


def encode(data=b"", meta=(), mimetype=0, kind=None, created=0):
    """Encode an event; a kind is (name, major, minor, patch)."""
    event = event_pb2.Event(data=data, metadata=dict(meta), mimetype=mimetype)
    if kind is not None:
        event.type.SetInParent()
        event.type.name, event.type.major_version, event.type.minor_version, event.type.patch_version = kind
    if created:
        event.created.seconds = created
    return event.SerializeToString()


def parts(event):
    """Return data, metadata, mimetype and type of an encoded event."""
    proto = event_pb2.Event.FromString(event)
    kind = proto.type
    version = (kind.name, kind.major_version, kind.minor_version, kind.patch_version)
    return proto.data, dict(proto.metadata), proto.mimetype, version if proto.HasField("type") else None


def wrap(event, id=FIRST, **fields):
    """Encode a stored event."""
    return event_pb2.EventWrapper(id=id, topic_id=bytes(16), event=event, **fields).SerializeToString()


def unwrap(wrapper):
    """Return the encoded event of a stored one."""
    return event_pb2.EventWrapper.FromString(wrapper).event


#: Few values, so that two events are often the same in some part.
PARTS = {
    "data": st.sampled_from([b"", b"x", b'{"a": 1}', b'{"a": 2, "b": 3}']),
    "meta": st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "v", "w"]), max_size=3),
    "mimetype": st.sampled_from([0, 1, 50]),
    "kind": st.sampled_from([None, ("", 0, 0, 0), ("Unspecified", 0, 0, 0), ("Order", 1, 0, 0)]),
    "created": st.sampled_from([0, 1_700_000_000]),
}
EVENTS = st.builds(encode, **PARTS)
ANY_EVENTS = st.one_of(EVENTS, st.sampled_from(GARBAGE), st.binary(max_size=20))
POLICIES = st.sampled_from(DEDUPLICATING + [policy._replace(overwrite=True) for policy in DEDUPLICATING])


@st.composite
def duplicates(draw):
    """Draw a policy and two events that differ only where the policy does not look."""
    policy = draw(POLICIES)
    one, other = draw(st.fixed_dictionaries(PARTS)), draw(st.fixed_dictionaries(PARTS))
    if policy.strategy == STRICT:
        other = {**one, "created": other["created"]}
        if one["kind"] != ("Order", 1, 0, 0):
            other["kind"] = draw(st.sampled_from([None, ("", 0, 0, 0), ("Unspecified", 0, 0, 0)]))
    if policy.strategy in (DATAGRAM, KEY_GROUPED):
        other["data"] = one["data"]
    if policy.strategy in (KEY_GROUPED, UNIQUE_KEY):
        looked_at = {key: one["meta"].get(key, "") for key in policy.keys}
        absent = draw(st.sets(st.sampled_from(policy.keys)))
        other["meta"] = {**other["meta"], **looked_at}
        other["meta"] = {key: value for key, value in other["meta"].items() if value or key not in absent}
    if policy.strategy == UNIQUE_FIELD:
        one["data"], other["data"] = b'{"a": 1}', draw(st.sampled_from([b'{"a": 1}', b'{"a":1,"c":2}']))
    return policy, encode(**one), encode(**other)


# the policy


@each(
    "policy, normalised",
    [
        (Policy(UNKNOWN, 0, ("k",), ("f",), True), Policy(NONE, EARLIEST, (), (), True)),
        (Policy(NONE, LATEST, ("k",), ("f",)), Policy(NONE, LATEST)),
        (Policy(STRICT, 0, ("k",), ("f",)), Policy(STRICT)),
        (Policy(DATAGRAM, 0, ("k",), ("f",)), Policy(DATAGRAM)),
        (Policy(KEY_GROUPED, 0, ("b", "a", "b"), ("f",)), Policy(KEY_GROUPED, EARLIEST, ("a", "b"))),
        (Policy(UNIQUE_KEY, LATEST, ("b", "a", "b"), ("f",)), Policy(UNIQUE_KEY, LATEST, ("a", "b"))),
        (Policy(UNIQUE_FIELD, 0, ("k",), ("b", "a", "b")), Policy(UNIQUE_FIELD, EARLIEST, (), ("a", "b"))),
        (Policy(7, 0, ("b", "a"), ("f",)), Policy(7, EARLIEST, ("b", "a"), ("f",))),
    ],
)
def test_normalisation(policy, normalised):
    """Defaults are filled in, names are sorted, names without effect are dropped; overwrite stays."""
    assert policy.normalised() == normalised
    assert normalised.normalised() == normalised


@each(
    "one, other, same",
    [
        (Policy(UNKNOWN, 0), Policy(NONE, EARLIEST), True),
        (Policy(STRICT), Policy(STRICT, keys=("k",), fields=("f",), overwrite=True), True),
        (Policy(STRICT), Policy(DATAGRAM), False),
        (Policy(STRICT, EARLIEST), Policy(STRICT, LATEST), False),
        (Policy(UNIQUE_KEY, keys=("a", "b")), Policy(UNIQUE_KEY, keys=("b", "a", "a"), fields=("f",)), True),
        (Policy(UNIQUE_KEY, keys=("a",)), Policy(UNIQUE_KEY, keys=("a", "b")), False),
        (Policy(UNIQUE_KEY, keys=("a",)), Policy(KEY_GROUPED, keys=("a",)), False),
        (Policy(KEY_GROUPED, keys=("a",)), Policy(KEY_GROUPED, keys=("b",)), False),
        (Policy(UNIQUE_FIELD, fields=("a", "b")), Policy(UNIQUE_FIELD, keys=("k",), fields=("b", "a")), True),
        (Policy(UNIQUE_FIELD, fields=("a",)), Policy(UNIQUE_FIELD, fields=("b",)), False),
        (Policy(7, keys=("a",)), Policy(7), True),
    ],
)
def test_same_as(one, other, same):
    """Policies are the same when strategy, offset and the names with effect are; overwrite is overlooked."""
    assert one.same_as(other) is same
    assert other.same_as(one) is same


@each(
    "strategy, plain, with_keys, with_fields, with_both",
    [
        (UNKNOWN, "", NOT_KEYS, NOT_FIELDS, NOT_KEYS),
        (NONE, "", NOT_KEYS, NOT_FIELDS, NOT_KEYS),
        (STRICT, "", NOT_KEYS, NOT_FIELDS, NOT_KEYS),
        (DATAGRAM, "", NOT_KEYS, NOT_FIELDS, NOT_KEYS),
        (KEY_GROUPED, NO_KEYS, "", NO_KEYS, NOT_FIELDS),
        (UNIQUE_KEY, NO_KEYS, "", NO_KEYS, NOT_FIELDS),
        (UNIQUE_FIELD, NO_FIELDS, NO_FIELDS, "", NOT_KEYS),
        (7, "", "", "", ""),
    ],
)
def test_problems(strategy, plain, with_keys, with_fields, with_both):
    """A policy is refused for the names it lacks and, unless normalised, for those it must not have."""
    policy = Policy(strategy)
    assert policy.problem() == plain
    assert policy._replace(keys=("k",)).problem() == with_keys
    assert policy._replace(fields=("f",)).problem() == with_fields
    both = policy._replace(keys=("k",), fields=("f",))
    assert both.problem() == with_both
    assert both.normalised().problem() == ""


def test_which_strategies_deduplicate():
    """All do but NONE, UNKNOWN and numbers that nobody knows."""
    assert [Policy(strategy).deduplicates for strategy in range(9)] == [False] * 2 + [True] * 5 + [False] * 2


@QUICK
@given(
    policy=st.builds(
        Policy,
        strategy=st.integers(0, 8),
        offset=st.integers(0, 3),
        keys=st.lists(st.sampled_from("abc"), max_size=4).map(tuple),
        fields=st.lists(st.sampled_from("äß漢"), max_size=4).map(tuple),
        overwrite=st.booleans(),
    )
)
def test_a_topic_keeps_its_policy(policy):
    """What was set is read, normalised, whatever was there before; all else in the Topic stays."""
    before = topic_pb2.Topic(id=bytes(16), name="orders", readonly=True)
    before.deduplication.keys.append("old")
    before.deduplication.fields.append("old")
    before.deduplication.overwrite_duplicate = True
    record = with_policy(before.SerializeToString() + UNKNOWN_FIELD, policy)
    assert Policy.of_topic(record) == policy.normalised()
    after = topic_pb2.Topic.FromString(record)
    after.ClearField("deduplication")
    before.ClearField("deduplication")
    assert after.SerializeToString() == before.SerializeToString() + UNKNOWN_FIELD


def test_a_topic_without_a_policy():
    """It has an unknown strategy, which is the same as NONE."""
    policy = Policy.of_topic(topic_pb2.Topic(name="orders").SerializeToString())
    assert policy == Policy(UNKNOWN, 0)
    assert policy.same_as(Policy(NONE))


@each("record", NO_MESSAGES)
def test_what_is_no_topic(record):
    """A record that cannot be decoded is an error."""
    with pytest.raises(BadMessage):
        Policy.of_topic(record)
    with pytest.raises(BadMessage):
        with_policy(record, Policy())


# the fingerprint

VECTOR = encode(b'{"a":1}', {"k": "v", "b": "c"}, 50)


@each(
    "policy, event, digest",
    [
        (Policy(STRICT), VECTOR, "b052a447afc3b234815a8bc6c63d1f1d"),
        (Policy(DATAGRAM), VECTOR, "75b4c446ea7e78a0ed33cf94515d0333"),
        (Policy(UNIQUE_KEY, keys=("b", "k")), VECTOR, "1d30f4d6188cc406e915e76da018d435"),
        (Policy(UNIQUE_KEY, keys=("k", "b", "k")), VECTOR, "1d30f4d6188cc406e915e76da018d435"),
        (Policy(KEY_GROUPED, keys=("k",)), VECTOR, "eb5f0100c6cfb09ba7062fe6cb220021"),
        (Policy(DATAGRAM), encode(mimetype=254), "00000000000000000000000000000000"),
    ],
)
def test_fingerprints_are_those_of_the_real_server(policy, event, digest):
    """The hash of each strategy that the real server has is the same here."""
    assert fingerprint(policy, event).hex() == digest


def test_a_type_counts_in_a_strict_fingerprint():
    """A zero type, the type Unspecified and none are one; a type of another name or version is another."""
    kinds = [None, ("", 0, 0, 0), ("Unspecified", 0, 0, 0)]
    assert len({fingerprint(Policy(STRICT), encode(b"x", kind=kind)) for kind in kinds}) == 1
    kinds = [None, ("A", 0, 0, 0), ("a", 0, 0, 0), ("A", 1, 0, 0), ("A", 0, 1, 0), ("A", 0, 0, 2**32 - 1)]
    kinds += [("", 1, 0, 0), ("Unspecified", 1, 0, 0)]
    assert len({fingerprint(Policy(STRICT), encode(b"x", kind=kind)) for kind in kinds}) == len(kinds)


def test_no_fingerprint_without_deduplication():
    """Where nothing is a duplicate there is nothing to look up."""
    assert [fingerprint(Policy(strategy), VECTOR) for strategy in (UNKNOWN, NONE, 7)] == [b""] * 3


def test_a_fingerprint_is_no_proof():
    """Key and value are hashed without a border, so different events can share a fingerprint; they are not equal."""
    policy = Policy(UNIQUE_KEY, keys=("a", "b"))
    one, other = encode(meta={"a": "xb", "b": "y"}), encode(meta={"a": "x", "b": "by"})
    assert fingerprint(policy, one) == fingerprint(policy, other)
    assert not equal(policy, one, other)


@QUICK
@given(policy=POLICIES, one=ANY_EVENTS, other=ANY_EVENTS)
def test_duplicates_share_their_fingerprint(policy, one, other):
    """Whatever is equal is found, equality has no direction, and nothing raises."""
    assert len(fingerprint(policy, one)) == 16
    same = equal(policy, one, other)
    assert equal(policy, other, one) is same
    if same:
        assert fingerprint(policy, one) == fingerprint(policy, other)


# equality

SAME = {"data": b"x", "meta": {"a": "1", "c": "3"}, "mimetype": 50, "kind": ("A", 1, 2, 3)}


@each(
    "changes, strict, datagram, key_grouped, unique_key",
    [
        ({}, True, True, True, True),
        ({"created": 5}, True, True, True, True),
        ({"data": b"y"}, False, False, False, True),
        ({"mimetype": 51}, False, True, True, True),
        ({"kind": ("a", 1, 2, 3)}, False, True, True, True),
        ({"kind": ("A", 1, 2, 4)}, False, True, True, True),
        ({"kind": None}, False, True, True, True),
        ({"meta": {"a": "1", "c": "4"}}, False, True, True, True),
        ({"meta": {"a": "1"}}, False, True, True, True),
        ({"meta": {"a": "1", "b": "", "c": "3"}}, False, True, True, True),
        ({"meta": {"a": "2", "c": "3"}}, False, True, False, False),
        ({"meta": {"A": "1", "c": "3"}}, False, True, False, False),
        ({"meta": {}}, False, True, False, False),
    ],
)
def test_equality(changes, strict, datagram, key_grouped, unique_key):
    """Each strategy compares its own parts, and a missing value is an empty one."""
    one, other = encode(**SAME), encode(**{**SAME, **changes})
    found = [equal(policy, one, other) for policy in DEDUPLICATING[:4]]
    assert found == [strict, datagram, key_grouped, unique_key]


def test_events_that_lack_the_keys_are_duplicates():
    """With UNIQUE_KEY all events without the keys are the same; with KEY_GROUPED they are one group."""
    one, other = encode(b"x", {"c": "1"}), encode(b"y")
    assert equal(Policy(UNIQUE_KEY, keys=("a",)), one, other)
    assert not equal(Policy(KEY_GROUPED, keys=("a",)), one, other)
    assert equal(Policy(KEY_GROUPED, keys=("a",)), one, encode(b"x"))


@each("policy", [Policy(), Policy(UNKNOWN), Policy(KEY_GROUPED), Policy(UNIQUE_KEY), Policy(UNIQUE_FIELD), Policy(7)])
def test_a_policy_that_compares_nothing(policy):
    """It has no duplicates: an event is not even one of itself."""
    assert not equal(policy, VECTOR, VECTOR)
    assert len(fingerprint(policy, VECTOR)) in (0, 16)


@each(
    "fields, one, other, same",
    [
        ("a", b'{"a": 1, "z": 2}', b'{ "z":3,"a":1 }', True),
        ("a", b'{"a": 1}', b'{"a": 2}', False),
        ("a", b'{"a": 1}', b'{"a": 1.0}', False),
        ("a", b'{"a": 1}', b'{"a": "1"}', False),
        ("a", b'{"a": 1}', b'{"a": true}', False),
        ("a", b'{"a": {"x": [1], "y": 2}}', b'{"a": {"y": 2, "x": [1]}}', True),
        ("a", b'{"a": [1, 2]}', b'{"a": [2, 1]}', False),
        ("a", b'{"a": "\xc3\xa4"}', b'{"a": "\\u00e4"}', True),
        ("a", b'{"a": "\\ud800"}', b'{"a": "\\ud800"}', True),
        ("a", b'{"a": 1}', '{"a": 1}'.encode("utf-16"), True),
        ("a", b'{"a": null}', b'{"a": null}', True),
        ("ab", b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}', True),
        ("ab", b'{"a": 1, "b": 2}', b'{"a": 2, "b": 1}', False),
        ("ab", b'{"a": 1}', b'{"a": 1}', True),
        ("ab", b'{"a": 1}', b'{"a": 1, "b": null}', False),
        ("ab", b'{"a": 1}', b'{"b": 1}', False),
        ("ab", b'{"c": 1}', b'{"c": 1}', False),
        ("a", b"{}", b"{}", False),
        ("a", b"", b"", False),
        ("a", b'["a"]', b'["a"]', False),
        ("a", b'"a"', b'"a"', False),
        ("a", b'{"a": 1', b'{"a": 1', False),
        ("a", b'{"a": "\xff"}', b'{"a": "\xff"}', False),
        ("a", b'{"a": ' + b"[" * 200_000, b'{"a": ' + b"[" * 200_000, False),
        (["x.y"], b'{"x": {"y": 1}}', b'{"x": {"y": 1}}', False),
        (["x.y"], b'{"x.y": 1}', b'{"x.y": 1}', True),
    ],
)
def test_unique_fields(fields, one, other, same):
    """Members of a JSON object are compared as JSON; what has none of them is a duplicate of nothing."""
    policy = Policy(UNIQUE_FIELD, fields=tuple(fields))
    first, second = encode(one, {"m": "1"}, 50), encode(other, mimetype=1)
    assert equal(policy, first, second) is same
    assert not same or fingerprint(policy, first) == fingerprint(policy, second)
    assert fingerprint(policy._replace(fields=policy.fields[::-1]), first) == fingerprint(policy, first)


def test_what_has_no_fields_is_spread():
    """Duplicates of nothing do not crowd under one fingerprint."""
    policy = Policy(UNIQUE_FIELD, fields=("a",))
    assert len({fingerprint(policy, encode(data)) for data in (b"", b"x", b"[1]", b'{"b": 1}', b'{"b": 2}')}) == 5


def test_what_cannot_be_decoded_is_data():
    """Bytes that are no event are the same as an event that has them as its data."""
    for garbage in GARBAGE:
        assert equal(Policy(STRICT), garbage, encode(garbage))
        assert equal(Policy(DATAGRAM), garbage, encode(garbage, {"a": "1"}))
        assert fingerprint(Policy(DATAGRAM), garbage) == fingerprint(Policy(DATAGRAM), encode(garbage))
        assert not equal(Policy(DATAGRAM), garbage, encode(b"x"))


def test_bytes_behind_the_end_of_a_group():
    """Where protobuf only warns about such an end, and stops there, nothing is taken for decoded all the same."""
    behind = b"\x0cjunk"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert equal(Policy(STRICT), VECTOR + behind, encode(VECTOR + behind))
        assert peek(wrap(b"x", is_duplicate=True) + behind) == (False, b"")
        with pytest.raises(BadMessage):
            Policy.of_topic(topic_pb2.Topic(name="orders").SerializeToString() + behind)


# marking and rebuilding

ORIGINAL = {"data": b"x", "meta": {"a": "1", "b": "2", "c": "3"}, "mimetype": 50, "kind": ("A", 1, 2, 3)}


@each(
    "policy, changes, left",
    [
        (Policy(DATAGRAM), {}, (b"", {}, 0, None)),
        (Policy(DATAGRAM), {"meta": {"a": "1", "b": "9", "d": "4"}}, (b"", {"b": "9", "d": "4"}, 0, None)),
        (Policy(DATAGRAM), {"meta": {"a": "", "d": ""}}, (b"", {"a": ""}, 0, None)),
        (Policy(DATAGRAM), {"mimetype": 1}, (b"", {}, 1, None)),
        (Policy(DATAGRAM), {"kind": ("A", 1, 2, 4)}, (b"", {}, 0, ("A", 1, 2, 4))),
        (Policy(DATAGRAM), {"kind": ("", 0, 0, 0)}, (b"", {}, 0, ("", 0, 0, 0))),
        (Policy(DATAGRAM), {"kind": None, "mimetype": 0}, (b"", {}, 0, None)),
        (Policy(KEY_GROUPED, keys=("a",)), {"meta": {"a": "1", "b": "9"}}, (b"", {"b": "9"}, 0, None)),
        (Policy(UNIQUE_KEY, keys=("a",)), {}, (b"", {}, 0, None)),
        (Policy(UNIQUE_KEY, keys=("a",)), {"data": b"y"}, (b"y", {}, 0, None)),
        (Policy(STRICT), {}, None),
        (Policy(STRICT, overwrite=True), {}, None),
        (Policy(UNIQUE_KEY, keys=("a",), overwrite=True), {"data": b"y", "mimetype": 1}, None),
        (Policy(DATAGRAM, overwrite=True), {"meta": {}}, None),
    ],
)
def test_what_is_left_of_a_duplicate(policy, changes, left):
    """What it shares with the original is removed; with STRICT or overwrite, all of it."""
    original, event = encode(**ORIGINAL), encode(**{**ORIGINAL, **changes})
    coding = {"encryption": event_pb2.Encryption(public_key_id="k"), "compression": event_pb2.Compression(level=3)}
    assert equal(policy, original, event)
    marked = event_pb2.EventWrapper.FromString(mark(policy, wrap(original), wrap(event, SECOND, **coding)))
    assert (marked.id, marked.is_duplicate, marked.duplicate_id) == (SECOND, True, FIRST)
    assert marked.HasField("encryption") is marked.HasField("compression") is (left is not None)
    assert marked.event == b"" if left is None else parts(marked.event) == left


@each(
    "changes, rebuilt",
    [
        ({}, (b"x", {"a": "1", "b": "2", "c": "3"}, 50, ("A", 1, 2, 3))),
        ({"data": b"y"}, (b"y", {"a": "1", "b": "2", "c": "3"}, 50, ("A", 1, 2, 3))),
        ({"data": b""}, (b"x", {"a": "1", "b": "2", "c": "3"}, 50, ("A", 1, 2, 3))),
        ({"meta": {"a": "1", "b": "9", "d": ""}}, (b"x", {"a": "1", "b": "9", "c": "3"}, 50, ("A", 1, 2, 3))),
        ({"meta": {"a": "1", "d": "4"}}, (b"x", {"a": "1", "b": "2", "c": "3", "d": "4"}, 50, ("A", 1, 2, 3))),
        ({"meta": {"a": "1", "b": "", "d": ""}}, (b"x", {"a": "1", "b": "", "c": "3"}, 50, ("A", 1, 2, 3))),
        ({"mimetype": 1}, (b"x", {"a": "1", "b": "2", "c": "3"}, 1, ("A", 1, 2, 3))),
        ({"mimetype": 0, "kind": None}, (b"x", {"a": "1", "b": "2", "c": "3"}, 50, ("A", 1, 2, 3))),
        ({"kind": ("", 0, 0, 0)}, (b"x", {"a": "1", "b": "2", "c": "3"}, 50, ("", 0, 0, 0))),
    ],
)
def test_what_is_rebuilt(changes, rebuilt):
    """What the duplicate has of its own wins; what it lacks is the original's."""
    policy, original = Policy(UNIQUE_KEY, keys=("a",)), wrap(encode(**ORIGINAL))
    for created in (0, 5):  # with a time of its own there is always something left
        stored = wrap(encode(**{**ORIGINAL, "created": created, **changes}), SECOND)
        assert parts(unwrap(rebuild(original, mark(policy, original, stored)))) == rebuilt


def test_a_type_that_none_has():
    """Where neither has a type none appears."""
    original = wrap(encode(b"x"))
    marked = mark(Policy(DATAGRAM), original, wrap(encode(b"x", created=5), SECOND))
    assert unwrap(rebuild(original, marked)) == encode(b"x", created=5)


@each("policy", DEDUPLICATING + [Policy(DATAGRAM, overwrite=True)])
def test_the_rest_of_a_wrapper_stays(policy):
    """Marked, rebuilt or unmarked, all other fields are what they were, also those that nobody knows."""
    event = encode(b'{"a": 1}', {"a": "1"}, 50, created=7)
    before = event_pb2.EventWrapper(id=SECOND, topic_id=bytes(16), event=event, offset=7, key=b"k", shard=3, epoch=2)
    before.publisher.publisher_id, before.committed.seconds = "me", 99
    original, stored = wrap(event), before.SerializeToString() + UNKNOWN_FIELD
    marked = mark(policy, original, stored)
    for after in (marked, rebuild(original, marked), unmark(original, marked)):
        proto = event_pb2.EventWrapper.FromString(after)
        proto.event = event
        proto.ClearField("is_duplicate")
        proto.ClearField("duplicate_id")
        assert proto.SerializeToString() == stored


def test_unknown_fields_of_an_event_stay():
    """A field that only a newer client knows is neither removed nor taken from the original."""
    event = encode(b"x", {"a": "1"}) + UNKNOWN_FIELD
    original = wrap(encode(b"x", {"a": "1"}) + b"\xa2\x38\x03old")
    marked = mark(Policy(DATAGRAM), original, wrap(event, SECOND))
    assert unwrap(marked) == UNKNOWN_FIELD
    assert unwrap(rebuild(original, marked)) == event


@each(
    "coding",
    [
        {"encryption": event_pb2.Encryption(public_key_id="k")},
        {"compression": event_pb2.Compression(level=3)},
        {},
    ],
)
def test_an_emptied_event_is_read_as_its_original_is(coding):
    """With the event, its encryption and compression come from the original; what that lacks is absent."""
    original = wrap(encode(b"x"), **coding)
    foreign = wrap(b"", SECOND, encryption=event_pb2.Encryption(public_key_id="other"))
    rebuilt = event_pb2.EventWrapper.FromString(rebuild(original, foreign))
    assert rebuilt.event == encode(b"x")
    assert {name for name in ("encryption", "compression") if rebuilt.HasField(name)} == set(coding)
    assert all(getattr(rebuilt, name) == value for name, value in coding.items())


@QUICK
@given(duplicates())
def test_what_comes_back_of_a_duplicate(case):
    """It has what it had, and beside it what only its original had; with STRICT or overwrite, it is its original."""
    policy, one, other = case
    assert equal(policy, one, other)
    original, stored = wrap(one), wrap(other, SECOND)
    marked = mark(policy, original, stored)
    rebuilt = rebuild(original, marked)
    assert peek(marked) == peek(rebuilt) == (True, FIRST)
    if policy.strategy == STRICT or policy.overwrite:
        assert unwrap(rebuilt) == one
        return
    (data, meta, mimetype, kind), (own_data, own_meta, own_mimetype, own_kind) = parts(one), parts(other)
    kept = {key: value for key, value in own_meta.items() if value or key in meta}
    expected = (own_data or data, {**meta, **kept}, own_mimetype or mimetype, own_kind or kind)
    assert parts(unwrap(rebuilt)) == expected


@QUICK
@given(one=EVENTS, other=EVENTS)
def test_a_strict_duplicate_comes_back_whole(one, other):
    """With STRICT nothing is lost, but for the time of making, and the spelling of no type."""
    policy = Policy(STRICT)
    event = event_pb2.Event.FromString(one)
    event.created.seconds = 5
    stored = wrap(event.SerializeToString(), SECOND)
    rebuilt = unwrap(rebuild(wrap(one), mark(policy, wrap(one), stored)))
    assert parts(rebuilt) == parts(one)
    assert equal(policy, rebuilt, other) is equal(policy, event.SerializeToString(), other)


@st.composite
def complete_duplicates(draw):
    """Draw a policy and two events of which the first may have less than the second, where the policy does not look."""
    policy = draw(st.sampled_from(DEDUPLICATING[1:]))
    whole = draw(st.fixed_dictionaries(PARTS))
    whole["data"] = whole["data"] if policy.strategy != UNIQUE_FIELD else b'{"a": 1}'
    whole["meta"] = {key: value for key, value in whole["meta"].items() if value}
    less = {"data": b"", "mimetype": 0, "kind": None, "created": 0}
    if policy.strategy != UNIQUE_KEY:
        del less["data"]
    missing = draw(st.sets(st.sampled_from(sorted(less))))
    keys = draw(st.sets(st.sampled_from(sorted(set("abc") - set(policy.keys)))))
    one = {**whole, **{name: less[name] for name in missing}}
    one["meta"] = {key: value for key, value in whole["meta"].items() if key not in keys}
    return policy, encode(**one), encode(**whole)


@QUICK
@given(complete_duplicates())
def test_a_duplicate_that_lacks_nothing_comes_back_whole(case):
    """Where the original has nothing that the duplicate lacks, the duplicate is after rebuilding what it was."""
    policy, one, other = case
    assert equal(policy, one, other)
    rebuilt = unwrap(rebuild(wrap(one), mark(policy, wrap(one), wrap(other, SECOND))))
    assert parts(rebuilt) == parts(other)


@QUICK
@given(
    policy=POLICIES,
    meta=st.dictionaries(st.text("ab漢", min_size=2, max_size=3), st.sampled_from(["", "v"]), min_size=2, max_size=6),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_order_of_metadata_does_not_matter(policy, meta, shuffle):
    """However a map was filled, the bytes that are stored and rebuilt are the same."""
    meta = {**meta, "a": "1"}
    data = b'{"a": 1}'
    first = encode(data, meta if policy.strategy == STRICT else {"a": "1"})
    original, outcomes = wrap(first), set()
    for _ in range(3):
        pairs = list(meta.items())
        shuffle.shuffle(pairs)
        # messages can be joined: that is how to put a map into bytes in an order of one's own
        event = b"".join([encode(data), *(encode(meta=[pair]) for pair in pairs)])
        assert equal(policy, first, event)
        marked = mark(policy, original, wrap(event, SECOND))
        outcomes.add((fingerprint(policy, event), marked, rebuild(original, marked), unmark(original, marked)))
    assert len(outcomes) == 1


def test_unmark():
    """An unmarked duplicate is an event like any other, with its data again."""
    original, stored = wrap(encode(b"x", {"a": "1"}, 50)), wrap(encode(b"x", {"a": "2"}, 50), SECOND)
    marked = mark(Policy(DATAGRAM), original, stored)
    assert unmark(original, marked) == stored
    assert rebuild(original, marked) == event_pb2.EventWrapper(
        id=SECOND, topic_id=bytes(16), event=unwrap(stored), is_duplicate=True, duplicate_id=FIRST
    ).SerializeToString()


@each("id", [b"", b"x", FIRST, bytes(300)])
def test_peek(id):
    """Flag and id are read as a publisher may have set them too, of any length."""
    assert peek(wrap(b"`\x01j\x01x")) == (False, b"")
    assert peek(wrap(b"x", is_duplicate=True, duplicate_id=id)) == (True, id)
    assert peek(wrap(b"x", duplicate_id=id)) == (False, id)


# bytes of any kind


@each("policy", [Policy(DATAGRAM), Policy(UNIQUE_KEY, keys=("a",))])
def test_an_event_that_cannot_be_decoded_remains_whole(policy):
    """It is marked and not touched, and comes back byte for byte; it serves as an original for others."""
    for garbage in GARBAGE:
        original, stored = wrap(encode(garbage, {"m": "1"}, 50)), wrap(garbage, SECOND)
        marked = mark(policy, original, stored)
        assert peek(marked) == (True, FIRST)
        assert unwrap(marked) == unwrap(rebuild(original, marked)) == garbage
        assert unmark(original, marked) == stored
        marked = mark(policy, wrap(garbage), wrap(encode(garbage, {"m": "1"}, 50), SECOND))
        assert parts(unwrap(marked)) == (b"", {"m": "1"}, 50, None)
        assert parts(unwrap(rebuild(wrap(garbage), marked))) == (garbage, {"m": "1"}, 50, None)


@each("garbage", [*NO_MESSAGES, b"\x32\x03\x0a\x01\xff"])
def test_what_is_no_wrapper_is_handed_back(garbage):
    """Neither a bad event nor a bad original changes anything: what is marked remains so, since its data is missing."""
    stored = wrap(VECTOR, SECOND)
    marked = mark(Policy(STRICT), wrap(VECTOR), stored)
    assert peek(garbage) == (False, b"")
    assert mark(Policy(STRICT), garbage, stored) == stored
    assert mark(Policy(STRICT), stored, garbage) == garbage
    for restore in (rebuild, unmark):
        assert restore(garbage, marked) == marked
        assert restore(stored, garbage) == garbage


@QUICK
@given(policy=POLICIES, one=ANY_EVENTS, other=ANY_EVENTS, cut=st.integers(0, 80), raw=st.binary(max_size=40))
def test_nothing_raises(policy, one, other, cut, raw):
    """Truncated and arbitrary bytes pass through every function."""
    wrappers = [wrap(one), wrap(other, SECOND), wrap(one)[:cut], raw]
    for original in wrappers:
        for stored in wrappers:
            marked = mark(policy, original, stored)
            for result in (marked, rebuild(original, marked), unmark(original, marked)):
                assert isinstance(result, bytes)
                flag, id = peek(result)
                assert isinstance(flag, bool)
                assert isinstance(id, bytes)
