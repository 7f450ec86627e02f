"""The topic calls of a node, and Info (docs/protocol.rst, "Topics" and "Info and status")."""

import base64
import re
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import grpc

from ..enum import DeduplicationStrategy, TopicState
from ..ids import ULID, topic_name_hash
from ..wire import methods, records
from ..wire.methods import Method
from ..wire.records import TopicRecord
from .storage import StoredTopic

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9.\-_]*\Z")
_DAY = 86_400
_PAGE_SIZE = 100
ARCHIVE, DESTROY = 1, 2


class TopicService:
    """Answers the single calls about topics."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self._log = service.log
        # Decided inside: reading a topic and writing it back are one step.
        self._changing = threading.Lock()

    def handlers(self) -> Dict[Method, Callable[[bytes, Any], bytes]]:
        """Return the handler of each call."""
        return {
            methods.LIST_TOPICS: self.list_topics,
            methods.CREATE_TOPIC: self.create_topic,
            methods.RETRIEVE_TOPIC: self.retrieve_topic,
            methods.DELETE_TOPIC: self.delete_topic,
            methods.TOPIC_NAMES: self.topic_names,
            methods.TOPIC_EXISTS: self.topic_exists,
            methods.SET_TOPIC_POLICY: self.set_topic_policy,
            methods.INFO: self.info,
        }

    def add(self, name: str, project: bytes) -> None:
        """Make a topic by the node's own hand, unless it exists; ValueError if the name breaks the rules."""
        problem = _name_problem(name)
        if problem:
            raise ValueError(f"{problem}: {name!r}")
        if name not in self._service.topic_ids(project):
            record = TopicRecord(b"").created(ULID.new().bytes, project, time.time_ns())
            record._proto.name = name
            self._log.add_topic(record.id, project, name, record.dump())

    def list_topics(self, request: bytes, context: Any) -> bytes:
        """Answer a page of topics, ascending by id."""
        caller = self._service.caller(context, "topics:read")
        page = records.page_request(request)
        topics = self._log.topics(caller.project)
        items, token = _page(
            [(topic.id.hex(), topic) for topic in topics], page, context, "unable to process list topics request"
        )
        return records.topics_page([TopicRecord(topic.record) for topic in items], token)

    def topic_names(self, request: bytes, context: Any) -> bytes:
        """Answer a page of topics with the hashes of their names, ascending by hash."""
        caller = self._service.caller(context, "topics:read", "publisher", "subscriber")
        page = records.page_request(request)
        topics = self._log.topics(caller.project)
        keyed = sorted((_hash_bytes(topic.name).hex(), topic) for topic in topics)
        items, token = _page(keyed, page, context, "unable to process list topic names request")
        rows = [(str(ULID(t.id)), str(ULID(t.project)), topic_name_hash(t.name)) for t in items]
        return records.topic_names_page(rows, token)

    def create_topic(self, request: bytes, context: Any) -> bytes:
        """Make a topic."""
        caller = self._service.caller(context, "topics:create")
        record = TopicRecord(request)
        project = record.project_id or caller.project
        if len(project) != ULID.size:
            _invalid(context, "invalid project id field")
        if project != caller.project:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not authorized to perform this action")
        problem = _name_problem(record.name)
        if problem:
            _invalid(context, problem)
        if record.id and len(record.id) != ULID.size:
            _invalid(context, "cannot parse id field")
        if record.name in self._service.topic_ids(project):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "topic name already exists in project")
        made = record.created(record.id or ULID.new().bytes, project, time.time_ns())
        try:
            self._log.add_topic(made.id, project, made.name, made.dump())
        except KeyError:
            if made.name in self._service.topic_ids(project):
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "topic name already exists in project")
            context.abort(grpc.StatusCode.INTERNAL, "could not process create topic request")
        return made.dump()

    def retrieve_topic(self, request: bytes, context: Any) -> bytes:
        """Answer one topic by its id."""
        caller = self._service.caller(context, "topics:read")
        wanted = TopicRecord(request).id
        if not wanted:
            _invalid(context, "missing topic id field")
        if len(wanted) != ULID.size:
            _invalid(context, "invalid topic id field")
        return self._find(wanted, caller.project, context).record

    def delete_topic(self, request: bytes, context: Any) -> bytes:
        """Archive or destroy a topic."""
        id, operation = records.mod_request(request)
        if operation not in (ARCHIVE, DESTROY):
            self._service.caller(context)
            _invalid(context, "invalid operation field")
        caller = self._service.caller(context, "topics:edit" if operation == ARCHIVE else "topics:destroy")
        with self._changing:
            topic = self._find(_ulid(id, context), caller.project, context)
            record = TopicRecord(topic.record)
            if record.status not in (TopicState.READY, TopicState.READONLY):
                text = f"cannot archive or destroy a topic that is in the {record.status.name} state"
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
            if operation == DESTROY:
                self._log.remove_topic(topic.number)
                return records.topic_status(str(ULID(topic.id)), TopicState.DELETING)
            self._log.change_topic(topic.number, record.archived(time.time_ns()).dump())
            return records.topic_status(str(ULID(topic.id)), TopicState.READONLY)

    def topic_exists(self, request: bytes, context: Any) -> bytes:
        """Tell whether a topic exists, by name, by id or by both (which need not be the same topic's)."""
        caller = self._service.caller(context, "topics:read", "publisher", "subscriber")
        asked = records.name_request(request)
        if asked.project_id:
            try:
                project = ULID(asked.project_id).bytes
            except ValueError:
                _invalid(context, "invalid project id field")
            if project != caller.project:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not authorized to perform this action")
        if not asked.name and not asked.topic_id:
            _invalid(context, "must specify either or both topic name and id")
        topics = self._service.topic_ids(caller.project)
        queries, found = [], True
        if asked.name:
            queries.append(f"name={_go_quoted(asked.name)}")
            found = asked.name in topics
        if asked.topic_id:
            queries.append(f"topic={_go_quoted(asked.topic_id)}")
            try:
                found = found and ULID(asked.topic_id).bytes in topics.values()
            except ValueError:
                context.abort(grpc.StatusCode.INTERNAL, "unable to process topic exists request")
        return records.exists_reply(" and ".join(queries), found)

    def set_topic_policy(self, request: bytes, context: Any) -> bytes:
        """Check a policy; this node keeps every event, so only the policy to do so can be set."""
        caller = self._service.caller(context, "topics:edit")
        policy = records.policy_request(request)
        if not policy.id:
            _invalid(context, "missing id field")
        if not policy.has_deduplication:
            return b""  # the real server stumbles and answers an empty message
        if not policy.strategy and not policy.sharding:
            _invalid(context, "no policies defined to set on topic")
        topic = self._find(_ulid(policy.id, context), caller.project, context)
        record = TopicRecord(topic.record)
        if record.readonly:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "cannot change policies of an archived topic")
        if policy.sharding:
            text = "changing the sharding strategy of a topic is currently not supported"
            context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
        if policy.strategy != int(DeduplicationStrategy.NONE):
            text = "this node does not deduplicate: only the strategy NONE can be set"
            context.abort(grpc.StatusCode.UNIMPLEMENTED, text)
        return records.topic_status(str(ULID(topic.id)), TopicState.READY)

    def info(self, request: bytes, context: Any) -> bytes:
        """Answer the counts of the project, or of some topics; unknown ids are passed over."""
        caller = self._service.caller(context, "topics:read")
        if "metrics:read" not in caller.permissions:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not authorized to perform this action")
        wanted = records.info_request(request)
        if any(len(id) != ULID.size for id in wanted):
            _invalid(context, "could not parse topic id in info request filter")
        topics = [t for t in self._log.topics(caller.project) if not wanted or t.id in wanted]
        counts = [self._service.gatherer.count(topic.number, topic.id) for topic in topics]
        readonly = sum(TopicRecord(topic.record).readonly for topic in topics)
        return records.project_info(caller.project, counts, readonly, time.time_ns())

    def _find(self, id: bytes, project: bytes, context: Any) -> StoredTopic:
        topic: Optional[StoredTopic] = self._service.topics_by_id(project).get(id)
        if topic is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "topic not found")
            raise AssertionError("unreachable: abort raises")
        return topic


