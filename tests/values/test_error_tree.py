"""The errors: their tree, what each carries, and that each survives a process boundary."""

import copy
import pickle
import re

import pytest

from ensign_sync import exceptions
from ensign_sync.ack import Ack
from ensign_sync.exceptions import (
    AuthenticationUnreachableError,
    EnsignConnectionError,
    EnsignError,
    EnsignInvalidArgument,
    EnsignRPCError,
    EnsignTimeoutError,
    EventTooLargeError,
    InvalidQueryError,
    NackError,
    ProtocolError,
    PublishError,
    PublishTimeoutError,
    PublishUnreachableError,
    TopicNotFoundError,
    UnknownTopicError,
)
from ensign_sync.nack import Code
from tests.tables import each

CLASSES = {
    value.__name__: value
    for value in vars(exceptions).values()
    if isinstance(value, type) and issubclass(value, Exception)
}
ALIASES = {"PyEnsignError": "EnsignError", "ClientClosedError": "EnsignClientClosingError"}
ALWAYS_RETRIABLE = {
    "EnsignTimeoutError",
    "EnsignConnectionError",
    "AuthenticationUnreachableError",
    "PublishTimeoutError",
    "PublishUnreachableError",
}


def documented():
    """Read the tree of the module's docstring: name -> (parent in the tree, further parents)."""
    tree, above = {}, []
    for line in exceptions.__doc__.splitlines()[1:]:
        if not line.strip():
            if tree:
                break
            continue
        depth = len(re.match(r"[ │├└─]*", line).group()) // 4 - 1
        del above[depth:]
        for name, also in re.findall(r"(\w+)(?: \(([^)]*)\))?", re.sub(r"^[ │├└─]*", "", line)):
            parents = [] if also.startswith("alias") else re.findall(r"\w+", also.replace("also", ""))
            tree[name] = (above[-1] if above else None, parents)
        above.append(name)
    return tree


TREE = documented()


def test_tree_is_complete():
    """The docstring names every class, and no other."""
    assert set(TREE) == set(CLASSES)
    assert TREE["EnsignError"] == (None, [])


def test_tree():
    """A class has exactly the parents that the docstring gives, those of Python included."""
    for name, (parent, further) in TREE.items():
        expected = {*([parent] if parent else []), *further} or {"Exception"}
        assert {base.__name__ for base in CLASSES[name].__bases__} == expected, name
        assert issubclass(CLASSES[name], EnsignError)
        assert CLASSES[name].__doc__


def test_aliases():
    """Two classes have a second name."""
    for alias, name in ALIASES.items():
        assert getattr(exceptions, alias) is CLASSES[name]


BUILTIN_PARENTS = [
    ("EventTooLargeError", ValueError),
    ("InvalidQueryError", ValueError),
    ("EnsignInvalidArgument", ValueError),
    ("EnsignInvalidTopicError", ValueError),
    ("EnsignSettingsError", ValueError),
    ("EnsignConnectionError", ConnectionError),
    ("AuthenticationUnreachableError", ConnectionError),
    ("PublishUnreachableError", ConnectionError),
    ("EnsignTimeoutError", TimeoutError),
    ("PublishTimeoutError", TimeoutError),
    ("PublishUnreachableError", TimeoutError),
    ("EnsignTypeError", TypeError),
    ("EnsignAttributeError", AttributeError),
    ("ConcurrencyError", RuntimeError),
]


def test_builtin_parents():
    """Whoever catches the errors of Python catches these too."""
    for name, parent in BUILTIN_PARENTS:
        with pytest.raises(parent):
            raise CLASSES[name]()


def test_without_arguments():
    """Every class can be made of nothing, has the three attributes, and a text and a repr."""
    for name, kind in CLASSES.items():
        error = kind()
        assert error.retriable is (name in ALWAYS_RETRIABLE), name
        assert error.code == (0 if name == "NackError" else None), name
        assert error.details == "", name
        assert isinstance(str(error), str)
        assert repr(error).startswith(name)


def states():
    """Yield an error of each kind with everything set, and one with nothing."""
    down = EnsignConnectionError("localhost:1", "UNAVAILABLE", "refused", "is it running?")
    failure = [(1, "event", NackError(Code.INTERNAL, "disk"))]
    special = {
        "TopicNotFoundError": TopicNotFoundError("orders"),
        "UnknownTopicError": UnknownTopicError("orders"),
        "EnsignTopicNotFoundError": exceptions.EnsignTopicNotFoundError("orders"),
        "PublishError": PublishError("1 of 2 failed", [Ack(b"id"), None], failure),
        "NackError": NackError(Code.TOPIC_UNKNOWN, "gone", [None], failure),
        "PublishTimeoutError": PublishTimeoutError("1 of 2 open", [Ack(b"id"), None], failure),
        "PublishUnreachableError": PublishUnreachableError("1 of 2 open", [Ack(b"id"), None], failure, down),
        "EventTooLargeError": EventTooLargeError(5_000_000, 4_000_000),
        "InvalidQueryError": InvalidQueryError("syntax error at 5"),
        "EnsignRPCError": EnsignRPCError("CreateTopic", "UNAVAILABLE", "later"),
        "EnsignInvalidArgument": EnsignInvalidArgument("CreateTopic", "INVALID_ARGUMENT", "bad name"),
        "EnsignConnectionError": down,
        "AuthenticationUnreachableError": AuthenticationUnreachableError("http://a", "timeout", "no answer", "proxy?"),
        "ProtocolError": ProtocolError("publisher", "OPEN", "a subscription"),
    }
    for name, kind in CLASSES.items():
        yield special.get(name) or kind("what went wrong")
        yield kind()


