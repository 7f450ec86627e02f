"""The messages of single calls, from the client's side (docs/protocol.rst, "Topics", "Info and status", "EnSQL")."""

from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ..api.v1beta1 import ensign_pb2, query_pb2, topic_pb2
from ..enum import DeduplicationStrategy, OffsetPosition, TopicState
from ..events import Type
from ..exceptions import EnsignTypeError
from ..ids import RLID, ULID
from ..mimetypes import from_wire
from ..projects import Project
from ..status import Duration, ServerStatus
from ..times import Instant, maybe_instant
from ..topics import Deduplication, EventType, Topic

ARCHIVE, DESTROY = 1, 2


class Page(NamedTuple):
    """A part of a list, and the token that asks for the next; an empty token ends the list."""

    items: List[Any]
    next_token: str


# requests


def page_request(size: int, token: str) -> bytes:
    """Ask for a page."""
    return ensign_pb2.PageInfo(page_size=size, next_page_token=token).SerializeToString()


def create_topic_request(name: str, id: ULID) -> bytes:
    """Ask for a topic under an id of our own, by which a repeated request can be told from a taken name."""
    return topic_pb2.Topic(name=name, id=id.bytes).SerializeToString()


def retrieve_topic_request(id: ULID) -> bytes:
    """Ask for a topic by its id."""
    return topic_pb2.Topic(id=id.bytes).SerializeToString()


def delete_topic_request(id: ULID, operation: int) -> bytes:
    """Ask to archive or destroy a topic."""
    return topic_pb2.TopicMod(id=str(id), operation=operation).SerializeToString()  # type: ignore[arg-type]


def topic_exists_request(name: str) -> bytes:
    """Ask whether a name is taken."""
    return topic_pb2.TopicName(name=name).SerializeToString()


def policy_request(id: ULID, deduplication: Optional[Deduplication], sharding: int = 0) -> bytes:
    """Ask for a policy. The deduplication field is always set: the real server stumbles over its absence."""
    policy = topic_pb2.TopicPolicy(id=str(id), sharding_strategy=sharding)  # type: ignore[arg-type]
    policy.deduplication_policy.SetInParent()
    if deduplication is not None:
        target = policy.deduplication_policy
        target.strategy = int(deduplication.strategy)  # type: ignore[assignment]
        target.offset = int(deduplication.offset)  # type: ignore[assignment]
        target.keys.extend(deduplication.keys)
        target.fields.extend(deduplication.fields)
        target.overwrite_duplicate = deduplication.overwrite_duplicate
    return policy.SerializeToString()


def info_request(topics: Iterable[ULID]) -> bytes:
    """Ask for the counts of a project, or of some of its topics."""
    return ensign_pb2.InfoRequest(topics=[topic.bytes for topic in topics]).SerializeToString()


def query_request(query: str, params: Optional[Mapping[str, Any]], include_duplicates: bool) -> bytes:
    """Ask a query; TypeError names a parameter of a kind that the wire has no field for."""
    message = query_pb2.Query(query=query, include_duplicates=include_duplicates)
    for name, value in (params or {}).items():
        message.params.append(_parameter(name, value))
    return message.SerializeToString()


def _parameter(name: str, value: Any) -> query_pb2.Parameter:
    fields: Tuple[Tuple[type, str], ...] = ((bool, "b"), (int, "i"), (float, "d"), (bytes, "y"), (str, "s"))
    for kind, field in fields:
        if isinstance(value, kind):
            return query_pb2.Parameter(name=name, **{field: value})  # type: ignore[arg-type]
    raise EnsignTypeError(f"parameter {name!r} must be bool, int, float, bytes or str, not {type(value).__name__}")


# replies


def _instant(stamp: Any) -> Optional[Instant]:
    return maybe_instant(stamp.seconds, stamp.nanos)


def _ulid(raw: bytes) -> Optional[ULID]:
    return ULID(raw) if len(raw) == ULID.size else None


def status_reply(data: bytes) -> ServerStatus:
    """Decode what a server says of itself."""
    state = ensign_pb2.ServiceState.FromString(data)
    return ServerStatus(
        int(state.status),
        state.version,
        Duration(state.uptime.seconds, state.uptime.nanos),
        _instant(state.not_before),
        _instant(state.not_after),
    )


def topic_reply(data: bytes) -> Topic:
    """Decode a topic."""
    return _topic(topic_pb2.Topic.FromString(data))


def topics_page_reply(data: bytes) -> Page:
    """Decode a page of topics."""
    page = topic_pb2.TopicsPage.FromString(data)
    return Page([_topic(topic) for topic in page.topics], page.next_page_token)


def topic_exists_reply(data: bytes) -> bool:
    """Decode whether a name is taken."""
    return topic_pb2.TopicExistsInfo.FromString(data).exists


def topic_status_reply(data: bytes) -> Tuple[str, TopicState]:
    """Decode the id of a topic and what it is doing now."""
    status = topic_pb2.TopicStatus.FromString(data)
    return status.id, TopicState.convert(int(status.state))


def info_reply(data: bytes) -> Project:
    """Decode the counts of a project."""
    info = ensign_pb2.ProjectInfo.FromString(data)
    project = Project(_ulid(info.project_id))
    _copy(info, project, "num_topics", "num_readonly_topics", "events", "duplicates", "data_size_bytes")
    project.topics = [_topic_info(topic) for topic in info.topics]
    return project


def explain_reply(data: bytes) -> str:
    """Decode an explanation.

    The message of the wire has no fields. Our node puts its text where a first one would be, which other readers pass
    over; what other servers may send is printed as it is.
    """
    text = topic_pb2.TopicExistsInfo.FromString(data).query  # any message whose first field is a text
    return text or str(query_pb2.QueryExplanation.FromString(data))


def _copy(source: Any, target: Any, *names: str) -> None:
    for name in names:
        setattr(target, name, getattr(source, name))


def _topic(proto: Any) -> Topic:
    topic = Topic(_ulid(proto.id), proto.name)
    topic.project_id = _ulid(proto.project_id)
    _copy(proto, topic, "offset", "readonly")
    topic.status = TopicState.convert(proto.status)
    policy = proto.deduplication
    topic.deduplication = Deduplication(
        DeduplicationStrategy.convert(policy.strategy),
        OffsetPosition.convert(policy.offset),
        policy.keys,
        policy.fields,
        policy.overwrite_duplicate,
    )
    topic.created, topic.modified = _instant(proto.created), _instant(proto.modified)
    return topic


def _topic_info(proto: Any) -> Topic:
    topic = Topic(_ulid(proto.topic_id))
    topic.project_id = _ulid(proto.project_id)
    last = proto.event_offset_id
    topic.event_offset_id = RLID(last) if len(last) == RLID.size else None
    _copy(proto, topic, "events", "duplicates", "data_size_bytes")
    topic.modified = _instant(proto.modified)
    topic.types = [_event_type(kind) for kind in proto.types]
    return topic


def _event_type(proto: Any) -> EventType:
    schema = proto.type
    version = (schema.major_version, schema.minor_version, schema.patch_version)
    kind = EventType(Type.of(schema.name, *version), from_wire(proto.mimetype))
    _copy(proto, kind, "events", "duplicates", "data_size_bytes")
    return kind

