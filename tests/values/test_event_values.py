"""Events and their types: what may be made, what they show, and what becomes of them."""

import copy
import json
import pickle
import re
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync import events, mimetypes, nack
from ensign_sync.ack import Ack
from ensign_sync.events import Event, EventState, Type, from_object
from ensign_sync.exceptions import CouldNotAck, CouldNotNack, EnsignConnectionError, EnsignTimeoutError, NackError
from ensign_sync.handover.receipt import PublishFuture
from ensign_sync.ids import RLID
from ensign_sync.times import Instant, now
from tests.size import by_size
from tests.tables import each

QUICK = settings(max_examples=by_size(10, 50, 500, 5_000), deadline=None)
AT = Instant.from_ns(1_700_000_000_123_456_789)


class Receiver:
    """The near end of a subscription: notes what an event is answered with."""

    def __init__(self):
        self.answers = []

    def ack(self, event):
        self.answers.append("ack")
        event._state = EventState.ACKED

    def nack(self, event, code):
        self.answers.append(code)
        event._state = EventState.NACKED


def delivered(data=b"x", mimetype=mimetypes.TextPlain, receiver=None):
    """Make an event as a subscription does."""
    event = events.received(data, mimetype, ("T", (1, 2, 3)), {"k": "v"}, AT, RLID.of(5, 7), AT, "topic")
    event._handle = receiver
    return event


def sent(state, error=None):
    """Make an event that was handed to a stream and is in a state."""
    event = Event(b"x")
    event._state = state
    event.error = error
    return event


# The constructor


def test_defaults():
    """Data alone makes a JSON event of an unknown schema, without metadata, of this moment."""
    before = now()
    event = Event(b"{}")
    assert event.data == b"{}"
    assert event.mimetype is mimetypes.ApplicationJSON
    assert event.type == Type("Unknown", "0.0.0")
    assert event.meta == {}
    assert type(event.created) is Instant and before.ns <= event.created.ns <= now().ns
    assert event.created.tzinfo is not None
    assert (event.id, event.committed, event.topic, event.error) == (None, None, "", None)
    assert event.state is EventState.INITIALIZED
    assert not event.published() and not event.acked() and not event.nacked()
    assert event.nack_error() is None


def test_all_arguments():
    """Every argument can be named and arrives; the name of the schema is stripped."""
    event = Event(
        data=b"x", mimetype="text/csv", schema_name=" Generic ", schema_version="1.2.3-rc.1", meta={"a": "1"}
    )
    assert event.mimetype is mimetypes.TextCSV
    assert (event.type.name, event.type.semver()) == ("Generic", "1.2.3")
    assert event.meta == {"a": "1"}


def test_meta_is_copied():
    """The metadata is the event's own: the caller's mapping may change."""
    meta = {"a": "1"}
    event = Event(b"x", meta=meta)
    meta["b"] = "2"
    event.meta["c"] = "3"
    assert event.meta == {"a": "1", "c": "3"}
    assert meta == {"a": "1", "b": "2"}


