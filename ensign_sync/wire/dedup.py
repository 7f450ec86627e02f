"""When two events are the same, and how the second is stored (docs/protocol.rst, "Deduplication").

Everything here is a function of bytes: of a stored Topic, of the encoded Event inside a wrapper, of a stored
EventWrapper. A policy names parts of an event; events that agree in all of them are duplicates. The first stays whole,
the *original*. A duplicate keeps its place, its id and what is its own, and names its original.

The real server knows no UNIQUE_FIELD: it takes such a policy and then fails. Here it compares fields of a JSON payload:

* The data, whatever its mimetype, is read as JSON. If it is an object, the members that the policy names are taken from
  its top level; names are no paths. They are compared as JSON with sorted keys: ``1``, ``1.0``, ``true`` and ``"1"``
  are four values, spaces and the order of keys do not count, a missing member is not the same as ``null``, and numbers
  with a fraction or an exponent have the precision of a double.
* An event whose data is no JSON object, or that has none of the named members, is a duplicate of nothing.

All functions take any bytes. An event that cannot be decoded counts as one that has these bytes as its data, as
subscribers see it; a wrapper that cannot be decoded is handed back as it is. Only a Topic that cannot be decoded is an
error, since the server wrote it.
"""

import json
from typing import Any, Iterable, List, NamedTuple, Optional, Tuple

from ..api.v1beta1 import event_pb2, topic_pb2
from ..enum import DeduplicationStrategy, OffsetPosition
from ..ids import murmur3_128
from .codec import BadMessage

_NONE = int(DeduplicationStrategy.NONE)
_STRICT = int(DeduplicationStrategy.STRICT)
_DATAGRAM = int(DeduplicationStrategy.DATAGRAM)
_KEY_GROUPED = int(DeduplicationStrategy.KEY_GROUPED)
_UNIQUE_KEY = int(DeduplicationStrategy.UNIQUE_KEY)
_UNIQUE_FIELD = int(DeduplicationStrategy.UNIQUE_FIELD)

_KEYED = (_KEY_GROUPED, _UNIQUE_KEY)
_DEDUPLICATING = (_STRICT, _DATAGRAM, _KEY_GROUPED, _UNIQUE_KEY, _UNIQUE_FIELD)

#: How to read the event, besides the event itself: what is not stored twice.
_CODING = ("encryption", "compression")


# the policy


class Policy(NamedTuple):
    """What a topic does about duplicates, with the numbers of the wire."""

    strategy: int = _NONE
    offset: int = int(OffsetPosition.OFFSET_EARLIEST)
    keys: Tuple[str, ...] = ()
    fields: Tuple[str, ...] = ()
    overwrite: bool = False

    @classmethod
    def of_topic(cls, record: bytes) -> "Policy":
        """Read the policy of a stored Topic, as it stands there; a Topic without one has the strategy UNKNOWN."""
        stored = _topic(record).deduplication
        keys, fields = tuple(stored.keys), tuple(stored.fields)
        return cls(int(stored.strategy), int(stored.offset), keys, fields, bool(stored.overwrite_duplicate))

    def normalised(self) -> "Policy":
        """Return the policy as the server stores it: defaults filled in, names sorted, those without effect dropped."""
        strategy = self.strategy or _NONE
        keys, fields = self.keys, self.fields
        if strategy == _NONE or strategy in _DEDUPLICATING:
            keys = _sorted(keys) if strategy in _KEYED else ()
            fields = _sorted(fields) if strategy == _UNIQUE_FIELD else ()
        return Policy(strategy, self.offset or int(OffsetPosition.OFFSET_EARLIEST), keys, fields, self.overwrite)

    def same_as(self, other: "Policy") -> bool:
        """Tell whether setting the other would change nothing, as the server sees it: it overlooks ``overwrite``."""
        return self._compared() == other._compared()

    def _compared(self) -> Tuple[int, int, Tuple[str, ...], Tuple[str, ...]]:
        strategy, offset, keys, fields, _ = self.normalised()
        return strategy, offset, keys if strategy in _KEYED else (), fields if strategy == _UNIQUE_FIELD else ()

    def problem(self) -> str:
        """Return why the server refuses the policy, in its words; empty if it does not.

        Names without effect are a problem only before :meth:`normalised`.
        """
        if self.strategy in _KEYED:
            if not self.keys:
                return "no keys specified for key based hashing"
            return "do not specify fields for this policy" if self.fields else ""
        if self.strategy == _UNIQUE_FIELD:
            if not self.fields:
                return "no fields specified for field based hashing"
            return "do not specify keys for this policy" if self.keys else ""
        if self.strategy > _UNIQUE_FIELD:
            return ""  # a number that nobody knows is not looked at
        if self.keys:
            return "do not specify keys for this policy"
        return "do not specify fields for this policy" if self.fields else ""

    @property
    def deduplicates(self) -> bool:
        """Whether events can be duplicates at all."""
        return self.strategy in _DEDUPLICATING


