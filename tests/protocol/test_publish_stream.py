"""What a publisher says and settles, scene by scene."""

import pytest

from ensign_sync.exceptions import EnsignError, EnsignRPCError, EventTooLargeError, ProtocolError, UnknownTopicError
from ensign_sync.ids import ULID
from ensign_sync.nack import TOPIC_UNKNOWN
from ensign_sync.protocol.frames import (
    Ack,
    CloseStream,
    HalfClose,
    Keyed,
    Made,
    Nack,
    OpenStream,
    Pieces,
    Publication,
    Ready,
)
from ensign_sync.protocol.machine import Ended, Opened, State
from ensign_sync.protocol.publish_stream import (
    Abandoned,
    Doubt,
    Drained,
    Failed,
    InDoubt,
    PublishProtocol,
    Settled,
    TopicsStale,
)

A, B = ULID.new().bytes, ULID.new().bytes
READY = Ready("client", "server", {"a": A})
BOTH = Ready("client", "server", {"a": A, "b": B})
LOSS = EnsignError("the line went dead")


def opened(ready=READY, **options):
    """Return a machine with an open connection and empty doors."""
    machine = PublishProtocol("client", bytes(15) + b"\x01", **options)
    machine.connected()
    assert machine.frames_to_send() == [OpenStream("client")]
    machine.receive(ready)
    assert machine.events() == [Opened(dict(ready.topics))]
    return machine


def payloads(machine):
    """Return the payloads of what goes to the wire."""
    return [frame.payload for frame in machine.frames_to_send() if isinstance(frame, Publication)]


def test_an_event_goes_out_and_its_ack_settles_it():
    """The token comes back with the ack, once, and nothing is pending after it."""
    machine = opened()
    id = machine.publish("a", b"one", "token")
    assert machine.frames_to_send() == [Publication(A, id, b"one")]
    assert (machine.in_flight, machine.unsettled, machine.in_flight_bytes) == (1, 1, 3)
    ack = Ack(id, 17)
    machine.receive(ack)
    assert machine.events() == [Settled("token", ack)]
    assert (machine.in_flight, machine.unsettled, machine.in_flight_bytes) == (0, 0, 0)
    machine.receive(ack)
    assert machine.events() == [], "an ack that nobody waits for says nothing"


def test_local_ids_count_up_from_the_first():
    """Local ids are 16 bytes and sort in the order of publishing."""
    machine = opened()
    ids = [machine.publish("a", b"x", None) for _ in range(300)]
    assert ids[0] == bytes(15) + b"\x01"
    assert ids == sorted(set(ids))


def test_many_events_at_once():
    """They are what as many single ones would be: on a connection, before it, and for a topic that it does not know."""
    machine, other = opened(), opened()
    machine.publish_all("a", [b"1", b"22"], "xy")
    ids = [other.publish("a", payload, token) for payload, token in ((b"1", "x"), (b"22", "y"))]
    assert machine.waiting() == other.waiting() == list(zip(ids, "xy"))
    assert machine.frames_to_send() == other.frames_to_send()
    assert (machine.in_flight, machine.in_flight_bytes) == (2, 3)
    machine.publish_all("b", [b"3"], "z")
    assert machine.events() == [TopicsStale(frozenset("b"))]
    for id in ids:
        machine.receive(Ack(id))
    assert [event.token for event in machine.events()] == ["x", "y"]
    machine.lost(LOSS)
    machine.publish_all("a", [b"4"], "w")
    machine.connected()
    machine.receive(BOTH)
    assert payloads(machine) == [b"3", b"4"]


def test_a_topic_that_was_destroyed():
    """Its name is unknown from then on, until the next connection says otherwise."""
    machine = opened()
    machine.publish("a", b"1", "x")
    machine.forget_topic(A)
    machine.publish("a", b"2", "y")
    assert payloads(machine) == [b"1"]
    assert machine.events() == [TopicsStale(frozenset("a"))]
    assert machine.used == {A}


def test_a_payload_in_pieces_is_as_long_as_they_are():
    """It counts for the window as it would in one."""
    machine = opened()
    machine.publish("a", Pieces((b"one", b"", b"two")), None)
    assert machine.in_flight_bytes == 6
    assert [bytes(payload) for payload in payloads(machine)] == [b"onetwo"]


def test_events_before_the_connection_wait_in_order():
    """What is published while there is no connection goes out with Ready, in order."""
    machine = PublishProtocol("client", bytes(16))
    for payload in (b"1", b"2", b"3"):
        machine.publish("a", payload, payload)
    assert machine.frames_to_send() == []
    machine.connected()
    machine.publish("a", b"4", b"4")
    assert machine.frames_to_send() == [OpenStream("client")]
    machine.receive(READY)
    assert payloads(machine) == [b"1", b"2", b"3", b"4"]