def _invalid(context: Any, text: str) -> None:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)


def _name_problem(name: str) -> str:
    if not name:
        return "missing name field"
    if len(name.encode("utf-8")) > 512:
        return "topic name is too long"
    return "" if _NAME.match(name) else "topic name is invalid"


def _ulid(text: str, context: Any) -> bytes:
    if not text:
        _invalid(context, "missing id field")
    try:
        return ULID(text).bytes
    except ValueError:
        _invalid(context, "invalid id field")
        raise AssertionError("unreachable: abort raises") from None


def _hash_bytes(name: str) -> bytes:
    return base64.urlsafe_b64decode(topic_name_hash(name) + "==")


def _page(keyed: List[Tuple[str, Any]], page: records.PageRequest, context: Any, failure: str) -> Tuple[List[Any], str]:
    """Cut a page out of a sorted list: it starts behind the key in the token."""
    after = ""
    if page.token:
        try:
            padded = page.token + "=" * (-len(page.token) % 4)
            after, expires = records.decode_cursor(base64.urlsafe_b64decode(padded))
        except ValueError:
            after, expires = "", 0
        if expires < time.time():
            context.abort(grpc.StatusCode.INTERNAL, failure)
    size = page.size or _PAGE_SIZE
    left = [(key, item) for key, item in keyed if key > after]
    token = ""
    if len(left) > size:
        cursor = records.encode_cursor(left[size - 1][0], size, int(time.time()) + _DAY)
        token = base64.urlsafe_b64encode(cursor).decode("ascii").rstrip("=")
    return [item for _, item in left[:size]], token


def _go_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
