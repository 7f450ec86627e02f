"""The messages of single calls, from the server's side (docs/protocol.rst, "Topics", "Info and status", "EnSQL")."""

import json
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..api.health.v1 import health_pb2
from ..api.mimetype.v1beta1 import mimetype_pb2
from ..api.pagination import pagination_pb2
from ..api.v1beta1 import ensign_pb2, event_pb2, query_pb2, topic_pb2
from ..enum import TopicState
from ..status import ServerStatus
from .codec import BadMessage, varint
from .dedup import Policy, with_policy

READY = int(TopicState.READY)


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except Exception as error:  # not only DecodeError: some protobuf versions stumble over their own warning
        raise BadMessage(f"request is no {kind.__name__}") from error


class TopicRecord:
    """A topic as it is stored: the message of the wire, with every field that its maker set."""

    __slots__ = ("_proto",)

    def __init__(self, data: bytes) -> None:
        self._proto = _parse(topic_pb2.Topic, data)

    @classmethod
    def named(cls, name: str) -> "TopicRecord":
        """Make a topic of which nothing but the name is known."""
        return cls(topic_pb2.Topic(name=name).SerializeToString())

    @property
    def id(self) -> bytes:
        """The topic's id; empty in a request that leaves it to the server."""
        return bytes(self._proto.id)

    @property
    def project_id(self) -> bytes:
        """The id of its project."""
        return bytes(self._proto.project_id)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._proto.name)

    @property
    def readonly(self) -> bool:
        """Whether it is archived."""
        return bool(self._proto.readonly)

    @property
    def status(self) -> TopicState:
        """What it is doing."""
        return TopicState.convert(self._proto.status)

    def created(self, id: bytes, project_id: bytes, now_ns: int) -> "TopicRecord":
        """Fill in what the server decides when a topic is made."""
        proto = self._proto
        proto.id, proto.project_id, proto.status = id, project_id, READY
        proto.created.seconds, proto.created.nanos = divmod(now_ns, 1_000_000_000)
        normalised = with_policy(proto.SerializeToString(), Policy.of_topic(proto.SerializeToString()))
        proto.deduplication.CopyFrom(topic_pb2.Topic.FromString(normalised).deduplication)
        return self.changed(now_ns)

    def archived(self, now_ns: int) -> "TopicRecord":
        """Make it read-only."""
        self._proto.readonly = True
        return self.changed(now_ns)

    def in_state(self, status: TopicState, now_ns: int) -> "TopicRecord":
        """Set what the topic is doing."""
        self._proto.status = int(status)
        return self.changed(now_ns)

    def changed(self, now_ns: int) -> "TopicRecord":
        """Note the time of a change."""
        self._proto.modified.seconds, self._proto.modified.nanos = divmod(now_ns, 1_000_000_000)
        return self

    def dump(self) -> bytes:
        """Return the message."""
        return bytes(self._proto.SerializeToString())


class PageRequest(NamedTuple):
    """Which page of a list is asked for."""

    size: int
    token: str


def page_request(data: bytes) -> PageRequest:
    """Decode a PageInfo."""
    page = _parse(ensign_pb2.PageInfo, data)
    return PageRequest(page.page_size, page.next_page_token)


def encode_cursor(end_index: str, size: int, expires: int) -> bytes:
    """Encode what a page token hides."""
    cursor = pagination_pb2.Cursor(end_index=end_index, page_size=min(size, 2**31 - 1))
    cursor.expires.seconds = expires
    return cursor.SerializeToString()


def decode_cursor(data: bytes) -> Tuple[str, int]:
    """Return where the page before ended, and when the token expires."""
    cursor = _parse(pagination_pb2.Cursor, data)
    return cursor.end_index, cursor.expires.seconds


def topics_page(records: Iterable[TopicRecord], token: str) -> bytes:
    """Encode a page of topics."""
    return topic_pb2.TopicsPage(topics=[r._proto for r in records], next_page_token=token).SerializeToString()


def topic_names_page(rows: Iterable[Tuple[str, str, str]], token: str) -> bytes:
    """Encode a page of (topic id, project id, hash of the name)."""
    names = [topic_pb2.TopicName(topic_id=id, project_id=project, name=name) for id, project, name in rows]
    return topic_pb2.TopicNamesPage(topic_names=names, next_page_token=token).SerializeToString()


class NameRequest(NamedTuple):
    """A topic that is asked for by name, id, or both; texts as sent."""

    topic_id: str
    project_id: str
    name: str


def name_request(data: bytes) -> NameRequest:
    """Decode a TopicName."""
    asked = _parse(topic_pb2.TopicName, data)
    return NameRequest(asked.topic_id, asked.project_id, asked.name)


def exists_reply(query: str, exists: bool) -> bytes:
    """Encode whether a topic exists."""
    return topic_pb2.TopicExistsInfo(query=query, exists=exists).SerializeToString()


def mod_request(data: bytes) -> Tuple[str, int]:
    """Decode a TopicMod: the topic's id as sent, and the operation."""
    mod = _parse(topic_pb2.TopicMod, data)
    return mod.id, int(mod.operation)


def topic_status(id: str, state: TopicState) -> bytes:
    """Encode what a topic is doing."""
    return topic_pb2.TopicStatus(id=id, state=int(state)).SerializeToString()  # type: ignore[arg-type]


class PolicyRequest(NamedTuple):
    """A policy to set: the topic's id as sent, and what to set; ``policy`` is None if the message has none."""

    id: str
    policy: Optional[Policy]
    sharding: int


