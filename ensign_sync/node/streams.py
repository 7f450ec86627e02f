"""The two streams of a node in service (docs/protocol.rst, "Publish stream" and "Subscribe stream")."""

import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Sequence, Set

from ..ack import Ack
from ..nack import Nack
from ..wire import codec
from .broker import BUFFER, Incoming, Listener, Live, Settled, Source
from .core import Caller, Core, OpenStream, StreamInfo
from .groups import Member
from .rpc import Call, Refused
from .sessions import End, Listen, PublisherSession, Reply, Store, SubscriberSession
from .storage import StoredTopic

#: A publish stream is not read from while so much of it waits to be stored, and again below half of it.
_MOST_DUE = BUFFER
_MOST_DUE_BYTES = 16 * 2**20

#: So many bytes of events wait for a subscriber as they are; beyond it only their places in the log are kept.
_MOST_HELD_BYTES = 8 * 2**20


class Stream(OpenStream):
    """What both streams have in common.

    Attributes:
        call: The call that is served.
        opened: When, on the monotonic clock.
    """

    def __init__(self, service: Core, caller: Caller, call: Call) -> None:
        self.call = call
        self.opened = time.monotonic()
        self._service = service
        self._caller = caller
        self.client_id = ""
        self.names: Sequence[str] = ()
        self.user_agent = ",".join(value for key, value in call.metadata if key == "user-agent")
        service.add_stream(self)

    def info(self) -> StreamInfo:
        """Describe the stream."""
        return StreamInfo(self.kind, self.call.peer, self.client_id, self.user_agent, self.opened, self.names)

    def finish(self) -> None:
        """End the stream well, since the node stops or was told to."""
        self.call.finish()

    def ended(self) -> None:
        """The call is over."""
        self._service.remove_stream(self)


def _apply_ends(actions: Sequence[Any]) -> None:
    for action in actions:
        if isinstance(action, End):
            raise Refused(action.code, action.details)


