"""Events: what is published, and what a subscription or a query returns."""

import copyreg
import functools
import json
import pickle
import re
import time
from datetime import datetime
from enum import IntEnum
from typing import Any, Dict, Mapping, Optional, Tuple, Union, cast

from . import mimetypes, nack
from .ack import Ack
from .exceptions import CouldNotAck, CouldNotNack, EnsignTimeoutError, NackError
from .ids import RLID
from .times import Instant, Kept, instant_of

_SEMVER = re.compile(
    r"^v*(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?\Z",
    re.ASCII,
)
_UINT32 = 2**32 - 1


class EventState(IntEnum):
    """Where an event is between its making and its acknowledgement."""

    INITIALIZED = 0
    QUEUED = 1
    PUBLISHED = 2
    SUBSCRIBED = 3
    ACKED = 4
    NACKED = 5


#: Looked up once, since Python takes long over a member of an enumeration.
_INITIALIZED, _SUBSCRIBED = EventState.INITIALIZED, EventState.SUBSCRIBED


class Type:
    """The schema of an event: a name and a semantic version, of which the wire carries three numbers."""

    __slots__ = ("name", "major_version", "minor_version", "patch_version")

    def __init__(self, name: str, version: Optional[str] = None) -> None:
        self.name = name
        if version:
            self.parse_version(version)
        else:
            self.major_version = self.minor_version = self.patch_version = 0

    @classmethod
    def of(cls, name: str, major: int, minor: int, patch: int) -> "Type":
        """Make a type from the fields of the wire."""
        self = cls(name)
        self.major_version, self.minor_version, self.patch_version = major, minor, patch
        return self

    def parse_version(self, version: str) -> None:
        """Take the three numbers of a semver 2.0.0 text; pre-release and build are dropped."""
        if not isinstance(version, str):
            raise ValueError(f"unparseable semantic version: {version}")
        self.major_version, self.minor_version, self.patch_version = _numbers(version)

    def semver(self) -> str:
        """Return the version as text."""
        return f"{self.major_version}.{self.minor_version}.{self.patch_version}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Type):
            return NotImplemented
        return (self.name, self.semver()) == (other.name, other.semver())

    def __hash__(self) -> int:
        return hash((self.name, self.semver()))

    def __repr__(self) -> str:
        return f"Type(name={self.name!r}, version={self.semver()!r})"

    def __str__(self) -> str:
        return f"{self.name} v{self.semver()}"


#: A schema as events carry it that were not asked for theirs: the name, and the three numbers of the version.
Kind = Tuple[str, Tuple[int, int, int]]


def _kind_of(name: Any, version: Any) -> Kind:
    if not isinstance(name, str):
        raise TypeError(f"schema name must be str, got type {type(name).__name__}")
    if version and not isinstance(version, str):
        raise ValueError(f"unparseable semantic version: {version}")
    # str() of a member of an enumeration would be its name.
    return _checked_kind("".join(name), "".join(version) if version else "")


@functools.lru_cache(maxsize=256)
def _checked_kind(name: str, version: str) -> Kind:
    name = name.strip()
    if not name:
        raise ValueError("schema name cannot be empty")
    if not version:
        raise ValueError("schema version cannot be empty: give one such as '1.0.0'")
    return name, _numbers(version)


@functools.lru_cache(maxsize=256)
def _numbers(version: str) -> Tuple[int, int, int]:
    match = _SEMVER.match(version)
    if not match:
        raise ValueError(f"unparseable semantic version: {version}")
    major, minor, patch = (int(match[part]) for part in ("major", "minor", "patch"))
    if max(major, minor, patch) > _UINT32:
        raise ValueError(f"unparseable semantic version: {version}: no part may exceed {_UINT32}")
    return major, minor, patch


def _no_mimetype() -> int:
    raise ValueError("no mimetype provided")


def _checked_meta(meta: Mapping[str, str]) -> Dict[str, str]:
    if type(meta) is not dict and not isinstance(meta, Mapping):
        raise TypeError(f"meta must map str to str, got {type(meta).__name__}")
    checked = dict(meta)
    for key, value in checked.items():
        if type(key) is type(value) is str:
            continue
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"meta must map str to str, got {key!r}: {value!r}: convert both with str()")
    return checked