TOO_LARGE = EnsignRPCError("Publish", "RESOURCE_EXHAUSTED", "received message larger than max")


def test_the_first_event_that_may_have_been_too_large_is_blamed():
    """It alone fails; those before and after it, however large, are sent again."""
    machine = opened(surely_taken=3)
    for payload in (b"1", b"22222", b"33333", b"4"):
        machine.publish("a", payload, payload)
    machine.frames_to_send()
    machine.lost(TOO_LARGE)
    (settled,) = machine.events()
    assert settled.token == b"22222"
    assert isinstance(settled.outcome, EventTooLargeError)
    assert settled.outcome.__cause__ is TOO_LARGE
    machine.connected()
    machine.receive(READY)
    assert payloads(machine) == [b"1", b"33333", b"4"]
    assert (machine.unsettled, machine.in_flight_bytes) == (3, 7)


@pytest.mark.parametrize(
    ("options", "size", "error"),
    [
        ({"surely_taken": 3}, 3, TOO_LARGE),
        ({"surely_taken": 3}, 9, LOSS),
        ({"surely_taken": 3}, 9, ValueError("no error of a server")),
        ({}, 9, TOO_LARGE),
    ],
)
def test_nobody_is_blamed_for_another_loss(options, size, error):
    """An event that no server refuses, or a connection that ended otherwise, is sent again."""
    machine = opened(**options)
    machine.publish("a", bytes(size), "token")
    machine.frames_to_send()
    machine.lost(error)
    assert machine.events() == []
    assert machine.unsettled == 1


def test_loss_resends_what_is_not_acknowledged_under_the_same_ids():
    """After a loss the unacknowledged events go out again, in order, same ids, the new topic id; and are counted."""
    machine = opened()
    ids = [machine.publish("a", payload, payload) for payload in (b"1", b"2", b"3")]
    machine.frames_to_send()
    machine.receive(Ack(ids[1]))
    machine.lost(LOSS)
    assert machine.state is State.WAITING
    machine.publish("a", b"4", b"4")
    machine.connected()
    machine.receive(Ready("", "", {"a": B}))
    frames = [frame for frame in machine.frames_to_send() if isinstance(frame, Publication)]
    assert [(frame.topic_id, frame.payload) for frame in frames] == [(B, b"1"), (B, b"3"), (B, b"4")]
    assert [frame.local_id for frame in frames[:2]] == [ids[0], ids[2]]
    assert machine.resent == 2


def test_without_resend_a_loss_fails_what_was_sent_and_keeps_the_rest():
    """resend=False settles sent events with the error of the loss; unsent ones still go out."""
    machine = opened(resend=False)
    machine.publish("a", b"sent", "sent")
    machine.lost(LOSS)
    assert machine.events() == [Settled("sent", Failed(LOSS, True))]
    machine.publish("a", b"unsent", "unsent")
    machine.lost(LOSS)
    assert machine.events() == []
    machine.connected()
    machine.receive(READY)
    assert payloads(machine) == [b"unsent"]
    assert machine.resent == 0


def test_a_nack_fails_that_event_alone():
    """A refused event settles with the Nack; its neighbours are not touched."""
    machine = opened()
    first, second = machine.publish("a", b"1", 1), machine.publish("a", b"2", 2)
    nack = Nack(first, 9, "please wait")
    machine.receive(nack)
    machine.receive(Nack(b"whose?", 9, ""))
    assert machine.events() == [Settled(1, nack)]
    machine.receive(Ack(second))
    assert [event.token for event in machine.events()] == [2]


def test_fail_settles_everything_and_ends():
    """When no connection will be tried again every pending event gets the error, then the stream ends."""
    machine = opened()
    machine.publish("a", b"1", 1)
    machine.publish("a", b"2", 2)
    machine.fail(LOSS)
    assert machine.events() == [Settled(1, Failed(LOSS, True)), Settled(2, Failed(LOSS, True)), Ended(LOSS)]
    assert machine.over
    assert machine.failure is LOSS