class PublishStream(Stream, Source):
    """A publish stream: what is received goes to the broker, what the broker says is answered."""

    kind = "publish"

    def __init__(self, service: Core, caller: Caller, call: Call) -> None:
        self._topics: Dict[bytes, StoredTopic] = {topic.id: topic for topic in service.log.topics(caller.project)}
        self._session = PublisherSession(
            {topic.name: topic.id for topic in self._topics.values()},
            caller.subject,
            service.node_id,
            None if service.strict else self._find,
        )
        _apply_ends(self._session.opening())
        self._publisher = b""
        # Guards the session's counts and what follows, which the writer of the log touches too.
        self._lock = threading.Lock()
        self._due: Deque[int] = deque()  # the sizes of the events that wait to be stored
        self._due_bytes = 0
        self._paused = False
        self._finishing = False
        self._said_farewell = False
        super().__init__(service, caller, call)

    def received(self, data: bytes) -> bool:
        """Take a message; returns whether the next one may come at once."""
        try:
            frame = codec.decode_publisher_request(data)
        except Exception:  # as in SubscribeStream
            raise self._unreadable() from None
        with self._lock:
            if self._finishing:
                return False
            actions = self._session.receive(frame)
            replies = []
            for action in actions:
                if isinstance(action, Store):
                    self._store(action.wrapper)
                elif isinstance(action, Reply):
                    replies.append(codec.encode_publisher_reply(action.frame))
            if replies:
                self.call.send(*replies)
            _apply_ends(actions)
            if not self._publisher:
                self._open(frame)
            full = len(self._due) >= _MOST_DUE or self._due_bytes >= _MOST_DUE_BYTES
            # A publisher that does not read its answers is not read from either.
            full = full or self.call.waiting >= BUFFER or self.call.waiting_bytes >= _MOST_DUE_BYTES
            self._paused = full or (bool(self._due) and self._service.broker.is_pressed)
            return not self._paused

    def _unreadable(self) -> Refused:
        """Return how the stream ends at a message that is none; the real server says less once it is open."""
        if not self._session.open or not self._service.strict:
            return self._service.unreadable()
        self.call.send(codec.encode_publisher_reply(self._session.farewell()))
        return Refused("ABORTED", "could not recv event from client")

    def half_closed(self) -> None:
        """End the stream: a strict node at once, as the real server, which forgets to answer what is not answered."""
        with self._lock:
            if not self._publisher:  # nothing was ever opened
                self.call.finish()
                return
            self._finishing = True
            if self._service.strict or not self._due:
                self._say_farewell()

    def finish(self) -> None:
        """Take nothing more in, and end when everything is answered."""
        with self._lock:
            self._finishing = True
            if not self._due:
                self._say_farewell()

    def settled(self, outcomes: List[Settled]) -> None:
        """Answer events, on the writer's thread."""
        with self._lock:
            for _ in outcomes:
                self._due_bytes -= self._due.popleft()
            if not self._said_farewell:
                self._answer(outcomes)
            if self._finishing and not self._due:
                self._say_farewell()
        self.drained()

    def drained(self) -> None:
        """Take more in, if there is room again for what it leads to."""
        with self._lock:
            room = len(self._due) <= _MOST_DUE // 2 and self._due_bytes <= _MOST_DUE_BYTES // 2
            taken = self.call.waiting < BUFFER and self.call.waiting_bytes < _MOST_DUE_BYTES
            resume = self._paused and room and taken
            self._paused = self._paused and not resume
        if resume:
            self.call.receive()

    def _answer(self, outcomes: List[Settled]) -> None:
        faults = self._service.faults
        replies = []
        for outcome in outcomes:
            if outcome.code is not None:
                reply = self._session.refused(outcome.local_id, outcome.code)
            elif faults.touches_acks and faults.drops_ack():
                continue
            else:
                reply = self._session.committed(outcome.local_id, outcome.committed_ns)
            replies.append(codec.encode_publisher_reply(reply.frame))
        self._service.acks_sent += len(replies)
        if faults.ack_delay > 0:
            faults.count("delay_acks", len(replies))
            self._service.timer.after(faults.ack_delay, lambda: self.call.send(*replies))
        else:
            self.call.send(*replies)

    def _open(self, frame: Any) -> None:
        """Note who publishes; needs the lock."""
        self.client_id = frame.client_id
        self.names = sorted(frame.topics) or sorted(topic.name for topic in self._topics.values())
        peer = self.call.peer.partition(":")[2]
        self._publisher = codec.encode_publisher(self._caller.subject, peer, frame.client_id, self.user_agent)

    def _store(self, wrapper: codec.Wrapper) -> None:
        """Hand an event over; needs the lock."""
        code = self._service.faults.refusal()
        if code is not None:
            self.call.send(codec.encode_publisher_reply(self._session.refused(wrapper.local_id, code).frame))
            return
        size = len(wrapper.payload)
        self._due.append(size)
        self._due_bytes += size
        topic = self._topics[wrapper.topic_id]
        self._service.broker.publish(Incoming(topic.number, topic.id, self, wrapper, self._publisher))

    def _say_farewell(self) -> None:
        """Send the last message and end the call behind what is on its way; needs the lock."""
        if self._said_farewell:
            return
        self._said_farewell = True
        if self._session.open:
            self.call.send(codec.encode_publisher_reply(self._session.farewell()))
        self.call.finish()

    def _find(self, topic_id: bytes) -> bool:
        """Tell whether a topic came after the opening."""
        for topic in self._service.log.topics(self._caller.project):
            self._topics.setdefault(topic.id, topic)
        return topic_id in self._topics