@each(
    ("arguments", "kind", "words"),
    [
        ({}, ValueError, "no data provided"),
        ({"data": None}, ValueError, "no data provided"),
        ({"data": b""}, ValueError, "no data provided"),
        ({"data": "text"}, TypeError, r"must be bytes, got type str: .*encode\('utf-8'\)"),
        ({"data": ""}, TypeError, "must be bytes, got type str: encode"),
        ({"data": {"a": 1}}, TypeError, "must be bytes, got type dict"),
        ({"data": {}}, TypeError, "must be bytes, got type dict"),
        ({"data": 5}, TypeError, "must be bytes, got type int"),
        ({"data": True}, TypeError, "must be bytes, got type bool"),
        ({"data": bytearray(b"x")}, TypeError, "must be bytes, got type bytearray"),
        ({"mimetype": None}, ValueError, "no mimetype provided"),
        ({"mimetype": ""}, ValueError, "mimetype: $"),
        ({"mimetype": "json"}, ValueError, "unparseable mimetype: json"),
        ({"mimetype": "image/png"}, ValueError, "mimetype: image/png"),
        ({"mimetype": 49}, ValueError, "unrecognized mimetype: 49"),
        ({"mimetype": True}, ValueError, "unrecognized mimetype: True"),
        ({"mimetype": b"text/plain"}, ValueError, "unrecognized mimetype: b'text/plain'"),
        ({"schema_name": ""}, ValueError, "schema name cannot be empty"),
        ({"schema_name": " \t"}, ValueError, "schema name cannot be empty"),
        ({"schema_name": None}, TypeError, "schema name must be str, got type NoneType"),
        ({"schema_name": True}, TypeError, "schema name must be str, got type bool"),
        ({"schema_version": ""}, ValueError, "schema version cannot be empty"),
        ({"schema_version": None}, ValueError, "schema version cannot be empty"),
        ({"schema_version": "1"}, ValueError, "unparseable semantic version: 1"),
        ({"schema_version": "1.0"}, ValueError, r"unparseable semantic version: 1\.0"),
        ({"schema_version": "latest"}, ValueError, "unparseable semantic version: latest"),
        ({"schema_version": 1.0}, ValueError, r"unparseable semantic version: 1\.0"),
        ({"schema_version": True}, ValueError, "unparseable semantic version: True"),
        ({"meta": {"a": 1}}, TypeError, r"meta must map str to str, got 'a': 1"),
        ({"meta": {1: "a"}}, TypeError, r"meta must map str to str, got 1: 'a'"),
        ({"meta": {"a": None}}, TypeError, "meta must map str to str, got 'a': None"),
        ({"meta": {"a": True}}, TypeError, "meta must map str to str, got 'a': True"),
        ({"meta": {"a": b"b"}}, TypeError, "meta must map str to str, got 'a': b'b'"),
        ({"meta": 5}, TypeError, "got int"),
    ],
    ids=str,
)
def test_refused(arguments, kind, words):
    """Each bad argument is an error that names it and the value."""
    if arguments and "data" not in arguments:
        arguments = {"data": b"x", **arguments}
    with pytest.raises(kind, match=words):
        Event(**arguments)


@each("name", ["application/json; charset=utf-8", "Application/JSON; a=b", 50, "text/json"])
def test_mimetype_is_matched(name):
    """The mimetype may be a text or a number that stands for one."""
    assert Event(b"x", name).mimetype is mimetypes.ApplicationJSON


def test_equality_is_identity():
    """Two events of the same data are two events."""
    first, second = Event(b"x"), Event(b"x")
    assert first != second
    assert len({first, second, first}) == 2


def test_copies():
    """An event that no stream holds can be pickled and copied."""
    for event in (Event(b"x", "text/plain", "T", "1.2.3", {"a": "1"}), delivered()):
        for other in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event)):
            assert (other.data, other.mimetype, other.type, other.meta) == (
                event.data,
                event.mimetype,
                event.type,
                event.meta,
            )
            assert (other.created.ns, other.id, other.topic, other.state) == (
                event.created.ns,
                event.id,
                event.topic,
                event.state,
            )


# What it shows


def test_repr():
    """The short form shows what the constructor took, with metadata only if there is some."""
    assert repr(Event(b"x", "text/csv", "Name", "v1.2.3")) == (
        "Event(data=b'x', mimetype=2, schema_name=Name, schema_version=1.2.3)"
    )
    assert repr(Event(b"x", meta={"a": "1"})) == (
        "Event(data=b'x', mimetype=50, schema_name=Unknown, schema_version=0.0.0, meta={'a': '1'})"
    )


def test_str_of_a_new_event():
    """The long form has a row for everything that is set."""
    event = Event(b'{"a": 1}', schema_name="Name", schema_version="1.2.3")
    event.created = AT
    assert str(event) == (
        "Event:\n\tdata: b'{\"a\": 1}'\n\tmimetype: application/json\n\tschema: Name v1.2.3"
        "\n\tstate: EventState.INITIALIZED\n\tcreated: 2023-11-14 22:13:20.123456+00:00"
    )


def test_str_of_a_full_event():
    """Id, metadata, time of storing and error have rows of their own."""
    event = delivered()
    event.error = "refused"
    assert str(event) == (
        f"Event:\n\tid: {RLID.of(5, 7)}\n\tdata: b'x'\n\tmimetype: text/plain\n\tschema: T v1.2.3"
        "\n\tmeta: {'k': 'v'}\n\tstate: EventState.SUBSCRIBED\n\tcreated: 2023-11-14 22:13:20.123456+00:00"
        "\n\tcommitted: 2023-11-14 22:13:20.123456+00:00\n\terror: refused"
    )