class TestTopics:
    """Topics that a connection does not know."""

    def test_a_topic_by_its_id(self):
        """A text of 26 characters that is no name is taken for an id."""
        machine = opened()
        text = str(ULID(A))
        assert machine.knows(text)
        assert not machine.knows(str(ULID(B)))
        machine.publish(text, b"x", None)
        assert machine.frames_to_send()[0].topic_id == A

    def test_stale_topics_are_reported_once(self):
        """Events for unknown topics wait; the topic is reported once a connection."""
        machine = opened()
        machine.publish("b", b"1", 1)
        machine.publish("b", b"2", 2)
        machine.publish("a", b"3", 3)
        assert payloads(machine) == [b"3"]
        assert machine.events() == [TopicsStale(frozenset(["b"]))]

    def test_refused_topics_settle_their_events(self):
        """What waits for a topic that does not exist settles with the error; what is on its way does not."""
        machine = opened()
        machine.publish("b", b"1", 1)
        machine.publish("a", b"2", 2)
        machine.events()
        error = UnknownTopicError("b")
        machine.refuse(["b", "a"], error)
        assert machine.events() == [Settled(1, Failed(error, False))]
        machine.publish("b", b"3", 3)
        assert machine.events() == [TopicsStale(frozenset(["b"]))], "asked again, since it may exist by now"

    def test_drain_waits_for_what_is_owed_and_emits_nothing(self):
        """Draining reports Drained at the last answer; what comes meanwhile waits for the next connection."""
        machine = opened()
        ids = [machine.publish("a", b"1", 1), machine.publish("a", b"2", 2)]
        machine.publish("b", b"3", 3)
        machine.frames_to_send()
        machine.drain()
        machine.publish("a", b"4", 4)
        assert machine.frames_to_send() == []
        machine.receive(Ack(ids[0]))
        machine.receive(Nack(ids[1], 9))
        assert machine.events()[-1] == Drained()
        machine.lost(LOSS)
        machine.connected()
        machine.receive(BOTH)
        assert payloads(machine) == [b"3", b"4"]
        assert machine.resent == 0

    def test_drain_of_an_idle_stream_is_over_at_once(self):
        """A connection that owes nothing is drained immediately."""
        machine = opened()
        machine.drain()
        assert machine.events() == [Drained()]

    def test_nack_topic_unknown_is_asked_for_once(self):
        """An event refused with TOPIC_UNKNOWN goes out again on the next connection, once."""
        machine = opened()
        id = machine.publish("a", b"1", 1)
        machine.receive(Nack(id, TOPIC_UNKNOWN, "topic unknown or unhandled"))
        assert machine.events() == [TopicsStale(frozenset(["a"]))]
        assert not machine.knows("a"), "whatever Ready said, this connection does not have it"
        machine.frames_to_send()
        machine.lost(LOSS)
        machine.connected()
        machine.receive(READY)
        assert payloads(machine) == [b"1"]
        machine.events()
        again = Nack(id, TOPIC_UNKNOWN, "topic unknown or unhandled")
        machine.receive(again)
        assert machine.events() == [Settled(1, again)]

    def test_nack_topic_unknown_for_a_topic_given_by_id(self):
        """The same when the topic was named by its id."""
        machine = opened()
        id = machine.publish(str(ULID(A)), b"1", 1)
        machine.receive(Nack(id, TOPIC_UNKNOWN))
        assert not machine.knows("a")
        assert not machine.knows(str(ULID(A)))

    def test_nack_topic_unknown_without_resend_or_when_closing(self):
        """Without resend, and when closing, the refusal stands."""
        for machine in (opened(resend=False), opened()):
            id = machine.publish("a", b"1", 1)
            machine.close()
            machine.receive(Nack(id, TOPIC_UNKNOWN))
            assert isinstance(machine.events()[0], Settled)


ONE, TWO, THREE = (Keyed((text,), text, Made()) for text in (b"one", b"two", b"three"))


