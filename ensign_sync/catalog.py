"""The topics of a project: the calls that list, make and change them."""

import re
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from .enum import DeduplicationStrategy, OffsetPosition, ShardingStrategy, TopicState
from .exceptions import (
    EnsignError,
    EnsignInvalidTopicError,
    EnsignRPCError,
    EnsignTopicCreateError,
    EnsignTopicDestroyError,
    EnsignTopicNotFoundError,
)
from .ids import ULID, is_ulid
from .projects import Project
from .streams.connection import Connection
from .topics import Deduplication, Topic

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9.\-_]*\Z")
_LONGEST_NAME = 512
ARCHIVE, DESTROY = 1, 2

TopicLike = Union[str, ULID, Topic]


class Catalog:
    """The topic calls of a client. Any thread may call any of them; each blocks for at most the client's timeout.

    Every ``id``, ``topic`` and ``name`` takes a name or an id; a text of 26 characters is a name if a topic has it,
    else an id.

    Raises (every method):
        EnsignConnectionError, EnsignTimeoutError: The server could not be reached, or did not answer in time.
        AuthenticationError: The credentials were refused.
        EnsignRPCError: The server refused, for example PERMISSION_DENIED.
    """

    _timeout = 30.0
    _cache: Optional[Dict[str, ULID]] = None

    def _connected(self) -> Connection:
        raise NotImplementedError

    def get_topics(self) -> List[Topic]:
        """List the topics of the project, in the order of their ids: by the time of their making."""
        topics = self._connected().unary.topics(self._timeout)
        self._remember(topics)
        return topics

    def topic_names(self) -> Dict[str, str]:
        """Map the id of each topic to its name."""
        return {str(topic.id): topic.name for topic in self.get_topics()}

    def create_topic(self, topic_name: str) -> str:
        """Make a topic; returns its id.

        Raises:
            EnsignInvalidTopicError: The name breaks the rules for names.
            EnsignTopicCreateError: The server did not make it; ``code`` is ALREADY_EXISTS if the name is taken.
        """
        return self._create(topic_name, self._timeout)

    def _create(self, topic_name: str, timeout: float) -> str:
        check_name(topic_name)
        try:
            topic = self._connected().unary.create_topic(topic_name, timeout)
        except EnsignRPCError as error:
            if error.code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
                raise
            failure = EnsignTopicCreateError(f"topic {topic_name!r} was not created: {error.details} ({error.code})")
            failure.code, failure.details = error.code, error.details
            raise failure from error
        self._remember([topic])
        return str(topic.id)

    def ensure_topic_exists(self, topic_name: str) -> str:
        """Make a topic unless it exists; returns its id either way."""
        if not self.topic_exists(topic_name):
            try:
                return self.create_topic(topic_name)
            except EnsignTopicCreateError as error:
                if error.code != "ALREADY_EXISTS":
                    raise
        return self.topic_id(topic_name)

    def _ensure(self, topic: str, remaining: Callable[[], float]) -> None:
        """Make a topic unless it exists, in the time that remains."""
        if not self._connected().topic_exists(_text(topic), remaining()):
            try:
                self._create(topic, remaining())
            except EnsignTopicCreateError as error:
                if error.code != "ALREADY_EXISTS":
                    raise

    def topic_exists(self, name: str) -> bool:
        """Tell whether a topic exists."""
        return self._connected().topic_exists(_text(name), self._timeout)

    def topic_id(self, name: TopicLike) -> str:
        """Return the id of a topic; EnsignTopicNotFoundError names one that does not exist."""
        return str(self._resolve(name))

    def retrieve_topic(self, id: TopicLike) -> Topic:
        """Fetch a topic; EnsignTopicNotFoundError names one that does not exist."""
        unary = self._connected().unary
        topic: Topic = self._with_id(id, lambda ulid: unary.retrieve_topic(ulid, self._timeout))
        return topic

    def archive_topic(self, id: TopicLike) -> TopicState:
        """Make a topic read-only for good; returns what it is doing now.

        The real server still takes events for an archived topic; see docs/protocol.rst, "Topics".
        """
        unary = self._connected().unary
        state: TopicState = self._with_id(id, lambda ulid: unary.delete_topic(ulid, ARCHIVE, self._timeout))
        return state

    def destroy_topic(self, topic: TopicLike) -> TopicState:
        """Destroy a topic with all its events; returns what it is doing now. There is no way back.

        Raises:
            EnsignTopicNotFoundError: It does not exist.
            EnsignTopicDestroyError: The server does not destroy it.
        """
        connection = self._connected()

        def destroy(id: ULID) -> TopicState:
            state = connection.unary.delete_topic(id, DESTROY, self._timeout)
            connection.forget_topic(id)
            return state

        state: TopicState = self._with_id(topic, destroy)
        self._forget(topic)
        if state is not TopicState.DELETING:
            raise EnsignTopicDestroyError(f"failed to destroy topic {topic}, topic state is {state.name}")
        return state

    def set_topic_deduplication_policy(
        self,
        id: TopicLike,
        strategy: Union[DeduplicationStrategy, str, int],
        offset: Union[OffsetPosition, str, int] = OffsetPosition.OFFSET_EARLIEST,
        keys: Optional[Sequence[str]] = None,
        fields: Optional[Sequence[str]] = None,
        overwrite_duplicate: bool = False,
    ) -> TopicState:
        """Set when two events of a topic count as the same; returns what it is doing now (PENDING while at work)."""
        policy = Deduplication(
            DeduplicationStrategy.parse(strategy), OffsetPosition.parse(offset), keys, fields, bool(overwrite_duplicate)
        )
        unary = self._connected().unary
        state: TopicState = self._with_id(id, lambda ulid: unary.set_topic_policy(ulid, policy, 0, self._timeout))
        return state

    def set_topic_sharding_strategy(
        self, id: TopicLike, strategy: Union[ShardingStrategy, str, int] = "no_sharding"
    ) -> TopicState:
        """Set how a topic is spread over nodes. The known servers answer UNIMPLEMENTED."""
        number = int(ShardingStrategy.parse(strategy))
        unary = self._connected().unary
        state: TopicState = self._with_id(id, lambda ulid: unary.set_topic_policy(ulid, None, number, self._timeout))
        return state

    def info(self, topic_ids: Sequence[TopicLike] = ()) -> Project:
        """Return the counts of the project, or of some topics; the real server's lag by up to 75 seconds."""
        if isinstance(topic_ids, str):
            raise TypeError(f"expected list of topic IDs, got {type(topic_ids)}")
        ids = [self._resolve(topic) for topic in topic_ids]
        return self._connected().unary.info(ids, self._timeout)

    # inside

    def _resolve(self, topic: TopicLike) -> ULID:
        """Find the id of a topic that is named by name, id or Topic."""
        if isinstance(topic, ULID):
            return topic
        if isinstance(topic, Topic):
            return topic.id if topic.id is not None else self._resolve(topic.name)
        name = _text(topic)
        if self._cache is not None and name in self._cache:
            return self._cache[name]
        topics = self.get_topics()
        for found in topics:
            if found.name == name and found.id is not None:
                return found.id
        if is_ulid(name) and ULID(name) in [found.id for found in topics]:
            return ULID(name)
        raise EnsignTopicNotFoundError(name)

    def _with_id(self, topic: TopicLike, call: Any) -> Any:
        """Call with the id of a topic; if the id turns out to be of the past, look it up once more."""
        for last_try in (False, True):
            cached = isinstance(topic, str) and self._cache is not None and topic in self._cache
            try:
                return call(self._resolve(topic))
            except EnsignError as error:
                if error.code != "NOT_FOUND":
                    raise
                self._forget(topic)
                if last_try or not cached:
                    raise EnsignTopicNotFoundError(str(topic)) from error
        raise AssertionError("unreachable: the loop returns or raises")

    def _remember(self, topics: Sequence[Topic]) -> None:
        if self._cache is not None:
            self._cache.update({topic.name: topic.id for topic in topics if topic.id is not None})

    def _forget(self, topic: TopicLike) -> None:
        if self._cache is not None:
            for name, id in list(self._cache.items()):
                if name == topic or id == topic or (isinstance(topic, Topic) and id == topic.id):
                    self._cache.pop(name, None)


def check_name(name: str) -> None:
    """Raise EnsignInvalidTopicError unless the text can be the name of a topic (docs/protocol.rst, "Topics")."""
    text = _text(name)
    if len(text.encode("utf-8")) > _LONGEST_NAME:
        raise EnsignInvalidTopicError(f"topic name is too long: at most {_LONGEST_NAME} bytes, got {len(text)}")
    if not _NAME.match(text):
        raise EnsignInvalidTopicError(
            f"topic name {text!r} is invalid: a letter first, then letters, digits, dots, hyphens and underscores"
        )


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"expected type 'str' for topic, got '{type(name).__name__}'")
    if not name:
        raise ValueError("topic is required")
    return name
