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
        depth = len(re.match(r"[ │├└─]*", line).group()) // 4
        del above[depth:]
        for name, also in re.findall(r"(\w+)(?: \(([^)]*)\))?", re.sub(r"^[ │├└─]*", "", line)):
            more = [] if also.startswith("alias") else [parent for parent in re.findall(r"\w+", also) if parent != "also"]
            tree[name] = (above[-1] if above else None, more)
        above.append(name)
    return tree


TREE = documented()


def test_tree_is_complete():
    """The docstring names every class, and no other."""
    assert set(TREE) == set(CLASSES)
    assert TREE["EnsignError"] == (None, [])


@pytest.mark.parametrize("name", TREE)
def test_tree(name):
    """A class has exactly the parents that the docstring gives, those of Python included."""
    parent, further = TREE[name]
    builtins = vars(exceptions)["__builtins__"]
    expected = [CLASSES.get(one) or builtins[one] for one in [*([parent] if parent else []), *further]]
    assert issubclass(CLASSES[name], EnsignError)
    assert set(CLASSES[name].__bases__) == set(expected or [Exception])
    assert CLASSES[name].__doc__


@pytest.mark.parametrize(("alias", "name"), list(ALIASES.items()))
def test_aliases(alias, name):
    """Two classes have a second name."""
    assert getattr(exceptions, alias) is CLASSES[name]


@pytest.mark.parametrize(
    ("name", "parent"),
    [
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
    ],
)
def test_builtin_parents(name, parent):
    """Whoever catches the errors of Python catches these too."""
    with pytest.raises(parent):
        raise CLASSES[name]()


@pytest.mark.parametrize("name", CLASSES)
def test_without_arguments(name):
    """Every class can be made of nothing, has the three attributes, and a text and a repr."""
    error = CLASSES[name]()
    assert error.retriable is (name in ALWAYS_RETRIABLE)
    assert error.code == (0 if name == "NackError" else None)
    assert error.details == ""
    assert isinstance(str(error), str)
    assert repr(error).startswith(name)


def states():
    """Yield one error of each kind with everything set."""
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
        yield name, special.get(name) or kind("what went wrong")
        yield f"{name}-empty", kind()


STATES = list(states())


def essence(error):
    """Return everything of an error that has to survive, in a form that compares."""
    attributes = {name: repr(value) for name, value in vars(error).items()}
    return type(error), str(error), repr(error.args), error.retriable, error.code, error.details, attributes


@pytest.mark.parametrize("error", [error for _, error in STATES], ids=[name for name, _ in STATES])
def test_copies(error):
    """An error comes out of pickle and copy as it went in: for process pools and for logs."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert essence(pickle.loads(pickle.dumps(error, protocol))) == essence(error)
    assert essence(copy.deepcopy(error)) == essence(copy.copy(error)) == essence(error)


def test_sent_survives():
    """Whether an event was sent is kept with its error."""
    error = PublishTimeoutError("open")
    assert error.sent is False
    error.sent = True
    assert pickle.loads(pickle.dumps(error)).sent is copy.deepcopy(error).sent is True


@pytest.mark.parametrize(
    ("error", "text"),
    [
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
        (NackError(Code.INTERNAL, "x", [None] * 3, [(0, None, None)] * 3), "event was nacked: x (INTERNAL) (and 2 more)"),
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
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_str(error, text):
    """The text of an error says what happened, to what, and where it fits what to do."""
    assert str(error) == text


@pytest.mark.parametrize(
    ("code", "retriable"),
    [
        *[(code, True) for code in "UNAVAILABLE DEADLINE_EXCEEDED ABORTED INTERNAL UNKNOWN CANCELLED".split()],
        ("RESOURCE_EXHAUSTED", True),
        *[(code, False) for code in "INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED".split()],
        *[(code, False) for code in "UNAUTHENTICATED FAILED_PRECONDITION OUT_OF_RANGE UNIMPLEMENTED DATA_LOSS".split()],
        (None, False),
    ],
)
def test_retriable_statuses(code, retriable):
    """A status tells whether the same call may succeed later."""
    assert EnsignRPCError("Info", code).retriable is retriable
    assert EnsignInvalidArgument("Info", code).retriable is retriable


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
    assert (error.endpoint, error.code, error.details, error.hint) == ("h:1", "UNAVAILABLE", "refused", "is it running?")
    assert (error.acks, len(error.failures), error.sent) == ([None, None], 2, False)
    bare = PublishUnreachableError("x")
    assert (bare.endpoint, bare.code, bare.details, bare.hint) == ("", None, "", "")