@each(("length", "cut"), [(97, False), (98, True), (10_000, True)])
def test_str_of_long_data(length, cut):
    """Data of which the text exceeds 100 characters is cut, and three dots tell so."""
    row = str(Event(b"a" * length)).split("\n\t")[1]
    assert row == "data: " + (f"b'{'a' * 98}..." if cut else f"b'{'a' * length}'")


def test_str_of_an_unknown_mimetype():
    """What a server delivered can always be shown: a mimetype without name is its number."""
    event = delivered(b"", 4711)
    assert "\tmimetype: 4711\n" in str(event)
    assert "mimetype=4711" in repr(event)
    assert event.decode() == b""


# States


def test_states():
    """The states have their numbers and their order."""
    names = "INITIALIZED QUEUED PUBLISHED SUBSCRIBED ACKED NACKED"
    assert [(state.name, state.value) for state in EventState] == [(n, i) for i, n in enumerate(names.split())]


@each("state", list(EventState))
def test_state_methods(state):
    """Published is everything from PUBLISHED on; acked and nacked are one state each."""
    event = sent(state)
    assert event.state is state
    assert event.published() is (state >= EventState.PUBLISHED)
    assert event.acked() is (state == EventState.ACKED)
    assert event.nacked() is (state == EventState.NACKED)


@each("state", [EventState.INITIALIZED, EventState.QUEUED, EventState.PUBLISHED])
def test_answer_to_an_event_not_received(state):
    """An event that came from no subscription cannot be answered."""
    with pytest.raises(CouldNotAck, match="not been received"):
        sent(state).ack()
    with pytest.raises(CouldNotNack, match="not been received"):
        sent(state).nack(nack.UnhandledMimetype)


def test_answer_to_a_result_of_a_query():
    """An event of a query came from no subscription either."""
    with pytest.raises(CouldNotAck):
        delivered().ack()
    with pytest.raises(CouldNotNack):
        delivered().nack()


def test_ack():
    """A received event is acknowledged once; asking again tells so, and a later refusal tells that it came late."""
    receiver = Receiver()
    event = delivered(receiver=receiver)
    assert event.ack() is True and event.acked()
    assert event.ack() is True
    assert event.nack(nack.UNPROCESSED) is False
    assert receiver.answers == ["ack"]


def test_nack():
    """A received event is refused once with a code; a later acknowledgement tells that it came late."""
    receiver = Receiver()
    event = delivered(receiver=receiver)
    assert event.nack(nack.DeliverAgainAny) is True and event.nacked()
    assert event.nack(nack.Timeout) is True
    assert event.ack() is False
    assert receiver.answers == [nack.DELIVER_AGAIN_ANY]


def test_nack_without_code():
    """Without a code the event counts as not processed."""
    receiver = Receiver()
    assert delivered(receiver=receiver).nack()
    assert receiver.answers == [nack.UNPROCESSED]


# Waiting for the acknowledgement


def test_wait_for_ack_of_an_acked_event():
    """What was acknowledged returns its ack at once."""
    event = sent(EventState.ACKED)
    event.id, event.committed = b"local", AT
    assert event.wait_for_ack() == event.wait_for_ack(timeout=0.0) == Ack(b"local", AT)


def test_wait_for_ack_of_a_refused_event():
    """What was refused raises the refusal."""
    refusal = nack.Nack(b"local", nack.TOPIC_UNKNOWN, "topic unknown or unhandled")
    event = sent(EventState.NACKED, refusal)
    assert event.nack_error() is refusal
    with pytest.raises(NackError) as caught:
        event.wait_for_ack()
    assert caught.value.code is nack.TOPIC_UNKNOWN
    assert caught.value.error == "topic unknown or unhandled"


def test_wait_for_ack_times_out():
    """An event that stays pending is a timeout, and still pending after it."""
    event = sent(EventState.QUEUED)
    event._handle = PublishFuture(lambda function, *args: function(*args), lambda _, outcome: outcome, None)
    with pytest.raises(EnsignTimeoutError, match="pending") as caught:
        event.wait_for_ack(timeout=0.0)
    assert isinstance(caught.value, TimeoutError)
    assert event.state is EventState.QUEUED


def test_wait_for_ack_of_an_event_given_up():
    """What the client gave up raises the reason."""
    reason = EnsignConnectionError("localhost:1", "UNAVAILABLE")
    with pytest.raises(EnsignConnectionError) as caught:
        sent(EventState.PUBLISHED, reason).wait_for_ack()
    assert caught.value is reason