def with_policy(record: bytes, policy: Policy) -> bytes:
    """Return a stored Topic with another policy, normalised."""
    proto = _topic(record)
    target, policy = proto.deduplication, policy.normalised()
    target.strategy, target.offset, target.overwrite_duplicate = policy.strategy, policy.offset, policy.overwrite
    del target.keys[:]
    target.keys.extend(policy.keys)
    del target.fields[:]
    target.fields.extend(policy.fields)
    return bytes(proto.SerializeToString())


def _sorted(names: Iterable[str]) -> Tuple[str, ...]:
    return tuple(sorted(set(names)))


def _topic(record: bytes) -> Any:
    proto = _parsed(topic_pb2.Topic, record)
    if proto is None:
        raise BadMessage("record is no Topic")
    return proto


# when two events are the same


def fingerprint(policy: Policy, event: bytes) -> bytes:
    """Return the 16 bytes by which candidates are found; empty where the policy does not deduplicate.

    Duplicates have the same fingerprint. Others may have it too, and not only by chance, since the hash does not see
    where a key ends and its value begins: ask :func:`equal`.
    """
    if not policy.deduplicates:
        return b""
    proto = _event_or_data(event)
    parts = _parts(policy, proto)
    return murmur3_128(bytes(proto.data) if parts is None else b"".join(parts))


def equal(policy: Policy, first: bytes, second: bytes) -> bool:
    """Tell whether two events are duplicates of each other; never, where the policy is none or lacks its names."""
    parts = _parts(policy, _event_or_data(first))
    return parts is not None and parts == _parts(policy, _event_or_data(second))


def _parts(policy: Policy, proto: Any) -> Optional[List[bytes]]:
    """Return what duplicates have in common, in the order of the hash; None for a duplicate of nothing."""
    if policy.strategy == _DATAGRAM:
        return [proto.data]
    if policy.strategy in _KEYED and policy.keys:
        metadata = dict(proto.metadata)  # a look-up of a missing key in the message would add it
        parts = [text.encode("utf-8") for key in _sorted(policy.keys) for text in (key, metadata.get(key, ""))]
        return [*parts, proto.data] if policy.strategy == _KEY_GROUPED else parts
    if policy.strategy == _STRICT:
        pairs = sorted(dict(proto.metadata).items())
        metadata_parts = [text.encode("utf-8") for pair in pairs for text in pair]
        return [proto.data, *metadata_parts, _word(proto.mimetype), *_resolved_type(proto.type)]
    return _members(policy.fields, proto.data) if policy.strategy == _UNIQUE_FIELD else None


def _word(number: int) -> bytes:
    return (int(number) & 0xFFFFFFFF).to_bytes(4, "little")


def _resolved_type(kind: Any) -> List[bytes]:
    versions = (kind.major_version, kind.minor_version, kind.patch_version)
    name = kind.name if kind.name or any(versions) else "Unspecified"
    return [name.encode("utf-8"), *map(_word, versions)]


def _members(names: Iterable[str], data: bytes) -> Optional[List[bytes]]:
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            return None
        members = {name: document[name] for name in names if name in document}
        return [json.dumps(members, sort_keys=True).encode("ascii")] if members else None
    except (ValueError, RecursionError):  # no JSON, in no known encoding, or nested too deep to be compared
        return None


# how a duplicate is stored


def peek(wrapper: bytes) -> Tuple[bool, bytes]:
    """Return whether a stored event is marked as a duplicate, and the id of its original."""
    proto = _wrapper(wrapper)
    return (False, b"") if proto is None else (bool(proto.is_duplicate), bytes(proto.duplicate_id))