def essence(error):
    """Return everything of an error that has to survive, in a form that compares."""
    attributes = {name: repr(value) for name, value in vars(error).items()}
    return type(error), str(error), repr(error.args), error.retriable, error.code, error.details, attributes


def test_pickle():
    """An error comes out of pickle as it went in, with nothing set and with everything: for process pools."""
    for error in states():
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert essence(pickle.loads(pickle.dumps(error, protocol))) == essence(error)


def test_copy():
    """An error comes out of both kinds of copy as it went in."""
    for error in states():
        assert essence(copy.deepcopy(error)) == essence(copy.copy(error)) == essence(error)


def test_sent_survives():
    """Whether an event was sent is kept with its error."""
    error = PublishTimeoutError("open")
    assert error.sent is False
    error.sent = True
    assert pickle.loads(pickle.dumps(error)).sent is copy.deepcopy(error).sent is True


TEXTS = [
    (TopicNotFoundError("orders"), "topic not found: orders"),
    (exceptions.EnsignTopicNotFoundError("orders"), "topic not found: orders"),
    (
        UnknownTopicError("orders"),
        "unknown topic: orders, please specify the name or ID of a topic in your project"
        " (create_topic or ensure_topic_exists makes one)",
    ),
    (PublishError("1 of 2 failed"), "1 of 2 failed"),
    (NackError(Code.TOPIC_UNKNOWN, "gone"), "event was nacked: gone (TOPIC_UNKNOWN)"),
    (NackError(4711, "gone"), "event was nacked: gone (4711)"),
    (NackError(Code.INTERNAL, "x", [None], [(0, None, None)]), "event was nacked: x (INTERNAL)"),
    (NackError(9, "x", [None] * 3, [(0, None, None)] * 3), "event was nacked: x (9) (and 2 more)"),
    (
        EventTooLargeError(5, 4),
        "the event takes 5 bytes on the wire and the limit is 4:"
        " split it, or store the payload elsewhere and publish a reference",
    ),
    (InvalidQueryError("syntax error at 5"), "syntax error at 5"),
    (EnsignRPCError("Info", "INTERNAL", "disk"), "received gRPC error from Ensign: Info: disk (INTERNAL)"),
    (EnsignConnectionError("h:1", "UNAVAILABLE", "refused"), "no connection to h:1: UNAVAILABLE: refused."),
    (
        AuthenticationUnreachableError("http://a", "timeout", "none", "proxy?"),
        "no connection to http://a: timeout: none. Hint: proxy?",
    ),
    (PublishTimeoutError("1 of 2 open"), "1 of 2 open"),
    (PublishUnreachableError("1 of 2 open"), "1 of 2 open"),
    (EnsignTimeoutError("took 5 s"), "took 5 s"),
    (ProtocolError("publisher", "OPEN", "x"), "publisher in state OPEN cannot take x"),
]


def test_str():
    """The text of an error says what happened, to what, and where it fits what to do."""
    for error, text in TEXTS:
        assert str(error) == text


@each(
    ("retriable", "codes"),
    [
        (True, "UNAVAILABLE DEADLINE_EXCEEDED ABORTED INTERNAL UNKNOWN CANCELLED RESOURCE_EXHAUSTED"),
        (False, "INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED UNAUTHENTICATED FAILED_PRECONDITION"),
        (False, "OUT_OF_RANGE UNIMPLEMENTED DATA_LOSS OK"),
    ],
)
def test_retriable_statuses(retriable, codes):
    """A status tells whether the same call may succeed later."""
    for code in codes.split():
        assert EnsignRPCError("Info", code).retriable is retriable, code
        assert EnsignInvalidArgument("Info", code).retriable is retriable, code


def test_attributes():
    """What an error was made of can be read from it."""
    rpc = EnsignRPCError("Info", "NOT_FOUND", "no such topic")
    assert (rpc.name, rpc.code, rpc.details) == ("Info", "NOT_FOUND", "no such topic")
    down = EnsignConnectionError("h:1", "UNAVAILABLE", "refused", "is it running?")
    assert (down.endpoint, down.code, down.details, down.hint) == ("h:1", "UNAVAILABLE", "refused", "is it running?")
    refused = NackError(Code.TOPIC_UNKNOWN, "gone")
    assert (refused.code, refused.error, refused.details) == (2, "gone", "gone")
    assert (refused.acks, refused.failures) == ([], [])
    assert UnknownTopicError("orders").topic == "orders"
    assert InvalidQueryError("at 5").details == "at 5"
    assert (EventTooLargeError(5, 4).size, EventTooLargeError(5, 4).limit) == (5, 4)
    wrong = ProtocolError("publisher", "OPEN", "x")
    assert (wrong.role, wrong.state, wrong.given) == ("publisher", "OPEN", "x")


def test_publish_error_owns_its_lists():
    """The lists of an error are its own, and those of two errors are two."""
    acks = [None]
    error = PublishError("x", acks)
    acks.append(None)
    assert error.acks == [None]
    assert PublishError().failures is not PublishError().failures


def test_publish_unreachable():
    """A publish without a connection is a timeout that tells what the connection failed of."""
    cause = EnsignConnectionError("h:1", "UNAVAILABLE", "refused", "is it running?")
    error = PublishUnreachableError("2 events were not sent", [None, None], [(0, None, None), (1, None, None)], cause)
    assert vars(error)["endpoint"] == "h:1"
    assert (error.code, error.details, error.hint) == ("UNAVAILABLE", "refused", "is it running?")
    assert (error.acks, len(error.failures), error.sent) == ([None, None], 2, False)
    bare = PublishUnreachableError("x")
    assert (bare.endpoint, bare.code, bare.details, bare.hint) == ("", None, "", "")