class TestInDoubt:
    """Events that can be found in the log are looked for there before they are sent again."""

    def lost(self, *more, **options):
        """Return a machine that lost a connection which had two such events, and their ids."""
        machine = opened(**options)
        ids = [machine.publish("a", payload, bytes(payload)) for payload in (ONE, TWO, *more)]
        machine.frames_to_send()
        machine.lost(LOSS)
        machine.events()
        return machine, ids

    def reconnected(self, *more, ready=READY):
        """Return the same machine where it has asked."""
        machine, ids = self.lost(*more)
        machine.connected()
        machine.receive(ready)
        return machine, ids

    def test_what_is_stored_is_acknowledged_and_the_rest_is_sent(self):
        """The question names all that were sent; nothing goes out before the answer, and then all in order."""
        machine, (one, two) = self.reconnected()
        three = machine.publish("a", b"three", b"three")
        assert machine.state is State.CHECKING
        assert machine.frames_to_send() == [OpenStream("client")]
        asked = machine.events()[1]
        assert asked == InDoubt(asked.connection, [Doubt(one, "a", ONE), Doubt(two, "a", TWO)])
        assert machine.is_asking(asked.connection)
        machine.stored({one: 17})
        assert machine.events() == [Settled(b"one", Ack(one, 17))]
        assert machine.frames_to_send() == [Publication(A, two, TWO), Publication(A, three, b"three")]
        assert (machine.state, machine.found, machine.resent) == (State.OPEN, 1, 1)
        assert not machine.is_asking(asked.connection)
        machine.receive(Ack(two))
        machine.receive(Ack(three))
        assert machine.unsettled == machine.in_flight == 0

    def test_what_was_never_sent_is_in_no_doubt(self):
        """Nor is what has no key: it is sent again, as ever."""
        machine = opened()
        machine.publish("a", b"plain", 1)
        machine.lost(LOSS)
        machine.publish("a", ONE, 2)
        machine.frames_to_send()
        machine.connected()
        machine.receive(READY)
        assert machine.state is State.OPEN
        assert payloads(machine) == [b"plain", ONE]

    def test_a_loss_asks_anew(self):
        """The answer to an earlier connection's question is not wanted then."""
        machine, (one, two) = self.reconnected()
        first = machine.events()[-1].connection
        machine.lost(LOSS)
        assert not machine.is_asking(first)
        machine.connected()
        machine.receive(READY)
        second = machine.events()[-1]
        assert second.connection != first
        assert [doubt.local_id for doubt in second.doubts] == [one, two]
        assert not machine.is_asking(first)
        assert machine.is_asking(second.connection)

    def test_what_was_found_before_the_end_stands(self):
        """It is settled at once, also if the connection that asked is lost, and then is in doubt no more."""
        machine, (one, two) = self.reconnected()
        machine.events()
        machine.found_stored({one: 17})
        assert machine.events() == [Settled(b"one", Ack(one, 17))]
        assert machine.state is State.CHECKING and machine.frames_to_send() == [OpenStream("client")]
        machine.lost(LOSS)
        machine.found_stored({one: 17})
        machine.connected()
        machine.receive(READY)
        assert [doubt.local_id for doubt in machine.events()[-1].doubts] == [two]
        machine.close()
        machine.found_stored({two: 18})
        assert machine.state is State.CLOSING
        assert machine.found == 2

    def test_given_up_meanwhile(self):
        """It is not sent, and nobody is told."""
        machine, (one, two) = self.reconnected()
        machine.events()
        assert machine.abandon(one) is Abandoned.IN_DOUBT
        machine.stored({one: 17})
        assert machine.events() == []
        assert payloads(machine) == [TWO]
        assert machine.found == 0

    def test_a_server_that_says_something_else(self):
        """An answer that this connection cannot owe means nothing."""
        machine, (one, two) = self.reconnected()
        machine.events()
        for frame in (Ack(one), Nack(two, TOPIC_UNKNOWN), CloseStream()):
            machine.receive(frame)
        assert machine.events() == []
        assert machine.unsettled == 2

    def test_a_new_topic_does_not_wait(self):
        """The connection can be given up for one that knows it; the question is asked there."""
        machine, _ = self.reconnected()
        machine.events()
        machine.drain()
        assert machine.state is State.DRAINING
        assert machine.events() == [Drained()]

    def test_closing(self):
        """What is in doubt is cleared up first; with the last one the stream ends."""
        machine, (one, two) = self.reconnected()
        machine.close()
        assert machine.state is State.CHECKING
        machine.frames_to_send()
        machine.stored({one: 1, two: 2})
        assert machine.state is State.CLOSING
        assert machine.frames_to_send() == [HalfClose()]

    def test_closing_with_nothing_left(self):
        """Who gives all up while it is looked for has nothing to wait for."""
        machine, (one, two) = self.reconnected()
        machine.close()
        machine.abandon(one)
        machine.abandon(two)
        assert machine.state is State.CLOSING

    def test_without_resend(self):
        """Nothing is sent again, so nothing has to be looked for."""
        machine, _ = self.lost(resend=False)
        machine.connected()
        machine.receive(READY)
        assert machine.state is State.OPEN


