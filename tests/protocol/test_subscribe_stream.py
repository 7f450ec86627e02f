"""What a subscriber says and delivers, scene by scene."""

from ensign_sync.exceptions import EnsignError
from ensign_sync.ids import ULID
from ensign_sync.protocol.frames import Ack, Delivery, Nack, Ready, Subscription
from ensign_sync.protocol.machine import Ended, Opened, State
from ensign_sync.protocol.subscribe_stream import Delivered, SubscribeProtocol

A = ULID.new().bytes
READY = Ready("client", "server", {"a": A})
LOSS = EnsignError("the line went dead")


def test_every_connection_asks_for_the_same():
    """Each new call starts with the subscription, since the server forgets a subscriber at each loss."""
    machine = SubscribeProtocol("me", ("a", "b"), group="crew", query="SELECT * FROM a")
    wanted = [Subscription("me", ("a", "b"), "crew", "SELECT * FROM a")]
    machine.connected()
    assert machine.frames_to_send() == wanted
    machine.receive(READY)
    assert machine.events() == [Opened({"a": A})]
    machine.lost(LOSS)
    machine.connected()
    assert machine.frames_to_send() == wanted


def test_events_are_delivered_in_order_and_answered():
    """Events come out as they came in; acks and nacks go out under the event's id."""
    machine = SubscribeProtocol("me", ())
    machine.connected()
    machine.receive(READY)
    machine.events()
    machine.frames_to_send()
    deliveries = [Delivery(bytes([n]) * 10, A, b"payload") for n in range(3)]
    for delivery in deliveries:
        machine.receive(delivery)
    assert machine.events() == [Delivered(delivery) for delivery in deliveries]
    machine.ack(deliveries[0].id)
    machine.nack(deliveries[1].id, 104)
    assert machine.frames_to_send() == [Ack(deliveries[0].id), Nack(deliveries[1].id, 104)]


def test_answers_without_a_connection_are_dropped_and_counted():
    """An ack never goes to another connection than one that is open."""
    machine = SubscribeProtocol("me", ())
    machine.ack(b"early")
    machine.connected()
    machine.frames_to_send()
    machine.ack(b"too early")
    machine.receive(READY)
    machine.ack(b"in time")
    machine.lost(LOSS)
    machine.nack(b"late", 100)
    machine.connected()
    machine.receive(READY)
    assert [type(frame) for frame in machine.frames_to_send()] == [Subscription]
    assert machine.dropped_answers == 3


def test_closing_forgets_what_still_arrives():
    """After close nothing is delivered, and a second close says nothing."""
    machine = SubscribeProtocol("me", ())
    machine.connected()
    machine.receive(READY)
    machine.events()
    machine.close()
    assert machine.events() == [Ended(None)]
    machine.receive(Delivery(b"x" * 10, A, b"payload"))
    machine.receive(READY)
    machine.lost(LOSS)
    machine.fail(LOSS)
    machine.connected()
    machine.close()
    assert machine.events() == []
    assert machine.state is State.CLOSED
    assert machine.failure is None


def test_failing_ends_with_the_error():
    """A failure is told once, with its cause."""
    machine = SubscribeProtocol("me", ())
    machine.fail(LOSS)
    assert machine.events() == [Ended(LOSS)]
    assert machine.failure is LOSS
    machine.close()
    assert machine.state is State.FAILED
