"""A pure-synchronous client for Ensign, with an embedded Ensign node.

Names are loaded when they are first used: importing this package imports neither grpc nor requests nor protobuf,
and starts nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any, List

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .ack import Ack as Ack
    from .checkpoint import FileCheckpoint as FileCheckpoint
    from .client import Ensign as Ensign
    from .cursor import Cursor as Cursor
    from .decorators import authenticate as authenticate
    from .enum import DeduplicationStrategy as DeduplicationStrategy
    from .enum import OffsetPosition as OffsetPosition
    from .enum import ShardingStrategy as ShardingStrategy
    from .enum import TopicState as TopicState
    from .events import Event as Event
    from .events import EventState as EventState
    from .events import Type as Type
    from .events import from_object as from_object
    from .exceptions import (
        AuthenticationError as AuthenticationError,
    )
    from .exceptions import (
        AuthenticationUnreachableError as AuthenticationUnreachableError,
    )
    from .exceptions import (
        CacheMissError as CacheMissError,
    )
    from .exceptions import (
        CheckpointError as CheckpointError,
    )
    from .exceptions import (
        ClientClosedError as ClientClosedError,
    )
    from .exceptions import (
        ConcurrencyError as ConcurrencyError,
    )
    from .exceptions import (
        CouldNotAck as CouldNotAck,
    )
    from .exceptions import (
        CouldNotNack as CouldNotNack,
    )
    from .exceptions import (
        CursorClosedError as CursorClosedError,
    )
    from .exceptions import (
        CursorError as CursorError,
    )
    from .exceptions import (
        CursorNoRows as CursorNoRows,
    )
    from .exceptions import (
        EnsignAttributeError as EnsignAttributeError,
    )
    from .exceptions import (
        EnsignClientClosingError as EnsignClientClosingError,
    )
    from .exceptions import (
        EnsignConnectionError as EnsignConnectionError,
    )
    from .exceptions import (
        EnsignError as EnsignError,
    )
    from .exceptions import (
        EnsignInitError as EnsignInitError,
    )
    from .exceptions import (
        EnsignInvalidArgument as EnsignInvalidArgument,
    )
    from .exceptions import (
        EnsignInvalidTopicError as EnsignInvalidTopicError,
    )
    from .exceptions import (
        EnsignRPCError as EnsignRPCError,
    )
    from .exceptions import (
        EnsignSettingsError as EnsignSettingsError,
    )
    from .exceptions import (
        EnsignTimeoutError as EnsignTimeoutError,
    )
    from .exceptions import (
        EnsignTopicCreateError as EnsignTopicCreateError,
    )
    from .exceptions import (
        EnsignTopicDestroyError as EnsignTopicDestroyError,
    )
    from .exceptions import (
        EnsignTopicNotFoundError as EnsignTopicNotFoundError,
    )
    from .exceptions import (
        EnsignTypeError as EnsignTypeError,
    )
    from .exceptions import (
        EnSQLError as EnSQLError,
    )
    from .exceptions import (
        EventTooLargeError as EventTooLargeError,
    )
    from .exceptions import (
        InvalidQueryError as InvalidQueryError,
    )
    from .exceptions import (
        NackError as NackError,
    )
    from .exceptions import (
        NodeError as NodeError,
    )
    from .exceptions import (
        NodeStorageError as NodeStorageError,
    )
    from .exceptions import (
        ProtocolError as ProtocolError,
    )
    from .exceptions import (
        PublishError as PublishError,
    )
    from .exceptions import (
        PublishTimeoutError as PublishTimeoutError,
    )
    from .exceptions import (
        PublishUnreachableError as PublishUnreachableError,
    )
    from .exceptions import (
        PyEnsignError as PyEnsignError,
    )
    from .exceptions import (
        QueryNoRows as QueryNoRows,
    )
    from .exceptions import (
        TopicNotFoundError as TopicNotFoundError,
    )
    from .exceptions import (
        UnknownTopicError as UnknownTopicError,
    )
    from .ids import RLID as RLID
    from .ids import ULID as ULID
    from .mimetypes import MIME as MIME
    from .nack import Nack as Nack
    from .projects import Project as Project
    from .publisher import Publisher as Publisher
    from .settings import TLS as TLS
    from .settings import Credentials as Credentials
    from .settings import Reconnect as Reconnect
    from .settings import Redeliver as Redeliver
    from .settings import Settings as Settings
    from .status import ServerStatus as ServerStatus
    from .streams.line import Outage as Outage
    from .subscriber import Subscriber as Subscriber
    from .subscription import Gap as Gap
    from .subscription import Subscription as Subscription
    from .times import Instant as Instant
    from .topics import Deduplication as Deduplication
    from .topics import EventType as EventType
    from .topics import Topic as Topic

_HOMES = {
    name: module
    for module, names in {
        "ack": "Ack",
        "checkpoint": "FileCheckpoint",
        "client": "Ensign",
        "cursor": "Cursor",
        "decorators": "authenticate",
        "enum": "DeduplicationStrategy OffsetPosition ShardingStrategy TopicState",
        "events": "Event EventState Type from_object",
        "exceptions": (
            "AuthenticationError AuthenticationUnreachableError CacheMissError CheckpointError "
            "ClientClosedError "
            "ConcurrencyError CouldNotAck CouldNotNack CursorClosedError CursorError CursorNoRows EnSQLError "
            "EnsignAttributeError EnsignClientClosingError EnsignConnectionError EnsignError EnsignInitError "
            "EnsignInvalidArgument EnsignInvalidTopicError EnsignRPCError EnsignSettingsError "
            "EnsignTimeoutError EnsignTopicCreateError EnsignTopicDestroyError EnsignTopicNotFoundError "
            "EnsignTypeError EventTooLargeError InvalidQueryError NackError NodeError NodeStorageError "
            "ProtocolError PublishError PublishTimeoutError PublishUnreachableError PyEnsignError "
            "QueryNoRows TopicNotFoundError UnknownTopicError "
        ),
        "ids": "RLID ULID",
        "mimetypes": "MIME",
        "nack": "Nack",
        "projects": "Project",
        "publisher": "Publisher",
        "settings": "TLS Credentials Reconnect Redeliver Settings",
        "status": "ServerStatus",
        "streams.line": "Outage",
        "subscriber": "Subscriber",
        "subscription": "Gap Subscription",
        "times": "Instant",
        "topics": "Deduplication EventType Topic",
    }.items()
    for name in names.split()
}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *_HOMES})