def policy_request(data: bytes) -> PolicyRequest:
    """Decode a TopicPolicy."""
    asked = _parse(topic_pb2.TopicPolicy, data)
    wanted = asked.deduplication_policy
    policy = None
    if asked.HasField("deduplication_policy"):
        keys, fields = tuple(wanted.keys), tuple(wanted.fields)
        policy = Policy(int(wanted.strategy), int(wanted.offset), keys, fields, bool(wanted.overwrite_duplicate))
    return PolicyRequest(asked.id, policy, int(asked.sharding_strategy))


def info_request(data: bytes) -> List[bytes]:
    """Decode an InfoRequest: the ids of topics, none means all."""
    return list(_parse(ensign_pb2.InfoRequest, data).topics)


class TypeCount(NamedTuple):
    """Counts of one schema and mimetype."""

    events: int = 0
    duplicates: int = 0
    size: int = 0


class TopicCount(NamedTuple):
    """Counts of a topic: all events, their bytes, the last id, and per (name, major, minor, patch, mimetype)."""

    topic_id: bytes
    events: int = 0
    duplicates: int = 0
    size: int = 0
    last_id: bytes = b""
    types: Mapping[Tuple[str, int, int, int, int], TypeCount] = {}


def _inner(wrapper: bytes) -> Any:
    """Return the event in a wrapper; one without anything if it is none."""
    try:
        return event_pb2.Event.FromString(event_pb2.EventWrapper.FromString(wrapper).event)
    except Exception:  # as in _parse
        return event_pb2.Event()


def event_kind(wrapper: bytes) -> Tuple[str, int, int, int, int]:
    """Return schema and mimetype of a stored event, as Info counts them."""
    event = _inner(wrapper)
    kind = event.type
    version = (kind.major_version, kind.minor_version, kind.patch_version)
    if not kind.name and not any(version):
        return ("Unspecified", 0, 0, 0, int(event.mimetype))
    return (kind.name, *version, int(event.mimetype))


def project_info(project_id: bytes, counts: Sequence[TopicCount], readonly: int, now_ns: int) -> bytes:
    """Encode the counts of a project."""
    info = ensign_pb2.ProjectInfo(project_id=project_id, num_topics=len(counts), num_readonly_topics=readonly)
    for count in counts:
        topic = info.topics.add()
        topic.topic_id, topic.project_id, topic.event_offset_id = count.topic_id, project_id, count.last_id
        topic.events, topic.duplicates, topic.data_size_bytes = count.events, count.duplicates, count.size
        if count.events:
            topic.modified.seconds, topic.modified.nanos = divmod(now_ns, 1_000_000_000)
        for (name, major, minor, patch, mimetype), of_type in count.types.items():
            entry = topic.types.add(mimetype=mimetype)
            entry.events, entry.duplicates, entry.data_size_bytes = of_type.events, of_type.duplicates, of_type.size
            entry.type.name = name
            entry.type.major_version, entry.type.minor_version, entry.type.patch_version = major, minor, patch
        info.events += count.events
        info.duplicates += count.duplicates
        info.data_size_bytes += count.size
    return info.SerializeToString()


class QueryRequest(NamedTuple):
    """A query as it was sent."""

    text: str
    params: Dict[str, Any]
    include_duplicates: bool


def query_request(data: bytes) -> QueryRequest:
    """Decode a Query."""
    query = _parse(query_pb2.Query, data)
    params = {p.name: getattr(p, p.WhichOneof("value") or "s") for p in query.params}
    return QueryRequest(query.query, params, query.include_duplicates)


class QueryRecord(NamedTuple):
    """What a query may ask of an event; ``data`` is the decoded JSON payload, None if it is none."""

    data: Any
    meta: Mapping[str, str]
    schema: str
    major: int
    id: bytes
    committed_ns: Optional[int]


def query_record(wrapper: bytes, id: bytes, committed_ns: int) -> QueryRecord:
    """Decode a stored event for a query; one that is no event has no fields."""
    event = _inner(wrapper)
    try:
        data = json.loads(event.data.decode("utf-8"))
    except (ValueError, RecursionError):
        data = None
    return QueryRecord(data, dict(event.metadata), event.type.name, event.type.major_version, id, committed_ns)


def with_payload(wrapper: bytes, fields: Mapping[str, Any]) -> bytes:
    """Return a stored event with a JSON object in the place of its payload."""
    event = _inner(wrapper)
    event.data = json.dumps(fields).encode("utf-8")
    event.mimetype = mimetype_pb2.APPLICATION_JSON
    changed = event_pb2.EventWrapper.FromString(wrapper)
    changed.event = event.SerializeToString()
    return changed.SerializeToString()


def explanation(text: str) -> bytes:
    """Encode an explanation: the message has no fields, so the text goes where a first one would be."""
    return b"\x0a" + varint(len(text.encode("utf-8"))) + text.encode("utf-8")


def status_reply(status: ServerStatus) -> bytes:
    """Encode what the server says of itself."""
    state = ensign_pb2.ServiceState(status=status.status, version=status.version)  # type: ignore[arg-type]
    state.uptime.seconds, state.uptime.nanos = status.uptime
    for name in ("not_before", "not_after"):
        at = getattr(status, name)
        if at is not None:
            getattr(state, name).seconds, getattr(state, name).nanos = at.seconds, at.nanos
    return state.SerializeToString()


def health_request(data: bytes) -> str:
    """Decode a HealthCheckRequest: the service that is asked for."""
    return str(_parse(health_pb2.HealthCheckRequest, data).service)


def health_reply(status: int) -> bytes:
    """Encode a health status: 0 unknown, 1 serving, 2 not serving, 3 service unknown."""
    return health_pb2.HealthCheckResponse(status=status).SerializeToString()  # type: ignore[arg-type]