@each(
    "event",
    [Event(b"x"), sent(EventState.QUEUED), delivered(), delivered(receiver=Receiver())],
    ids=["new", "queued by nobody", "of a query", "of a subscription"],
)
def test_wait_for_ack_that_never_comes(event):
    """An event that is not on its way raises instead of waiting."""
    with pytest.raises(CouldNotAck):
        event.wait_for_ack(timeout=None)


# Decoding


@each(
    ("data", "mimetype", "expected"),
    [
        (b'{"a": [1, null]}', "application/json", {"a": [1, None]}),
        (b"null", "application/json", None),
        (b'"\xc3\xa4"', "application/json", "ä"),
        (b"\xc3\xa4", "text/plain", "ä"),
        (b"\xff\x00", "application/octet-stream", b"\xff\x00"),
        (b"a,b", "text/csv", b"a,b"),
        (b"{}\n{}", "application/jsonlines", b"{}\n{}"),
        (b"<a/>", "application/xml", b"<a/>"),
        (b"\x80", "user/format-3", b"\x80"),
    ],
)
def test_decode(data, mimetype, expected):
    """JSON and text are decoded, everything else is the bytes."""
    decoded = Event(data, mimetype).decode()
    assert decoded == expected
    assert type(decoded) is type(expected)


@each(
    ("data", "mimetype", "word"),
    [
        (b"{", "application/json", "JSON"),
        (b"\xff", "application/json", "JSON"),
        (b"\xff", "text/plain", "string"),
        (b"no pickle", "application/python-pickle", "pickle"),
    ],
)
def test_decode_refuses(data, mimetype, word):
    """Data that is not what its mimetype says is a ValueError that says what was tried, and keeps the cause."""
    with pytest.raises(ValueError, match=f"error decoding event data from {word}") as caught:
        Event(data, mimetype).decode(allow_pickle=True)
    assert caught.value.__cause__ is not None


def test_decode_of_a_pickle():
    """A pickle is not touched unless it is allowed, since it runs code."""
    event = from_object({"a": (1, 2)}, mimetype=mimetypes.ApplicationPythonPickle)
    with pytest.raises(ValueError, match="allow_pickle=True"):
        event.decode()
    with pytest.raises(ValueError, match="allow_pickle=True"):
        Event(pickle.dumps(_Trap()), "application/python-pickle").decode()
    assert _Trap.sprung == []
    assert event.decode(allow_pickle=True) == {"a": (1, 2)}


class _Trap:
    """An object whose unpickling leaves a trace."""

    sprung = []

    def __reduce__(self):
        return (_spring, ())


def _spring():
    _Trap.sprung.append(True)


class _Reverse:
    """A codec of a user."""

    def encode(self, obj):
        return obj[::-1].encode()

    def decode(self, data):
        return data.decode()[::-1]


def test_decode_with_a_decoder():
    """A decoder of the caller is used, whatever the mimetype."""
    assert Event(b"cba", "application/json").decode(_Reverse()) == "abc"
    assert Event(b"cba", "application/python-pickle").decode(decoder=_Reverse()) == "abc"


# From objects


OBJECTS = [
    (b"\x00", None, b"\x00", mimetypes.ApplicationOctetStream),
    (b"{}", "application/json", b"{}", mimetypes.ApplicationJSON),
    (b"x", 0, b"x", mimetypes.ApplicationOctetStream),
    ("ä", None, b"\xc3\xa4", mimetypes.TextPlain),
    ("<a/>", "application/xml", b"<a/>", mimetypes.ApplicationXML),
    ("{}", mimetypes.ApplicationJSON, b"{}", mimetypes.ApplicationJSON),
    ({"a": 1}, None, b'{"a": 1}', mimetypes.ApplicationJSON),
    ([1, 2], None, b"[1, 2]", mimetypes.ApplicationJSON),
    ((1, 2), None, b"[1, 2]", mimetypes.ApplicationJSON),
    ([], None, b"[]", mimetypes.ApplicationJSON),
    ({}, None, b"{}", mimetypes.ApplicationJSON),
    (None, None, b"null", mimetypes.ApplicationJSON),
    (True, None, b"true", mimetypes.ApplicationJSON),
    (0, None, b"0", mimetypes.ApplicationJSON),
    (1.5, None, b"1.5", mimetypes.ApplicationJSON),
    ({"a": 1}, "application/ld+json", b'{"a": 1}', mimetypes.ApplicationJSONLD),
    ({"a": 1}, "user/format-0", b'{"a": 1}', mimetypes.UserSpecified0),
    ([1], 0, b"[1]", mimetypes.ApplicationOctetStream),
    (b"x", "application/python-pickle", b"x", mimetypes.ApplicationPythonPickle),
]


