"""The messages of single calls, from the server's side (docs/protocol.rst, "Topics", "Info and status", "EnSQL")."""

from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from ..api.health.v1 import health_pb2
from ..api.pagination import pagination_pb2
from ..api.v1beta1 import ensign_pb2, event_pb2, query_pb2, topic_pb2
from ..enum import DeduplicationStrategy, TopicState
from ..status import ServerStatus

READY = int(TopicState.READY)


class BadMessage(ValueError):
    """Bytes that are not the message they should be."""


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
        policy = proto.deduplication
        policy.strategy = policy.strategy or int(DeduplicationStrategy.NONE)
        policy.offset = policy.offset or topic_pb2.Deduplication.OFFSET_EARLIEST
        return self.changed(now_ns)

    def archived(self, now_ns: int) -> "TopicRecord":
        """Make it read-only."""
        self._proto.readonly = True
        return self.changed(now_ns)

    def changed(self, now_ns: int) -> "TopicRecord":
        """Note the time of a change."""
        self._proto.modified.seconds, self._proto.modified.nanos = divmod(now_ns, 1_000_000_000)
        return self

    def dump(self) -> bytes:
        """Return the message."""
        return bytes(self._proto.SerializeToString())

    @property
    def strategy(self) -> DeduplicationStrategy:
        """Its deduplication strategy."""
        return DeduplicationStrategy.convert(self._proto.deduplication.strategy)


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
    """A policy to set: the topic's id as sent, and what to set."""

    id: str
    has_deduplication: bool
    strategy: int
    sharding: int
    keys: Tuple[str, ...]
    fields: Tuple[str, ...]


def policy_request(data: bytes) -> PolicyRequest:
    """Decode a TopicPolicy."""
    policy = _parse(topic_pb2.TopicPolicy, data)
    wanted = policy.deduplication_policy
    return PolicyRequest(
        policy.id,
        policy.HasField("deduplication_policy"),
        int(wanted.strategy),
        int(policy.sharding_strategy),
        tuple(wanted.keys),
        tuple(wanted.fields),
    )


def info_request(data: bytes) -> List[bytes]:
    """Decode an InfoRequest: the ids of topics, none means all."""
    return list(_parse(ensign_pb2.InfoRequest, data).topics)


class TypeCount(NamedTuple):
    """Counts of one schema and mimetype."""

    events: int
    size: int


class TopicCount(NamedTuple):
    """Counts of a topic: all events, their bytes, the last id, and per (name, major, minor, patch, mimetype)."""

    topic_id: bytes
    events: int
    size: int
    last_id: bytes
    types: Dict[Tuple[str, int, int, int, int], TypeCount]


def event_kind(wrapper: bytes) -> Tuple[str, int, int, int, int]:
    """Return schema and mimetype of a stored event, as Info counts them."""
    try:
        event = event_pb2.Event.FromString(event_pb2.EventWrapper.FromString(wrapper).event)
    except Exception:  # as in _parse
        event = event_pb2.Event()
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
        topic.events, topic.data_size_bytes = count.events, count.size
        if count.events:
            topic.modified.seconds, topic.modified.nanos = divmod(now_ns, 1_000_000_000)
        for (name, major, minor, patch, mimetype), of_type in count.types.items():
            entry = topic.types.add(mimetype=mimetype, events=of_type.events, data_size_bytes=of_type.size)
            entry.type.name = name
            entry.type.major_version, entry.type.minor_version, entry.type.patch_version = major, minor, patch
        info.events += count.events
        info.data_size_bytes += count.size
    return info.SerializeToString()


def query_request(data: bytes) -> Tuple[str, bool]:
    """Decode a Query: its text, and whether duplicates are wanted."""
    query = _parse(query_pb2.Query, data)
    return query.query, query.include_duplicates


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
