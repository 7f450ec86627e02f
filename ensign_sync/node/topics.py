"""The topic calls of a node, and Info (docs/protocol.rst, "Topics" and "Info and status")."""

import base64
import re
import threading
import time
from typing import Dict, List, Optional, Tuple

from ..enum import TopicState
from ..ids import ULID, topic_name_hash
from ..wire import methods, records
from ..wire.dedup import with_policy
from ..wire.methods import Method
from ..wire.records import TopicRecord
from .core import Answer, Core
from .policies import Rehash
from .rpc import Call, Refused
from .storage import StoredTopic

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9.\-_]*\Z")
_DAY = 86_400
_PAGE_SIZE = 100
ARCHIVE, DESTROY = 1, 2
_TAKEN = "topic name already exists in project"


class TopicService:
    """Answers the single calls about topics."""

    def __init__(self, service: Core) -> None:
        self._service = service
        self._log = service.log
        # Decided inside: reading a topic and writing it back are one step.
        self._changing = threading.Lock()

    def answers(self) -> Dict[Method, Answer]:
        """Return what answers each call."""
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
            record = TopicRecord.named(name).created(ULID.new().bytes, project, self._service.clock.now_ns())
            self._log.add_topic(record.id, project, name, record.dump())

    def list_topics(self, request: bytes, call: Call) -> bytes:
        """Answer a page of topics, ascending by id."""
        caller = self._service.caller(call, "topics:read")
        keyed = [(topic.id.hex(), topic) for topic in self._log.topics(caller.project)]
        items, token = self._page(keyed, records.page_request(request), "unable to process list topics request")
        return records.topics_page([TopicRecord(topic.record) for topic in items], token)

    def topic_names(self, request: bytes, call: Call) -> bytes:
        """Answer a page of topics with the hashes of their names, ascending by hash."""
        caller = self._service.caller(call, "topics:read", "publisher", "subscriber", needs_project=False)
        keyed = sorted((_hash_bytes(topic.name).hex(), topic) for topic in self._log.topics(caller.project))
        items, token = self._page(keyed, records.page_request(request), "unable to process list topic names request")
        rows = [(str(ULID(t.id)), str(ULID(t.project)), topic_name_hash(t.name)) for t in items]
        return records.topic_names_page(rows, token)

    def create_topic(self, request: bytes, call: Call) -> bytes:
        """Make a topic."""
        caller = self._service.caller(call, "topics:create", needs_project=False)
        record = TopicRecord(request)
        project = self._project(record.project_id or caller.project, caller.project)
        problem = _name_problem(record.name)
        if not problem and record.id and len(record.id) != ULID.size:
            problem = "cannot parse id field"
        if problem:
            raise Refused("INVALID_ARGUMENT", problem)
        if record.name in self._service.topic_ids(project):
            raise Refused("ALREADY_EXISTS", _TAKEN)
        made = record.created(record.id or ULID.new().bytes, project, self._service.clock.now_ns())
        try:
            self._log.add_topic(made.id, project, made.name, made.dump())
        except KeyError:
            if made.name in self._service.topic_ids(project):
                raise Refused("ALREADY_EXISTS", _TAKEN) from None
            raise self._service.fault("could not process create topic request") from None
        return made.dump()

    def retrieve_topic(self, request: bytes, call: Call) -> bytes:
        """Answer one topic by its id."""
        caller = self._service.caller(call, "topics:read")
        wanted = TopicRecord(request).id
        if len(wanted) != ULID.size:
            raise Refused("INVALID_ARGUMENT", "invalid topic id field" if wanted else "missing topic id field")
        return self._find(wanted, caller.project).record

    def delete_topic(self, request: bytes, call: Call) -> bytes:
        """Archive or destroy a topic."""
        id, operation = records.mod_request(request)
        if operation not in (ARCHIVE, DESTROY):
            raise Refused("INVALID_ARGUMENT", "invalid operation field")
        caller = self._service.caller(call, "topics:edit" if operation == ARCHIVE else "topics:destroy")
        with self._changing:
            topic = self._find(_ulid(id), caller.project)
            record = TopicRecord(topic.record)
            if record.status not in (TopicState.READY, TopicState.READONLY):
                text = f"cannot archive or destroy a topic that is in the {record.status.name} state"
                raise Refused("FAILED_PRECONDITION", text)
            if operation == ARCHIVE:
                self._log.change_topic(topic.number, record.archived(self._service.clock.now_ns()).dump())
                return records.topic_status(str(ULID(topic.id)), TopicState.READONLY)
            self._log.remove_topic(topic.number)
        self._service.gatherer.forget()
        self._service.book.forget()
        self._service.pool.submit(self._log.forget_events, topic.number)
        return records.topic_status(str(ULID(topic.id)), TopicState.DELETING)

    def topic_exists(self, request: bytes, call: Call) -> bytes:
        """Tell whether a topic exists, by name, by id or by both (on the real server not as the same topic's)."""
        caller = self._service.caller(call, "topics:read", "publisher", "subscriber", needs_project=False)
        asked = records.name_request(request)
        project = self._project(_parsed_project(asked.project_id) or caller.project, caller.project)
        if not asked.name and not asked.topic_id:
            raise Refused("INVALID_ARGUMENT", "must specify either or both topic name and id")
        topics = self._service.topic_ids(project)
        queries, found = [], True
        if asked.name:
            queries.append(f"name={_go_quoted(asked.name)}")
            found = asked.name in topics
        if asked.topic_id:
            queries.append(f"topic={_go_quoted(asked.topic_id)}")
            id = self._asked_id(asked.topic_id)
            there = id in topics.values()
            if asked.name and not self._service.strict:
                there = there and topics.get(asked.name) == id
            found = found and there
        return records.exists_reply(" and ".join(queries), found)

    def set_topic_policy(self, request: bytes, call: Call) -> bytes:
        """Store a policy, and have what is stored compared again; the topic is PENDING meanwhile."""
        caller = self._service.caller(call, "topics:edit")
        asked = records.policy_request(request)
        if not asked.id.strip():
            raise Refused("INVALID_ARGUMENT", "missing id field")
        policy = asked.policy
        if policy is None and self._service.strict:
            return b""  # the real server stumbles and answers an empty message
        if (policy is None or not policy.strategy) and not asked.sharding:
            raise Refused("INVALID_ARGUMENT", "no policies defined to set on topic")
        with self._changing:
            topic = self._find(_ulid(asked.id), caller.project)
            record = TopicRecord(topic.record)
            if record.readonly:
                raise Refused("FAILED_PRECONDITION", "cannot change policies of an archived topic")
            if record.status != TopicState.READY:
                raise Refused("FAILED_PRECONDITION", f"cannot change a topic that is in the {record.status.name} state")
            if asked.sharding or policy is None:
                text = "changing the sharding strategy of a topic is currently not supported"
                raise Refused("UNIMPLEMENTED", text)
            traits = self._service.book.traits(topic.number)
            if traits is not None and traits.policy.same_as(policy):
                return records.topic_status(str(ULID(topic.id)), TopicState.READY)
            if policy.normalised().problem():
                raise Refused("INVALID_ARGUMENT", policy.normalised().problem())
            changed = TopicRecord(with_policy(topic.record, policy))
            changed.in_state(TopicState.PENDING, self._service.clock.now_ns())
            self._log.change_topic(topic.number, changed.dump())
        self._service.pool.submit(Rehash(self._service, topic.number, policy.normalised()).run)
        return records.topic_status(str(ULID(topic.id)), TopicState.PENDING)

    def info(self, request: bytes, call: Call) -> bytes:
        """Answer the counts of the project, or of some topics; unknown ids are passed over."""
        caller = self._service.caller(call, "topics:read")
        if "metrics:read" not in caller.permissions:
            raise Refused("PERMISSION_DENIED", "not authorized to perform this action")
        wanted = records.info_request(request)
        if any(len(id) != ULID.size for id in wanted):
            raise Refused("INVALID_ARGUMENT", "could not parse topic id in info request filter")
        topics = [t for t in self._log.topics(caller.project) if not wanted or t.id in wanted]
        counts = [self._service.gatherer.count(topic.number, topic.id) for topic in topics]
        readonly = sum(TopicRecord(topic.record).readonly for topic in topics)
        return records.project_info(caller.project, counts, readonly, self._service.clock.now_ns())

    def _find(self, id: bytes, project: bytes) -> StoredTopic:
        topic: Optional[StoredTopic] = next((t for t in self._log.topics(project) if t.id == id), None)
        if topic is None:
            raise Refused("NOT_FOUND", "topic not found")
        return topic

    def _asked_id(self, text: str) -> bytes:
        try:
            return ULID(text).bytes
        except ValueError:
            raise self._service.fault("unable to process topic exists request") from None

    def _project(self, asked: bytes, own: bytes) -> bytes:
        """Return the project that is asked for, which has to be the caller's own."""
        if not asked:
            raise Refused("INVALID_ARGUMENT", "missing project id field")
        if len(asked) != ULID.size:
            raise Refused("INVALID_ARGUMENT", "invalid project id field")
        if asked != own:
            raise Refused("PERMISSION_DENIED", "not authorized to perform this action")
        return asked

    def _page(
        self, keyed: List[Tuple[str, StoredTopic]], page: records.PageRequest, failure: str
    ) -> Tuple[List[StoredTopic], str]:
        """Cut a page out of a sorted list: it starts behind the key in the token."""
        after = ""
        if page.token:
            try:
                padded = page.token + "=" * (-len(page.token) % 4)
                after, expires = records.decode_cursor(base64.urlsafe_b64decode(padded))
            except ValueError:
                expires = 0
            if expires < time.time():
                raise self._service.fault(failure)
        size = page.size or _PAGE_SIZE
        left = [(key, item) for key, item in keyed if key > after]
        token = ""
        if len(left) > size:
            cursor = records.encode_cursor(left[size - 1][0], size, int(time.time()) + _DAY)
            token = base64.urlsafe_b64encode(cursor).decode("ascii").rstrip("=")
        return [item for _, item in left[:size]], token


def _name_problem(name: str) -> str:
    if not name:
        return "missing name field"
    if len(name.encode("utf-8")) > 512:
        return "topic name is too long"
    return "" if _NAME.match(name) else "topic name is invalid"


def _ulid(text: str) -> bytes:
    if not text.strip():
        raise Refused("INVALID_ARGUMENT", "missing id field")
    try:
        return ULID(text).bytes
    except ValueError:
        raise Refused("INVALID_ARGUMENT", "invalid id field") from None


def _parsed_project(text: str) -> bytes:
    """Return the id of a project that is asked for by text, nothing if none is."""
    if not text:
        return b""
    try:
        return ULID(text).bytes
    except ValueError:
        raise Refused("INVALID_ARGUMENT", "invalid project id field") from None


def _hash_bytes(name: str) -> bytes:
    return base64.urlsafe_b64decode(topic_name_hash(name) + "==")


def _go_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
