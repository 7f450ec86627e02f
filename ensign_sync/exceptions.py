"""Every error this package raises, in one tree::

    EnsignError (alias PyEnsignError)
    ├── AuthenticationError
    │   └── AuthenticationUnreachableError (also EnsignConnectionError)
    ├── CacheMissError
    ├── TopicNotFoundError
    │   ├── UnknownTopicError
    │   └── EnsignTopicNotFoundError
    ├── CouldNotAck, CouldNotNack
    ├── PublishError
    │   ├── NackError
    │   └── PublishTimeoutError (also EnsignTimeoutError)
    │       └── PublishUnreachableError (also EnsignConnectionError)
    ├── EventTooLargeError (ValueError)
    ├── EnSQLError
    │   ├── InvalidQueryError (ValueError)
    │   └── QueryNoRows
    ├── CursorError
    │   ├── CursorNoRows
    │   └── CursorClosedError
    ├── EnsignRPCError
    │   └── EnsignInvalidArgument (ValueError)
    ├── EnsignConnectionError (ConnectionError)
    ├── EnsignTypeError (TypeError), EnsignAttributeError (AttributeError)
    ├── EnsignTopicCreateError, EnsignTopicDestroyError
    ├── EnsignInvalidTopicError (ValueError)
    ├── EnsignSettingsError (ValueError)
    ├── EnsignInitError
    ├── EnsignTimeoutError (TimeoutError)
    ├── EnsignClientClosingError (alias ClientClosedError)
    ├── CheckpointError (ValueError)
    ├── ConcurrencyError (RuntimeError)
    ├── ProtocolError
    └── NodeError
        └── NodeStorageError

Each carries ``retriable`` (whether the same call may succeed later without a change), ``code`` (the name of a
gRPC status, or the number of a nack) and ``details`` (the server's own words). The error of an event that was not
acknowledged has ``sent``: False means that it never left this process and never will, True that the server may have
stored it.
"""

from typing import Any, List, Optional, Tuple


class EnsignError(Exception):
    """Base of every error of this package."""

    retriable = False
    code: Any = None
    details: str = ""
    sent: Optional[bool] = None


PyEnsignError = EnsignError


class AuthenticationError(EnsignError):
    """The auth server, or the node, refused the credentials."""


class CacheMissError(EnsignError):
    """A cached value was asked for that is not there."""


class TopicNotFoundError(EnsignError):
    """A topic does not exist in the project of the API key."""

    def __init__(self, topic: str = "") -> None:
        super().__init__(topic)
        self.topic = topic

    def __str__(self) -> str:
        return f"topic not found: {self.topic}"


class UnknownTopicError(TopicNotFoundError):
    """A topic was named that the project does not have; ``topic`` holds the name."""

    def __str__(self) -> str:
        return (
            f"unknown topic: {self.topic}, please specify the name or ID of a topic in your project"
            " (create_topic or ensure_topic_exists makes one)"
        )


class CouldNotAck(EnsignError):
    """The event cannot be acknowledged: it did not come from a subscription."""


class CouldNotNack(EnsignError):
    """The event cannot be refused: it did not come from a subscription."""


class PublishError(EnsignError):
    """Some events of a publish call were not acknowledged.

    Attributes:
        acks: One entry per event of the call, in order: its Ack, or None.
        failures: ``(index, event, error)`` for each event without an Ack.
    """

    def __init__(
        self,
        message: str = "",
        acks: Optional[List[Any]] = None,
        failures: Optional[List[Tuple[int, Any, Exception]]] = None,
    ) -> None:
        super().__init__(message)
        self.acks = list(acks or [])
        self.failures = list(failures or [])


class NackError(PublishError):
    """The server refused an event; ``code`` is the nack code and ``error`` the server's text."""

    def __init__(
        self,
        code: Any = 0,
        error: Any = "",
        acks: Optional[List[Any]] = None,
        failures: Optional[List[Tuple[int, Any, Exception]]] = None,
    ) -> None:
        super().__init__("", acks, failures)
        self.args = (code, error)
        self.code = code
        self.error = error
        self.details = str(error)
        self.retriable = code in RETRIABLE_NACKS

    def __str__(self) -> str:
        refused = len(self.failures)
        more = f" (and {refused - 1} more)" if refused > 1 else ""
        return f"event was nacked: {self.error} ({self.code!s}){more}"


class EventTooLargeError(EnsignError, ValueError):
    """An event does not fit into one request to the server; nothing of the call was sent."""

    def __init__(self, size: int = 0, limit: int = 0) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the event takes {self.size} bytes on the wire and the limit is {self.limit}:"
            " split it, or store the payload elsewhere and publish a reference"
        )


class EnSQLError(EnsignError):
    """Something went wrong with a query."""


class InvalidQueryError(EnSQLError, ValueError):
    """The query is not valid EnSQL; the text says where and why."""

    def __init__(self, details: str = "") -> None:
        super().__init__(details)
        self.details = details


class QueryNoRows(EnSQLError):
    """The query is valid and selects nothing."""


class CursorError(EnsignError):
    """A cursor cannot do what was asked."""