class SubscribeStream(Stream, Listener):
    """A subscribe stream: live events, or those that a consumer group hands out."""

    kind = "subscribe"

    def __init__(self, service: Core, caller: Caller, call: Call) -> None:
        self._by_name = service.topic_ids(caller.project)
        self._session = SubscriberSession(self._by_name, service.node_id)
        _apply_ends(self._session.opening())
        self.topics: Set[bytes] = set()
        self.dropped = 0
        self._member: Optional[Member] = None
        # Guards what follows: the writer offers, the loop takes.
        self._lock = threading.Lock()
        self._registered = False
        self._over = False
        self._places: Deque[Live] = deque()  # where the events are that wait beyond what waits in the call
        super().__init__(service, caller, call)

    def received(self, data: bytes) -> bool:
        """Take the subscription, then acks and nacks."""
        if self._session.open:
            self._answered(data)
            return True
        frame = self._frame(data)
        actions = self._session.receive(frame)
        _apply_ends(actions)
        matched = next(action.topics for action in actions if isinstance(action, Listen))
        ready = codec.encode_subscribe_ready(next(action.frame for action in actions if isinstance(action, Reply)))
        self.topics, self.names, self.client_id = set(matched.values()), sorted(matched), frame.client_id
        group = None if self._service.strict else codec.decode_group(data)
        if group is not None:
            self.call.send(ready)
            self._member = self._service.groups.join(self._caller.project, group, self.topics, self.call)
        elif self._service.strict:
            # As the real server does it: what is stored between the two passes unseen.
            self.call.send(ready)
            self._register_later()
        else:
            self._register()
            self.call.send(ready)
        return True

    def drained(self) -> None:
        """Few events wait to be written: read those back of which only the place was kept."""
        with self._lock:
            while self._places and self.call.waiting_bytes < _MOST_HELD_BYTES // 2 and self.call.waiting < BUFFER // 2:
                place = self._places.popleft()
                event = self._service.log.event_at(place.topic, place.position)
                if event is not None:
                    self.call.send(codec.encode_live(event.wrapper, event.committed_ns))
        if self._member is not None:
            self._service.groups.wake()

    def offer(self, events: List[Live]) -> None:
        """Take stored events; beyond the buffer they are dropped, as the real server does."""
        with self._lock:
            if self._over:
                return
            at_once: List[bytes] = []
            count, size = self.call.waiting, self.call.waiting_bytes
            for event in events:
                if not self._places and count < BUFFER and size + len(event.message) <= _MOST_HELD_BYTES:
                    count, size = count + 1, size + len(event.message)
                    at_once.append(event.message)
                elif count + len(self._places) < BUFFER and event.position >= 0:
                    self._places.append(event._replace(message=b""))
                else:
                    self.dropped += 1
            self.call.send(*at_once)

    def ended(self) -> None:
        """The call is over."""
        with self._lock:
            self._over = True
            registered, self._registered = self._registered, False
        if registered:
            self._service.broker.unsubscribe(self)
        if self._member is not None:
            self._service.groups.leave(self._member)
        super().ended()

    def _register_later(self) -> None:
        delay = self._service.faults.registration_delay
        if delay > 0:
            self._service.faults.count("unregister_window")
            self._service.timer.after(delay, self._register)
        else:
            self._register()

    def _register(self) -> None:
        with self._lock:
            if self._over:
                return
            self._registered = True
            self._service.broker.subscribe(self)

    def _frame(self, data: bytes) -> Any:
        try:
            return codec.decode_subscribe_request(data)
        except Exception:  # not only DecodeError: some protobuf versions stumble over their own warning
            raise self._service.unreadable() from None

    def _answered(self, data: bytes) -> None:
        """Count an ack or nack; the real server does nothing else with it, and minds no other message."""
        frame = self._frame(data)
        self._session.receive(frame)
        if isinstance(frame, Ack):
            self._service.note_answer(frame.id, None)
            if self._member is not None:
                self._service.groups.ack(self._member, frame.id)
        elif isinstance(frame, Nack):
            self._service.note_answer(frame.id, int(frame.code))
            if self._member is not None:
                self._service.groups.nack(self._member, frame.id, int(frame.code))