#: What ties an event to a stream; a copy belongs to none.
_OF_A_STREAM = frozenset(("_handle", "_delivered"))

_DEFAULTS: Dict[str, Any] = {
    **dict.fromkeys(("id", "error", "_type", "_created", "_committed", "_handle", "_delivered")),
    "topic": "",
    "_state": _INITIALIZED,
}


class Event:
    """A piece of data with its mimetype, schema and metadata.

    Any thread may read an event; ``ack``, ``nack`` and ``wait_for_ack`` may be called from any thread.

    Attributes:
        data: The payload, bytes.
        mimetype: A ``mimetypes.MIME``; a bare int where the server delivered a number that none has.
        meta: Key-value pairs of the publisher, str to str.
        id: After publishing the local id of the ack; on a received event its RLID.
        topic: The name of the topic it was received from.
        error: The Nack or the error, if it was refused.
    """

    # Slots for what each has, since a dictionary for every event takes time; and one for what a program adds.
    __slots__ = (
        *("data", "mimetype", "meta", "id", "topic", "error"),
        *("_kind", "_type", "_state", "_created", "_committed", "_handle", "_delivered"),
        *("__dict__", "__weakref__"),
    )
    _delivered: Any  # what the stream knows of it, on the way in

    def __init__(
        self,
        data: Optional[bytes] = None,
        mimetype: Union[str, int, None] = mimetypes.ApplicationJSON,
        schema_name: str = "Unknown",
        schema_version: str = "0.0.0",
        meta: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Make an event to be published.

        Raises:
            ValueError: No data, no or an unknown mimetype, an empty schema name, a version that is no semver.
            TypeError: Data that is not bytes, or metadata that is not str to str.
        """
        if type(data) is not bytes or not data:
            _check_data(data)
            assert data is not None
        self.data = data
        self.mimetype: int = mimetypes.parse(mimetype) if mimetype is not None else _no_mimetype()
        if type(schema_name) is type(schema_version) is str:
            self._kind: Kind = _checked_kind(schema_name, schema_version)
        else:
            self._kind = _kind_of(schema_name, schema_version)
        self._type: Optional[Type] = None  # made when somebody looks, who may then change it
        self.meta: Dict[str, str] = {} if meta is None else _checked_meta(meta)
        self._created: Kept = time.time_ns()
        self._committed: Kept = None
        self._state = _INITIALIZED
        self.id: Any = None
        self.topic = ""
        self.error: Any = None
        # Set by a stream: on the way out an object with wait(timeout), on the way in one with ack and nack.
        self._handle: Any = None

    def __getstate__(self) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        # A copy, perhaps in another process, belongs to no stream.
        slots = copyreg._slotnames(type(self))  # type: ignore[attr-defined]  # as pickle finds them
        kept = {name: getattr(self, name) for name in slots if name not in _OF_A_STREAM and hasattr(self, name)}
        return self.__dict__, kept

    def __getattr__(self, name: str) -> Any:
        # Of a class below that does not call __init__, as far as there is a default.
        if name in _DEFAULTS:
            return _DEFAULTS[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def type(self) -> Type:
        """The schema."""
        if self._type is None:
            name, numbers = self._kind
            self._type = Type.of(name, *numbers)
        return self._type

    @type.setter
    def type(self, schema: Type) -> None:
        self._type = schema

    @property
    def created(self) -> Optional[Instant]:
        """When the publisher made it."""
        return _looked_up(self._created)

    @created.setter
    def created(self, at: Optional[datetime]) -> None:
        self._created = _checked_time("created", at)

    @property
    def committed(self) -> Optional[Instant]:
        """When the server stored it; the time of the id, to the millisecond, where the server does not say."""
        if self._committed is None and type(self.id) is RLID:
            return _looked_up(self.id.milliseconds * 1_000_000)
        return _looked_up(self._committed)

    @committed.setter
    def committed(self, at: Optional[datetime]) -> None:
        self._committed = _checked_time("committed", at)

    @property
    def state(self) -> EventState:
        """Where the event is between its making and its acknowledgement."""
        return self._state

    def published(self) -> bool:
        """Tell whether the event was sent, received, acknowledged or refused."""
        return self._state >= EventState.PUBLISHED

    def acked(self) -> bool:
        """Tell whether the event was acknowledged."""
        return self._state == EventState.ACKED

    def nacked(self) -> bool:
        """Tell whether the event was refused."""
        return self._state == EventState.NACKED

    def nack_error(self) -> Any:
        """Return the Nack of a refused event, else None."""
        return self.error

    def wait_for_ack(self, timeout: Optional[float] = 30.0) -> Ack:
        """Block until the event that was handed to ``publish`` or ``submit`` is acknowledged.

        Raises:
            NackError: The server refused it.
            EnsignTimeoutError: Nothing came within ``timeout`` seconds; the event stays pending.
            CouldNotAck: The event was never published.
        """
        handle = self._handle
        if self._state == EventState.INITIALIZED or (handle is None and not self.published()):
            raise CouldNotAck("the event was not published, so no acknowledgement will come")
        if self._state not in (EventState.ACKED, EventState.NACKED) and handle is not None:
            if not hasattr(handle, "wait"):
                raise CouldNotAck("the event was received from a subscription: acknowledge it with ack()")
            if not handle.wait(timeout):
                raise EnsignTimeoutError(f"no acknowledgement within {timeout} s; the event is still pending")
        if self._state == EventState.NACKED:
            if isinstance(self.error, nack.Nack):
                raise NackError(self.error.code, self.error.error)
            raise NackError(nack.UNKNOWN, str(self.error))
        if self._state != EventState.ACKED:
            raise self.error if isinstance(self.error, Exception) else CouldNotAck("the event was given up")
        return Ack(self.id, self.committed)

    def ack(self) -> bool:
        """Tell the server that the event was processed; does not block.

        Returns:
            True, or False if the event was refused before.

        Raises:
            CouldNotAck: The event did not come from a subscription.
        """
        if self._state == EventState.SUBSCRIBED and hasattr(self._handle, "ack"):
            self._handle.ack(self)
        elif self._state < EventState.ACKED:
            raise CouldNotAck("Event has not been received by a subscriber")
        return self._state == EventState.ACKED

    def nack(self, code: int = nack.UNPROCESSED) -> bool:
        """Tell the server that the event was not processed, and why; does not block.

        Returns:
            True, or False if the event was acknowledged before.

        Raises:
            CouldNotNack: The event did not come from a subscription.
        """
        if self._state == EventState.SUBSCRIBED and hasattr(self._handle, "nack"):
            self._handle.nack(self, code)
        elif self._state < EventState.ACKED:
            raise CouldNotNack("Event has not been received by a subscriber")
        return self._state == EventState.NACKED

    def decode(self, decoder: Any = None, allow_pickle: bool = False) -> Any:
        """Turn the data into an object by its mimetype: JSON, text or pickle; other data is returned as bytes.

        Args:
            decoder: An object with ``decode(data)`` that is used instead.
            allow_pickle: Unpickling runs code of whoever published the event, so it has to be allowed.

        Raises:
            ValueError: The data is not what the mimetype says, or it is a pickle and not allowed.
        """
        if decoder is not None:
            return decoder.decode(self.data)
        if self.mimetype == mimetypes.ApplicationPythonPickle:
            if not allow_pickle:
                raise ValueError("a pickle runs code of its publisher: decode(allow_pickle=True) if you trust it")
            return _decoded(pickle.loads, self.data, "pickle")
        if self.mimetype == mimetypes.ApplicationJSON:
            return _decoded(json.loads, self.data, "JSON")
        if self.mimetype == mimetypes.TextPlain:
            return _decoded(bytes.decode, self.data, "string")
        return self.data

    def __repr__(self) -> str:
        meta = f", meta={self.meta}" if self.meta else ""
        return (
            f"Event(data={self.data!r}, mimetype={int(self.mimetype)}, schema_name={self.type.name}, "
            f"schema_version={self.type.semver()}{meta})"
        )

    def __str__(self) -> str:
        data = str(self.data)
        rows = ["Event:"]
        if self.id:
            rows.append(f"id: {self.id}")
        rows.append(f"data: {data[:100] + '...' if len(data) > 100 else data}")
        rows.append(f"mimetype: {mimetypes.names_by_value.get(self.mimetype, int(self.mimetype))}")
        rows.append(f"schema: {self.type}")
        if self.meta:
            rows.append(f"meta: {self.meta}")
        rows.append(f"state: EventState.{self._state.name}")
        rows.append(f"created: {self.created}")
        if self.committed:
            rows.append(f"committed: {self.committed}")
        if self.error:
            rows.append(f"error: {self.error}")
        return "\n\t".join(rows)


def _looked_up(kept: Kept) -> Optional[Instant]:
    if isinstance(kept, datetime) and kept.tzinfo is None:
        return cast(Instant, kept)  # no instant can be made of what somebody assigned, and publishing it says so
    return instant_of(kept)


def _checked_time(name: str, at: Any) -> Optional[datetime]:
    if at is not None and not isinstance(at, datetime):
        raise TypeError(f"{name} must be a datetime with a time zone or None, got {type(at).__name__}")
    return at


def _check_data(data: Any) -> None:
    if isinstance(data, str):
        raise TypeError("event data must be bytes, got type str: encode it first, data.encode('utf-8')")
    if data is not None and not isinstance(data, bytes):
        raise TypeError(
            f"event data must be bytes, got type {type(data).__name__}: encode it, or let from_object do so"
        )
    if not data:
        raise ValueError("no data provided")


def _decoded(decode: Any, data: bytes, kind: str) -> Any:
    try:
        return decode(data)
    except Exception as error:
        raise ValueError(f"error decoding event data from {kind}: {error}") from error


def received(
    data: bytes,
    mimetype: int,
    schema: Kind,
    meta: Dict[str, str],
    created: Kept,
    id: Optional[RLID],
    committed: Kept,
    topic: str,
) -> Event:
    """Make an event from what a server delivered, which may be anything: nothing is checked."""
    event = Event.__new__(Event)
    event.data, event.mimetype, event._kind, event.meta = data, mimetype, schema, meta
    event._created, event.id, event._committed, event.topic = created, id, committed, topic
    event._state, event._type, event.error, event._handle, event._delivered = _SUBSCRIBED, None, None, None, None
    return event


def from_object(obj: Any, mimetype: Union[str, int, None] = None, encoder: Any = None) -> Event:
    """Make an event of any object.

    Bytes stay as they are, str becomes UTF-8 text, with the mimetype of pickle any object is pickled, and
    everything else becomes JSON.

    Args:
        obj: The object. An Event is returned as it is.
        mimetype: Overrides the mimetype that the kind of object suggests.
        encoder: An object with ``encode(obj) -> bytes``; then a mimetype must be given.

    Raises:
        ValueError: An encoder without mimetype or without encode, an empty payload, an unknown mimetype.
        TypeError: The object is not JSON serializable.
    """
    if isinstance(obj, Event) and encoder is None:
        return obj
    kind = None if mimetype is None or mimetype == "" else mimetypes.parse(mimetype)
    if encoder is not None:
        if kind is None:
            raise ValueError("mimetype must be provided if encoder is provided")
        if not hasattr(encoder, "encode"):
            raise ValueError("encoder must have an encode() method")
        return Event(encoder.encode(obj), kind)
    if isinstance(obj, bytes):
        return Event(obj, mimetypes.ApplicationOctetStream if kind is None else kind)
    if isinstance(obj, str):
        return Event(obj.encode("utf-8"), mimetypes.TextPlain if kind is None else kind)
    if kind == mimetypes.ApplicationPythonPickle:
        return Event(pickle.dumps(obj), kind)
    return Event(json.dumps(obj).encode("utf-8"), mimetypes.ApplicationJSON if kind is None else kind)