def mark(policy: Policy, original_wrapper: bytes, wrapper: bytes) -> bytes:
    """Return a stored event as a duplicate of another, without what it shares with it.

    The two must be :func:`equal`, and neither of them marked. With STRICT, or where the policy overwrites, nothing
    remains of the event, not even the time of its making. Else it keeps what differs, and one that cannot be decoded
    remains whole. As on the real server, a key of the metadata that the original lacks is lost if its value is empty.
    """
    original, duplicate = _wrapper(original_wrapper), _wrapper(wrapper)
    if original is None or duplicate is None:
        return wrapper
    duplicate.is_duplicate, duplicate.duplicate_id = True, original.id
    if policy.strategy == _STRICT or policy.overwrite:
        for name in ("event", *_CODING):
            duplicate.ClearField(name)
    else:
        event = _event(duplicate.event)
        if event is not None:
            _reduce(event, _event_or_data(original.event))
            duplicate.event = _encoded(event)
    return bytes(duplicate.SerializeToString())


def rebuild(original_wrapper: bytes, wrapper: bytes) -> bytes:
    """Return a duplicate with what :func:`mark` took away, still marked.

    What the duplicate did not have but its original has appears too: it cannot be told from what was taken away. This
    concerns keys of the metadata, and data, mimetype and type where they were empty.
    """
    proto = _rebuilt(original_wrapper, wrapper)
    return wrapper if proto is None else bytes(proto.SerializeToString())


def unmark(original_wrapper: bytes, wrapper: bytes) -> bytes:
    """Return a duplicate as an event of its own again: rebuilt, and not marked any more."""
    proto = _rebuilt(original_wrapper, wrapper)
    if proto is None:
        return wrapper
    proto.ClearField("is_duplicate")
    proto.ClearField("duplicate_id")
    return bytes(proto.SerializeToString())


def _reduce(event: Any, original: Any) -> None:
    """Take out of an event what its original says as well."""
    if event.data == original.data:
        event.ClearField("data")
    known = dict(original.metadata)
    for key, value in dict(event.metadata).items():
        if value == known.get(key, ""):
            del event.metadata[key]
    if event.mimetype == original.mimetype:
        event.ClearField("mimetype")
    if event.HasField("type") and original.HasField("type") and _raw_type(event) == _raw_type(original):
        event.ClearField("type")


def _raw_type(event: Any) -> Tuple[str, int, int, int]:
    kind = event.type
    return kind.name, kind.major_version, kind.minor_version, kind.patch_version


def _rebuilt(original_wrapper: bytes, wrapper: bytes) -> Any:
    original, duplicate = _wrapper(original_wrapper), _wrapper(wrapper)
    if original is None or duplicate is None:
        return None
    if not duplicate.event:
        duplicate.event = original.event
        for name in _CODING:
            duplicate.ClearField(name)
            if original.HasField(name):
                getattr(duplicate, name).CopyFrom(getattr(original, name))
        return duplicate
    event = _event(duplicate.event)
    if event is not None:
        _fill(event, _event_or_data(original.event))
        duplicate.event = _encoded(event)
    return duplicate


def _fill(event: Any, original: Any) -> None:
    """Put into an event what it lacks of its original."""
    event.data = event.data or original.data
    own = dict(event.metadata)
    for key, value in dict(original.metadata).items():
        if key not in own:
            event.metadata[key] = value
    event.mimetype = event.mimetype or original.mimetype
    if not event.HasField("type") and original.HasField("type"):
        event.type.CopyFrom(original.type)


# pieces


def _parsed(kind: Any, data: bytes) -> Any:
    """Decode a message; None if the bytes are none, whatever this version of protobuf makes of them."""
    proto = kind()
    try:
        size = proto.ParseFromString(data)
    except Exception:  # not only DecodeError: some versions stumble over their own warning
        return None
    return proto if size == len(data) else None  # some only warn about the end of a group, and stop there


def _wrapper(data: bytes) -> Any:
    return _parsed(event_pb2.EventWrapper, data)


def _event(data: bytes) -> Any:
    proto = _parsed(event_pb2.Event, data)
    try:
        # Some versions look at a text in a map no earlier than when it is read, and then it may be bytes.
        checked = proto is not None and all(isinstance(value, str) for value in dict(proto.metadata).values())
    except UnicodeDecodeError:
        return None
    return proto if checked else None


def _event_or_data(data: bytes) -> Any:
    proto = _event(data)
    return event_pb2.Event(data=data) if proto is None else proto


def _encoded(event: Any) -> bytes:
    # else the order of the metadata would be that of a hash table
    return bytes(event.SerializeToString(deterministic=True))
