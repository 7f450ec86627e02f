"""The refusal of an event, and its codes in both spellings (docs/protocol.rst, "Acks and nacks")."""

import enum
from typing import Dict, NamedTuple, Union


class Code(enum.IntEnum):
    """Why an event was refused: below 100 by the server, from 100 on by a subscriber."""

    UNKNOWN = 0
    MAX_EVENT_SIZE_EXCEEDED = 1
    TOPIC_UNKNOWN = 2
    TOPIC_ARCHIVED = 3
    TOPIC_DELETED = 4
    PERMISSION_DENIED = 5
    CONSENSUS_FAILURE = 6
    SHARDING_FAILURE = 7
    REDIRECT = 8
    INTERNAL = 9
    UNPROCESSED = 100
    TIMEOUT = 101
    UNHANDLED_MIMETYPE = 102
    UNKNOWN_TYPE = 103
    DELIVER_AGAIN_ANY = 104
    DELIVER_AGAIN_NOT_ME = 105

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        # Without it an f-string shows the number up to Python 3.11 and the name after.
        return format(int(self) if spec else self.name, spec)


UNKNOWN = Unknown = Code.UNKNOWN
MAX_EVENT_SIZE_EXCEEDED = MaxEventSizeExceeded = Code.MAX_EVENT_SIZE_EXCEEDED
TOPIC_UNKNOWN = TopicUnknown = Code.TOPIC_UNKNOWN
TOPIC_ARCHIVED = TopicArchived = Code.TOPIC_ARCHIVED
TOPIC_DELETED = TopicDeleted = Code.TOPIC_DELETED
PERMISSION_DENIED = PermissionDenied = Code.PERMISSION_DENIED
CONSENSUS_FAILURE = ConsensusFailure = Code.CONSENSUS_FAILURE
SHARDING_FAILURE = ShardingFailure = Code.SHARDING_FAILURE
REDIRECT = Redirect = Code.REDIRECT
INTERNAL = Internal = Code.INTERNAL
UNPROCESSED = Unprocessed = Code.UNPROCESSED
TIMEOUT = Timeout = Code.TIMEOUT
UNHANDLED_MIMETYPE = UnhandledMimetype = Code.UNHANDLED_MIMETYPE
UNKNOWN_TYPE = UnknownType = Code.UNKNOWN_TYPE
DELIVER_AGAIN_ANY = DeliverAgainAny = Code.DELIVER_AGAIN_ANY
DELIVER_AGAIN_NOT_ME = DeliverAgainNotMe = Code.DELIVER_AGAIN_NOT_ME

#: The server's text for a code where it has nothing more exact to say.
DEFAULT_TEXTS: Dict[int, str] = {
    Code.MAX_EVENT_SIZE_EXCEEDED: "maximum event size has been exceeded",
    Code.TOPIC_UNKNOWN: "topic unknown or unhandled",
    Code.TOPIC_ARCHIVED: "cannot publish to an archived topic",
    Code.TOPIC_DELETED: "topic is currently being deleted",
    Code.PERMISSION_DENIED: "not authorized to perform this action",
    Code.CONSENSUS_FAILURE: "could not commit event, please try again",
    Code.SHARDING_FAILURE: "wrong node for event sharding policy, please try again",
    Code.REDIRECT: "redirect to correct node",
    Code.INTERNAL: "internal error, please wait and try again",
    Code.UNPROCESSED: "client did not process event",
    Code.TIMEOUT: "client deadline exceeded",
    Code.UNHANDLED_MIMETYPE: "unhandled mimetype",
    Code.UNKNOWN_TYPE: "unhandled schema",
    Code.DELIVER_AGAIN_ANY: "deliver again to any subscriber",
    Code.DELIVER_AGAIN_NOT_ME: "deliver again to any subscriber but me",
}


def code_of(number: int) -> int:
    """Return the Code of a number, or the number itself where this version knows none."""
    try:
        return Code(number)
    except ValueError:
        return number


class Nack(NamedTuple):
    """The server's word that an event is not stored.

    Attributes:
        id: The local id under which the event was sent.
        code: Why, as a Code (or a bare number that this version does not know).
        error: The server's text.
    """

    id: bytes
    code: Union[Code, int]
    error: str = ""

    def __str__(self) -> str:
        return f"id: {self.id!r}\ncode: {self.code!s}\nerror: {self.error}"