class CursorNoRows(CursorError):
    """The cursor has no rows."""


class CursorClosedError(CursorError):
    """The cursor was closed before this call."""


class EnsignRPCError(EnsignError):
    """The server ended a call with an error status.

    Attributes:
        name: What was asked of the server, such as ``CreateTopic``.
        code: The name of the gRPC status, such as ``PERMISSION_DENIED``.
        details: The server's text.
    """

    def __init__(self, name: str = "", code: Any = None, details: str = "") -> None:
        super().__init__(name, code, details)
        self.name = name
        self.code = code
        self.details = details
        self.retriable = code in RETRIABLE_CODES

    def __str__(self) -> str:
        return f"received gRPC error from Ensign: {self.name}: {self.details} ({self.code})"


class EnsignInvalidArgument(EnsignRPCError, ValueError):
    """The server calls an argument invalid."""


class EnsignConnectionError(EnsignError, ConnectionError):
    """The server cannot be reached, or the connection broke.

    Attributes:
        endpoint: The address that was tried.
        code: The name of the gRPC status, or the kind of HTTP failure.
        details: The text of the transport.
        hint: One thing to look at.
    """

    retriable = True

    def __init__(self, endpoint: str = "", code: Any = None, details: str = "", hint: str = "") -> None:
        super().__init__("")  # more arguments would be taken for the errno and file name of an OSError
        self.args = (endpoint, code, details, hint)
        self.endpoint = endpoint
        self.code = code
        self.details = details
        self.hint = hint

    def __str__(self) -> str:
        hint = f" Hint: {self.hint}" if self.hint else ""
        return f"no connection to {self.endpoint}: {self.code}: {self.details}.{hint}"


class AuthenticationUnreachableError(AuthenticationError, EnsignConnectionError):
    """The auth server cannot be reached, so there is no token."""


class EnsignTypeError(EnsignError, TypeError):
    """A value has a type that cannot be used here."""


class EnsignAttributeError(EnsignError, AttributeError):
    """A value lacks an attribute that is needed here."""


class EnsignTopicCreateError(EnsignError):
    """The server did not create the topic."""


class EnsignTopicDestroyError(EnsignError):
    """The server did not destroy the topic."""


class EnsignInvalidTopicError(EnsignError, ValueError):
    """A topic lacks a field, or its name breaks the rules for names."""


class EnsignTopicNotFoundError(TopicNotFoundError):
    """The server does not know a topic that was asked for by name or id."""


class EnsignSettingsError(EnsignError, ValueError):
    """A setting is missing or cannot be understood; the text names it and the ways to give it."""


class EnsignInitError(EnsignError):
    """The client is not ready to be used."""


class EnsignTimeoutError(EnsignError, TimeoutError):
    """The time allowed for a call ran out."""

    retriable = True


class PublishTimeoutError(PublishError, EnsignTimeoutError):
    """The time allowed for a publish ran out before every event was acknowledged.

    The error of each entry in ``failures`` has an attribute ``sent``: False means that the event never left
    this process and never will, True that the server may have stored it.
    """

    retriable = True
    sent = False


class PublishUnreachableError(PublishTimeoutError, EnsignConnectionError):
    """The time allowed for a publish ran out without a connection; nothing of what it names was sent."""

    def __init__(
        self,
        message: str = "",
        acks: Optional[List[Any]] = None,
        failures: Optional[List[Tuple[int, Any, Exception]]] = None,
        cause: Optional[EnsignConnectionError] = None,
    ) -> None:
        PublishTimeoutError.__init__(self, message, acks, failures)
        self.endpoint = cause.endpoint if cause else ""
        self.code = cause.code if cause else None
        self.details = cause.details if cause else ""
        self.hint = cause.hint if cause else ""

    def __str__(self) -> str:
        return str(self.args[0])


class EnsignClientClosingError(EnsignError):
    """The client, subscription or stream is closed."""


ClientClosedError = EnsignClientClosingError


class CheckpointError(EnsignError, ValueError):
    """A checkpoint cannot be used: it is damaged, foreign, or in use."""


class ConcurrencyError(EnsignError, RuntimeError):
    """An object was used from a thread or process that may not use it."""


class ProtocolError(EnsignError):
    """A message arrived, or a step was taken, that the protocol does not allow in this state."""

    def __init__(self, role: str = "", state: str = "", given: str = "") -> None:
        super().__init__(role, state, given)
        self.role = role
        self.state = state
        self.given = given

    def __str__(self) -> str:
        return f"{self.role} in state {self.state} cannot take {self.given}"


class NodeError(EnsignError):
    """The embedded node cannot do what was asked."""


class NodeStorageError(NodeError):
    """The data file of an embedded node cannot be used; nothing in it was changed."""


#: Nack codes of which the server itself says "please try again": consensus, sharding and internal failures.
RETRIABLE_NACKS = frozenset([6, 7, 9])

#: gRPC statuses after which the same call may succeed later (docs/protocol.rst, "Statuses").
RETRIABLE_CODES = frozenset(
    ["UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "CANCELLED"]
)