def test_from_object():
    """The kind of object gives payload and mimetype; a mimetype of the caller wins."""
    for obj, mimetype, data, expected in OBJECTS:
        event = from_object(obj, mimetype)
        assert type(event) is Event
        assert (event.data, event.mimetype) == (data, expected)
        assert isinstance(event.mimetype, mimetypes.MIME)
        assert event.type == Type("Unknown", "0.0.0")


@each("obj", [{1, 2}, {"a": (1, 2)}, None, 5, [b"x"]], ids=repr)
def test_from_object_pickled(obj):
    """With the mimetype of pickle any object becomes one."""
    event = from_object(obj, "application/python-pickle")
    assert event.mimetype is mimetypes.ApplicationPythonPickle
    assert pickle.loads(event.data) == obj


def test_from_object_list():
    """A list is one event; its items, one by one, are as many events as there are."""
    assert from_object([{"a": 1}, "b"]).data == b'[{"a": 1}, "b"]'
    first, second = [from_object(item) for item in [{"a": 1}, "b"]]
    assert (first.data, first.mimetype) == (b'{"a": 1}', mimetypes.ApplicationJSON)
    assert (second.data, second.mimetype) == (b"b", mimetypes.TextPlain)


def test_from_object_event():
    """An event is itself."""
    event = Event(b"x")
    assert from_object(event) is event


def test_from_object_encoder():
    """An encoder of the caller makes the payload, for a mimetype that has to be named."""
    event = from_object("abc", mimetype="text/plain", encoder=_Reverse())
    assert (event.data, event.mimetype) == (b"cba", mimetypes.TextPlain)
    assert from_object("abc", mimetype=0, encoder=_Reverse()).mimetype is mimetypes.ApplicationOctetStream


