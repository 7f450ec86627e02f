"""Every cell of the transition tables: the legal ones lead where the table says, the others raise one error."""

import itertools

import pytest

from ensign_sync.exceptions import EnsignError, ProtocolError
from ensign_sync.ids import ULID
from ensign_sync.protocol import publish_stream, subscribe_stream
from ensign_sync.protocol.frames import Ack, CloseStream, Delivery, Keyed, Made, Nack, Ready, Unknown
from ensign_sync.protocol.machine import Input, State, stream_ended
from ensign_sync.protocol.publish_stream import PublishProtocol
from ensign_sync.protocol.subscribe_stream import SubscribeProtocol
from tests.tables import each

TOPIC = "weather"
TOPIC_ID = ULID("01HFQX2V7Z8Q3M5N6P7R8S9T0V").bytes
READY = Ready("client", "server", {TOPIC: TOPIC_ID})
LOSS = EnsignError("the line went dead")
KEYED = Keyed((b"payload",), b"key", Made())


def publisher_in(state, pending):
    """Bring a publisher into a state, by nothing but its doors; returns it and the id of a pending event."""
    machine = PublishProtocol("client", bytes(16))
    if state is State.CHECKING:
        return checking_publisher(machine, pending)
    if state in (State.OPENING, State.OPEN, State.DRAINING, State.CLOSING):
        machine.connected()
    if state in (State.OPEN, State.DRAINING, State.CLOSING):
        machine.receive(READY)
    id = b"none"
    if pending and state not in (State.CLOSING, State.CLOSED, State.FAILED):
        id = machine.publish(TOPIC, b"payload", "token")
    if state is State.DRAINING:
        machine.drain()
    if state in (State.CLOSING, State.CLOSED):
        machine.close()
    if state is State.WAITING:
        machine.lost(LOSS)
    if state is State.FAILED:
        machine.fail(LOSS)
    assert machine.state is state
    machine.frames_to_send()
    machine.events()
    return machine, id


def checking_publisher(machine, pending):
    """Bring a publisher to where it waits to be told what an earlier connection stored."""
    machine.connected()
    machine.receive(READY)
    id = machine.publish(TOPIC, KEYED, "token")
    machine.lost(LOSS)
    machine.connected()
    machine.receive(READY)
    assert machine.state is State.CHECKING
    if not pending:
        machine.abandon(id)
        id = b"none"
    machine.frames_to_send()
    machine.events()
    return machine, id


PUBLISHER_INPUTS = {
    Input.PUBLISH: lambda machine, id: machine.publish(TOPIC, b"payload", "token"),
    Input.ABANDON: lambda machine, id: machine.abandon(id),
    Input.REFUSE: lambda machine, id: machine.refuse([TOPIC], LOSS),
    Input.STORED: lambda machine, id: machine.stored({id: 17}),
    Input.FOUND: lambda machine, id: machine.found_stored({}),
    Input.DRAIN: lambda machine, id: machine.drain(),
    Input.CLOSE: lambda machine, id: machine.close(),
    Input.CONNECTED: lambda machine, id: machine.connected(),
    Input.READY: lambda machine, id: machine.receive(READY),
    Input.ACK: lambda machine, id: machine.receive(Ack(id)),
    Input.NACK: lambda machine, id: machine.receive(Nack(id, 9)),
    Input.CLOSE_STREAM: lambda machine, id: machine.receive(CloseStream()),
    Input.UNKNOWN: lambda machine, id: machine.receive(Unknown()),
    Input.LOST: lambda machine, id: machine.lost(LOSS),
    Input.FAIL: lambda machine, id: machine.fail(LOSS),
}


@each("state", State, ids=lambda state: state.name)
def test_publisher_row(state):
    """A publisher takes the inputs of its table, moves where it says, and refuses all others by name."""
    for given, pending, closing in itertools.product(PUBLISHER_INPUTS, (False, True), (False, True)):
        machine, id = publisher_in(state, pending)
        if closing and pending and state not in (State.CLOSING, State.CLOSED, State.FAILED):
            machine.close()
            assert machine.state is state, "an event that is pending keeps the stream as it is"
        allowed = publish_stream.TRANSITIONS.get((state, given))
        if allowed is None or (given is Input.PUBLISH and machine.closing):
            with pytest.raises(ProtocolError) as caught:
                PUBLISHER_INPUTS[given](machine, id)
            assert "publisher" in str(caught.value)
            assert state.name in str(caught.value)
            assert given.value in str(caught.value)
            assert machine.state is state
        else:
            PUBLISHER_INPUTS[given](machine, id)
            assert machine.state in allowed, (given, pending, closing)


def subscriber_in(state):
    """Bring a subscriber into a state, by nothing but its doors."""
    machine = SubscribeProtocol("client", (TOPIC,))
    if state in (State.OPENING, State.OPEN):
        machine.connected()
    if state is State.OPEN:
        machine.receive(READY)
    if state is State.WAITING:
        machine.lost(LOSS)
    if state is State.CLOSED:
        machine.close()
    if state is State.FAILED:
        machine.fail(LOSS)
    assert machine.state is state
    machine.frames_to_send()
    machine.events()
    return machine


SUBSCRIBER_INPUTS = {
    Input.ACK: lambda machine: machine.ack(b"event"),
    Input.NACK: lambda machine: machine.nack(b"event", 100),
    Input.CLOSE: lambda machine: machine.close(),
    Input.CONNECTED: lambda machine: machine.connected(),
    Input.READY: lambda machine: machine.receive(READY),
    Input.EVENT: lambda machine: machine.receive(Delivery(b"event", TOPIC_ID, b"payload")),
    Input.UNKNOWN: lambda machine: machine.receive(Unknown()),
    Input.LOST: lambda machine: machine.lost(LOSS),
    Input.FAIL: lambda machine: machine.fail(LOSS),
}
SUBSCRIBER_STATES = [state for state in State if state not in (State.CHECKING, State.DRAINING, State.CLOSING)]


@each("state", SUBSCRIBER_STATES, ids=lambda state: state.name)
def test_subscriber_row(state):
    """A subscriber takes the inputs of its table, moves where it says, and refuses all others by name."""
    for given, give in SUBSCRIBER_INPUTS.items():
        machine = subscriber_in(state)
        allowed = subscribe_stream.TRANSITIONS.get((state, given))
        if allowed is None:
            with pytest.raises(ProtocolError, match=f"subscriber in state {state.name} cannot take {given.value}"):
                give(machine)
            assert machine.state is state
        else:
            give(machine)
            assert machine.state in allowed


def test_a_move_beside_the_table_is_an_error():
    """The tables are not only documentation: a handler that moves elsewhere raises."""
    machine = subscriber_in(State.OPEN)
    with pytest.raises(ProtocolError, match="towards IDLE"):
        machine._move(Input.LOST, State.IDLE)


def test_a_stream_that_the_server_ends_well_is_a_loss():
    """An end with status OK that nobody asked for is worth another try."""
    assert stream_ended().retriable


def test_tables_only_name_inputs_that_exist_for_the_role():
    """No row of a table is dead: each input in it can be given through a door."""
    assert {given for _, given in publish_stream.TRANSITIONS} == set(PUBLISHER_INPUTS)
    assert {given for _, given in subscribe_stream.TRANSITIONS} == set(SUBSCRIBER_INPUTS)