class TestAbandon:
    """Events that are given up."""

    def test_never_sent(self):
        """An event that never left is withdrawn and will not be sent."""
        machine = PublishProtocol("client", bytes(16))
        id = machine.publish("a", b"1", 1)
        assert machine.abandon(id) is Abandoned.NEVER_SENT
        machine.connected()
        machine.receive(READY)
        assert payloads(machine) == []
        assert machine.in_flight == 0

    def test_in_doubt_is_never_sent_again_and_its_late_ack_is_silent(self):
        """A sent event is kept to match a late ack, counts as in flight, and is told to nobody."""
        machine = opened()
        id = machine.publish("a", b"1", 1)
        assert machine.abandon(id) is Abandoned.IN_DOUBT
        assert machine.abandon(id) is Abandoned.SETTLED
        assert (machine.in_flight, machine.unsettled) == (1, 0)
        assert machine.waiting() == []
        machine.receive(Ack(id))
        assert machine.events() == []
        assert (machine.in_flight, machine.unsettled, machine.in_flight_bytes) == (0, 0, 0)

    def test_in_doubt_is_dropped_at_a_loss(self):
        """After a loss no late ack can come, so what was given up is forgotten and not sent again."""
        machine = opened()
        machine.abandon(machine.publish("a", b"1", 1))
        machine.publish("a", b"2", 2)
        machine.lost(LOSS)
        assert (machine.in_flight, machine.unsettled) == (1, 1)
        machine.connected()
        machine.receive(READY)
        assert payloads(machine) == [b"2"]

    def test_sent_on_an_earlier_connection(self):
        """An event of a lost connection is in doubt, and not sent on the next."""
        machine = opened()
        id = machine.publish("a", b"1", 1)
        machine.lost(LOSS)
        assert machine.waiting() == [(id, 1)]
        assert machine.abandon(id) is Abandoned.IN_DOUBT
        assert machine.in_flight == 0

    def test_a_late_nack_of_an_abandoned_event_is_silent(self):
        """Also a TOPIC_UNKNOWN does not bring an abandoned event back."""
        machine = opened()
        id = machine.publish("a", b"1", 1)
        machine.abandon(id)
        machine.receive(Nack(id, TOPIC_UNKNOWN))
        assert machine.events() == []
        assert machine.in_flight == 0


class TestClosing:
    """The end of a stream."""

    def test_half_close_comes_after_the_last_ack(self):
        """A server drops the acks that are due at a half-close, so it is sent when none is due."""
        machine = opened()
        id = machine.publish("a", b"1", 1)
        machine.close()
        assert HalfClose() not in machine.frames_to_send()
        machine.receive(Ack(id))
        assert machine.frames_to_send() == [HalfClose()]
        assert machine.state is State.CLOSING
        machine.lost(LOSS)
        assert machine.state is State.CLOSED
        assert machine.events()[-1] == Ended(None)

    def test_close_takes_nothing_more_in(self):
        """After close, publish is refused even while earlier events are pending."""
        machine = opened()
        machine.publish("a", b"1", 1)
        machine.close()
        with pytest.raises(ProtocolError, match="OPEN after close cannot take publish"):
            machine.publish("a", b"2", 2)

    def test_closing_survives_a_loss_until_all_is_settled(self):
        """A stream that is closed with events pending still connects again for them."""
        machine = opened()
        id = machine.publish("a", b"1", 1)
        machine.close()
        machine.lost(LOSS)
        assert machine.state is State.WAITING
        machine.connected()
        machine.receive(READY)
        assert payloads(machine) == [b"1"]
        machine.receive(Ack(id))
        assert machine.state is State.CLOSING

    def test_closing_with_nothing_left_at_ready(self):
        """Closed while connecting and given up meanwhile: the connection is half-closed as soon as it is ready."""
        machine = PublishProtocol("client", bytes(16))
        machine.connected()
        id = machine.publish("a", b"1", 1)
        machine.close()
        machine.abandon(id)
        assert machine.state is State.OPENING
        machine.receive(READY)
        assert machine.state is State.CLOSING
        machine.receive(READY)
        assert machine.state is State.CLOSING, "a second Ready changes nothing any more"

    def test_closing_while_waiting(self):
        """Between two connections a stream with nothing pending is closed at once, also by giving up the last."""
        machine = opened()
        id = machine.publish("a", b"1", 1)
        machine.lost(LOSS)
        machine.close()
        assert machine.state is State.WAITING
        machine.abandon(id)
        assert machine.state is State.CLOSED

    def test_loss_of_a_closing_stream_with_only_doubtful_events(self):
        """A loss ends a closing stream that nobody waits for."""
        machine = PublishProtocol("client", bytes(16))
        machine.connected()
        machine.close()
        machine.lost(LOSS)
        assert machine.state is State.CLOSED

    def test_fail_while_closing_is_a_close(self):
        """The end of a half-closed stream is no failure."""
        machine = opened()
        machine.close()
        machine.fail(LOSS)
        assert machine.state is State.CLOSED
