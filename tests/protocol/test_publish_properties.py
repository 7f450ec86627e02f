"""Whatever happens in whatever order: every accepted event settles exactly once, in order, and is emitted in order."""

from typing import Dict, List

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ensign_sync.exceptions import EnsignError, UnknownTopicError
from ensign_sync.ids import ULID
from ensign_sync.nack import INTERNAL, TOPIC_UNKNOWN
from ensign_sync.protocol.frames import Ack, HalfClose, Keyed, Made, Nack, Publication, Ready
from ensign_sync.protocol.machine import Ended, State
from ensign_sync.protocol.publish_stream import Abandoned, Drained, InDoubt, PublishProtocol, Settled, TopicsStale
from tests.size import by_size

A, B = ULID.new().bytes, ULID.new().bytes
LOSS = EnsignError("the line went dead")


class PublisherLife(RuleBasedStateMachine):
    """Drives a publisher against a server that answers, refuses, loses and comes back."""

    @initialize(resend=st.booleans())
    def begin(self, resend):
        self.machine = PublishProtocol("client", bytes(16), resend)
        self.resend = resend
        self.accepted: List[int] = []
        self.ids: Dict[int, bytes] = {}
        self.settled: Dict[int, object] = {}
        self.abandoned: Dict[int, Abandoned] = {}
        self.server: List[Publication] = []  # what this connection carried
        self.unanswered: List[Publication] = []
        self.ever_sent: set = set()
        self.half_closed = False
        self.ended = 0
        self.owed_drain = False
        self.asked = None

    def look(self):
        """Read both doors, as a driver does after each step."""
        for frame in self.machine.frames_to_send():
            if isinstance(frame, Publication):
                assert not self.half_closed, "nothing is said after the half-close"
                assert frame.local_id not in [seen.local_id for seen in self.server], "twice on one connection"
                token = int(bytes(frame.payload))
                assert token not in self.abandoned, "an event that was given up is never sent later"
                assert token not in self.settled, "a settled event is never sent"
                self.server.append(frame)
                self.unanswered.append(frame)
                self.ever_sent.add(token)
            elif isinstance(frame, HalfClose):
                self.half_closed = True
        for event in self.machine.events():
            if isinstance(event, Settled):
                assert event.token not in self.settled, "settled twice"
                assert event.token not in self.abandoned, "nobody waits for an event that was given up"
                self.settled[event.token] = event.outcome
            elif isinstance(event, Ended):
                self.ended += 1
            elif isinstance(event, Drained):
                self.owed_drain = False
            elif isinstance(event, InDoubt):
                self.asked = event
                tokens = [int(bytes(doubt.payload)) for doubt in event.doubts]
                assert set(tokens) <= self.ever_sent, "what was never sent is in no doubt"
                assert not set(tokens) & (set(self.abandoned) | set(self.settled))
            else:
                assert isinstance(event, (TopicsStale, tuple))

    @property
    def live(self):
        return self.machine.state in (State.OPEN, State.DRAINING, State.CLOSING)

    @precondition(lambda self: not self.machine.closing and not self.machine.over)
    @rule(topic=st.sampled_from(["a", "a", "b"]), keyed=st.booleans())
    def publish(self, topic, keyed):
        token = len(self.accepted)
        self.accepted.append(token)
        text = str(token).encode()
        self.ids[token] = self.machine.publish(topic, Keyed((text,), text, Made()) if keyed else text, token)
        self.look()

    @precondition(lambda self: not self.machine.closing and not self.machine.over)
    @rule(topic=st.sampled_from(["a", "a", "b"]), number=st.integers(0, 3))
    def publish_all(self, topic, number):
        tokens = list(range(len(self.accepted), len(self.accepted) + number))
        self.machine.publish_all(topic, [str(token).encode() for token in tokens], tokens)
        self.accepted += tokens
        self.ids.update({token: id for id, token in self.machine.waiting() if token in tokens})
        self.look()

    @precondition(lambda self: self.machine.state in (State.IDLE, State.WAITING))
    @rule(topics=st.sampled_from([{"a": A}, {"a": A, "b": B}]), answered=st.booleans())
    def connect(self, topics, answered):
        self.machine.connected()
        self.server, self.unanswered, self.half_closed = [], [], False
        self.look()
        if answered:
            self.machine.receive(Ready("", "", topics))
            self.look()

    @precondition(lambda self: self.machine.state is State.OPENING)
    @rule(topics=st.sampled_from([{"a": A}, {"a": A, "b": B}]))
    def answer_opening(self, topics):
        self.machine.receive(Ready("", "", topics))
        self.look()

    @precondition(lambda self: self.machine.state is State.CHECKING)
    @rule(data=st.data())
    def answer_doubt(self, data):
        assert not self.server, "nothing is said before it is known what is stored"
        ids = [doubt.local_id for doubt in self.asked.doubts]
        stored = data.draw(st.sets(st.sampled_from(ids)))
        self.machine.stored(dict.fromkeys(stored, 17))
        self.look()

    @precondition(lambda self: self.live and self.unanswered)
    @rule(data=st.data(), kind=st.sampled_from(["ack", "ack", "ack", "nack", "unknown topic"]))
    def answer(self, data, kind):
        at = data.draw(st.integers(0, min(2, len(self.unanswered) - 1)))
        id = self.unanswered.pop(at).local_id
        code = TOPIC_UNKNOWN if kind == "unknown topic" else INTERNAL
        self.machine.receive(Ack(id) if kind == "ack" else Nack(id, code, ""))
        self.look()

    @precondition(lambda self: not self.machine.over)
    @rule(for_good=st.sampled_from([False, False, False, True]))
    def lose(self, for_good):
        before = set(self.settled)
        sent_before = set(self.ever_sent)
        (self.machine.fail if for_good else self.machine.lost)(LOSS)
        self.unanswered = []
        self.look()
        newly = set(self.settled) - before
        if not for_good and self.resend:
            assert not newly, "a loss settles nothing when events are sent again"
        if not for_good and not self.resend:
            assert newly <= sent_before

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def abandon(self, data):
        token = data.draw(st.sampled_from(self.accepted))
        fate = self.machine.abandon(self.ids[token])
        if token in self.settled or token in self.abandoned:
            assert fate is Abandoned.SETTLED
        else:
            self.abandoned[token] = fate
            if fate is Abandoned.IN_DOUBT:
                assert token in self.ever_sent
        self.look()

    @precondition(lambda self: not self.machine.over and self.machine.state is not State.CLOSING)
    @rule(topic=st.sampled_from(["a", "b"]))
    def refuse(self, topic):
        self.machine.refuse([topic], UnknownTopicError(topic))
        self.look()

    @precondition(lambda self: self.machine.state in (State.OPEN, State.CHECKING))
    @rule()
    def drain(self):
        self.machine.drain()
        self.look()

    @rule()
    def close(self):
        self.machine.close()
        self.look()

    @invariant()
    def everything_is_accounted_for(self):
        if not hasattr(self, "machine"):
            return
        open_tokens = [token for _, token in self.machine.waiting()]
        assert open_tokens == sorted(open_tokens), "pending events keep the order of their acceptance"
        told = set(self.settled) | set(self.abandoned) | set(open_tokens)
        assert told == set(self.accepted), "every accepted event is settled, given up or pending"
        assert not set(open_tokens) & (set(self.settled) | set(self.abandoned))
        assert self.machine.unsettled == len(open_tokens)
        emitted = [frame.local_id for frame in self.server if int(bytes(frame.payload)) not in self.abandoned]
        if not any(getattr(o, "code", None) == TOPIC_UNKNOWN for o in self.settled.values()):
            topic_a = [id for id, frame in zip(emitted, self.server) if frame.topic_id == A]
            assert len(set(topic_a)) == len(topic_a)
        size = sum(len(str(token)) for token in open_tokens)
        assert self.machine.in_flight_bytes >= size
        if self.machine.over:
            assert not open_tokens
            assert self.ended == 1
        if self.half_closed:
            assert not open_tokens, "the half-close would lose the acks that are due"

    @invariant()
    def each_connection_carries_events_in_order(self):
        if hasattr(self, "machine"):
            ids = [frame.local_id for frame in self.server]
            assert ids == sorted(ids), "order is kept on every connection"


TestPublisherLife = PublisherLife.TestCase
TestPublisherLife.settings = settings(
    max_examples=by_size(10, 20, 200, 5_000), stateful_step_count=30, deadline=None
)