@each(
    ("arguments", "kind", "words"),
    [
        ({"obj": {1, 2}}, TypeError, "not JSON serializable"),
        ({"obj": object()}, TypeError, "not JSON serializable"),
        ({"obj": {"a": b"b"}}, TypeError, "not JSON serializable"),
        ({"obj": ""}, ValueError, "no data"),
        ({"obj": b""}, ValueError, "no data"),
        ({"obj": "x", "mimetype": "image/png"}, ValueError, "mimetype: image/png"),
        ({"obj": "x", "mimetype": 49}, ValueError, "mimetype: 49"),
        ({"obj": "x", "encoder": _Reverse()}, ValueError, "mimetype must be provided"),
        ({"obj": "x", "encoder": object(), "mimetype": "text/plain"}, ValueError, r"must have an encode\(\) method"),
        ({"obj": "x", "encoder": json.JSONEncoder(), "mimetype": "text/plain"}, TypeError, "must be bytes"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_from_object_refuses(arguments, kind, words):
    """What cannot become an event is an error that says why."""
    with pytest.raises(kind, match=words):
        from_object(**arguments)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aß", max_size=5), inner, max_size=3),
    max_leaves=8,
)


@QUICK
@given(JSON_VALUES | st.text("aäß€ \n{", min_size=1) | st.binary(min_size=1))
def test_object_round_trip(obj):
    """What an event was made of comes back out of it."""
    assert from_object(obj).decode() == obj


# Received events


def test_received():
    """What a server delivered is taken as it is, however odd."""
    event = events.received(b"", 4711, ("", (0, 0, 0)), {}, None, None, None, "")
    assert (event.data, event.mimetype, event.type.name, event.meta) == (b"", 4711, "", {})
    assert (event.created, event.id, event.committed, event.topic) == (None, None, None, "")
    assert event.state is EventState.SUBSCRIBED and event.published()
    assert isinstance(event, Event)
    assert str(event).startswith("Event:\n\tdata: b''")
    assert delivered().id.sequence == 7


# Types


SEMVERS = [
    ("0.0.0", "0.0.0"),
    ("1.2.3", "1.2.3"),
    ("v1.2.3", "1.2.3"),
    ("vvv1.2.3", "1.2.3"),
    ("10.20.30", "10.20.30"),
    ("1.2.3-alpha", "1.2.3"),
    ("1.2.3-alpha.1.x-y", "1.2.3"),
    ("1.2.3-0.3.7", "1.2.3"),
    ("1.2.3-08a", "1.2.3"),
    ("1.2.3+build.5.sha-x", "1.2.3"),
    ("1.2.3-rc.1+build.001", "1.2.3"),
    ("1.2.3--", "1.2.3"),
    ("4294967295.4294967295.4294967295", "4294967295.4294967295.4294967295"),
]


def test_semver():
    """A semantic version 2.0.0 with any number of leading v; pre-release and build are dropped."""
    for version, expected in SEMVERS:
        kind = Type("Name", version)
        assert kind.semver() == expected
        assert f"{kind.major_version}.{kind.minor_version}.{kind.patch_version}" == expected
        assert str(kind) == f"Name v{expected}"


NO_SEMVERS = [
    "1",
    "1.2",
    "1.2.3.4",
    "08.0.0",
    "1.08.0",
    "1.0.08",
    "1.2.3-08",
    "1.2.3-",
    "1.2.3+",
    "1.2.3-a..b",
    "1.2.3+a+b",
    "V1.2.3",
    " 1.2.3",
    "1.2.3 ",
    "1.2.3\n",
    "-1.2.3",
    "1.x.3",
    "v",
    "a.b.c",
    "١.2.3",
    "4294967296.0.0",
    "0.4294967296.0",
    "0.0.4294967296",
    5,
    1.0,
    b"1.2.3",
]


def test_no_semver():
    """What is no such version, or does not fit into 32 bits, is a ValueError that names it."""
    for version in NO_SEMVERS:
        with pytest.raises(ValueError, match=f"unparseable semantic version: {re.escape(str(version))}"):
            Type("Name", version)


def test_type():
    """A type is name and three numbers: it compares, hashes, shows and copies by them."""
    kind = Type("Name", "1.2.3")
    assert kind == Type.of("Name", 1, 2, 3) == Type("Name", "v1.2.3-rc.1")
    assert hash(kind) == hash(Type.of("Name", 1, 2, 3))
    for other in (Type("Other", "1.2.3"), Type("Name", "1.2.4"), Type("Name", "1.3.3"), Type("Name", "2.2.3")):
        assert kind != other
    assert kind != "Name v1.2.3"
    assert repr(kind) == "Type(name='Name', version='1.2.3')"
    assert Type("Name").semver() == Type("Name", "").semver() == "0.0.0"
    assert pickle.loads(pickle.dumps(kind)) == copy.deepcopy(kind) == kind


def test_a_bad_version_changes_nothing():
    """A type keeps its version when another cannot be parsed."""
    kind = Type("Name", "1.2.3")
    with pytest.raises(ValueError):
        kind.parse_version("1.2.4294967296")
    assert kind.semver() == "1.2.3"


class Reading(Event):
    """An event of a program, with attributes of its own."""

    __slots__ = ("place",)


class Bare(Event):
    """One that sets what it wants itself."""

    def __init__(self, data):
        self.data, self.mimetype, self.meta, self.type = data, 50, {}, Type("bare", "1.0.0")


class Word(str, Enum):
    """Texts of a program."""

    NAME = "order"
    VERSION = "1.2.3"


def test_subclasses_are_copied_whole():
    """What a class below adds is copied, in slots or not; the stream is not."""
    event = Reading(b"x", meta={"a": "b"})
    event.place, event.note, event._handle = "Seattle", "wet", object()
    for made in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert (made.place, made.note, made.data, made.meta) == ("Seattle", "wet", b"x", {"a": "b"})
        assert made._handle is None


def test_subclass_without_init():
    """What it does not set is as in an event that nothing has happened to."""
    event = Bare(b"x")
    assert (event.id, event.topic, event.error, event.created, event.committed) == (None, "", None, None, None)
    assert event.state == EventState.INITIALIZED
    assert "bare v1.0.0" in str(event)
    with pytest.raises(AttributeError, match="'Bare' object has no attribute 'colour'"):
        assert event.colour


def test_texts_of_an_enumeration():
    """A member that is a str counts as that, not as its name."""
    assert str(Event(b"x", schema_name=Word.NAME, schema_version=Word.VERSION).type) == "order v1.2.3"
