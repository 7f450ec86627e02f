"""The server's halves of the two streams: what to answer, given what was said. No thread, no socket, no protobuf.

See docs/protocol.rst, "Publish stream" and "Subscribe stream".
"""

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

from ..ids import ULID, is_ulid, topic_name_hash
from ..nack import DEFAULT_TEXTS, MAX_EVENT_SIZE_EXCEEDED, TOPIC_UNKNOWN
from ..protocol.frames import Ack, CloseStream, Nack, OpenStream, Ready, Subscription

#: The size of an encoded event beyond which the server refuses it.
MAX_EVENT_SIZE = 5_243_000


class Reply(NamedTuple):
    """Send this message."""

    frame: Any


class Store(NamedTuple):
    """Store this event, and say ``committed`` or ``refused`` then."""

    wrapper: Any


class Listen(NamedTuple):
    """Pass on the events of these topics from now on."""

    topics: Mapping[str, bytes]


class End(NamedTuple):
    """End the stream with this status."""

    code: str
    details: str


def match_topics(wanted: Sequence[str], have: Mapping[str, bytes]) -> Dict[str, bytes]:
    """Return the topics that are named: by name, by id, or by the hash of the name. None named means all."""
    if not wanted:
        return dict(have)
    by_id = {id: name for name, id in have.items()}
    by_hash: Dict[str, str] = {}
    found: Dict[str, bytes] = {}
    for text in wanted:
        name: Optional[str] = text if text in have else None
        if name is None and is_ulid(text):
            name = by_id.get(ULID(text).bytes)
        if name is None and len(text) == 22:
            by_hash = by_hash or {topic_name_hash(known): known for known in have}
            name = by_hash.get(text)
        if name is not None:
            found[name] = have[name]
    return found


class PublisherSession:
    """One publish stream. ``topics`` are those of the project when it opened: the set is fixed from then on.

    A friendly node passes ``is_there``, which is asked about topics that came later.
    """

    def __init__(
        self,
        topics: Mapping[str, bytes],
        subject: str,
        server_id: str,
        is_there: Optional[Callable[[bytes], bool]] = None,
    ) -> None:
        self._is_there = is_there
        self._topics = topics
        self._subject = subject
        self._server_id = server_id
        self._allowed: Optional[Set[bytes]] = None
        self._filtered = False
        self._seen: Set[bytes] = set()
        self.client_id = ""
        self.events = self.acks = self.nacks = 0

    def opening(self) -> List[Any]:
        """Return what is to be done before the first message."""
        return [] if self._topics else [End("FAILED_PRECONDITION", "no topics available")]

    def receive(self, frame: Any) -> List[Any]:
        """Take a message of the publisher."""
        if self._allowed is None:
            return self._open(frame)
        if isinstance(frame, OpenStream):
            return [Reply(self.farewell()), End("ABORTED", "cannot send multiple open stream messages")]
        if not hasattr(frame, "local_id"):
            return [Reply(self.farewell()), End("FAILED_PRECONDITION", "unhandled publisher request message <nil>")]
        return self._receive_event(frame)

    def committed(self, local_id: bytes, committed_ns: int) -> Reply:
        """An event was stored."""
        self.acks += 1
        return Reply(Ack(local_id, committed_ns))

    def refused(self, local_id: bytes, code: int, error: str = "") -> Reply:
        """An event was not stored."""
        self.nacks += 1
        return Reply(Nack(local_id, code, error or DEFAULT_TEXTS.get(code, "unknown error")))

    @property
    def open(self) -> bool:
        """True after the first message."""
        return self._allowed is not None

    def farewell(self) -> CloseStream:
        """Return the last message of the stream."""
        return CloseStream(self.events, len(self._seen), self.acks, self.nacks)

    def _open(self, frame: Any) -> List[Any]:
        if not isinstance(frame, OpenStream):
            text = "an open stream message must be sent immediately after opening the stream"
            return [End("FAILED_PRECONDITION", text)]
        matched = match_topics(frame.topics, self._topics)
        if not matched:
            return [End("FAILED_PRECONDITION", "no topics available")]
        self._allowed = set(matched.values())
        self._filtered = bool(frame.topics)
        self.client_id = frame.client_id
        return [Reply(Ready(frame.client_id or self._subject, self._server_id, matched))]

    def _receive_event(self, wrapper: Any) -> List[Any]:
        topic_id = wrapper.topic_id
        assert self._allowed is not None
        if not topic_id:
            return [self.refused(wrapper.local_id, TOPIC_UNKNOWN, "no topic id specified")]
        if len(topic_id) != ULID.size:
            return [self.refused(wrapper.local_id, TOPIC_UNKNOWN, "invalid topic id")]
        if topic_id not in self._allowed and not self._came_later(topic_id):
            return [self.refused(wrapper.local_id, TOPIC_UNKNOWN)]
        if len(wrapper.payload) > MAX_EVENT_SIZE:
            return [self.refused(wrapper.local_id, MAX_EVENT_SIZE_EXCEEDED)]
        self.events += 1
        self._seen.add(topic_id)
        return [Store(wrapper)]

    def _came_later(self, topic_id: bytes) -> bool:
        if self._is_there is None or self._filtered or self._allowed is None or not self._is_there(topic_id):
            return False
        self._allowed.add(topic_id)
        return True


class SubscriberSession:
    """One subscribe stream; the topics are fixed when it opens."""

    def __init__(self, topics: Mapping[str, bytes], server_id: str) -> None:
        self._topics = topics
        self._server_id = server_id
        self.open = False
        self.acks = self.nacks = 0

    def opening(self) -> List[Any]:
        """Return what is to be done before the first message."""
        return [] if self._topics else [End("FAILED_PRECONDITION", "no topics available")]

    def receive(self, frame: Any) -> List[Any]:
        """Take a message of the subscriber; after the first one only acks and nacks mean anything, and are counted."""
        if self.open:
            self.acks += isinstance(frame, Ack)
            self.nacks += isinstance(frame, Nack)
            return []
        if not isinstance(frame, Subscription):
            return [End("FAILED_PRECONDITION", "must send subscription to initialize stream")]
        matched = match_topics(frame.topics, self._topics)
        if not matched:
            return [End("FAILED_PRECONDITION", "no topics available")]
        self.open = True
        return [Listen(matched), Reply(Ready(frame.client_id, self._server_id, matched))]
