"""Each fault by its effect on the wire, on connections that live."""

import os
import threading
import time

import grpc
import pytest

from ensign_sync import NodeError
from ensign_sync.protocol import frames
from ensign_sync.transport import direct_call
from ensign_sync.wire import methods
from tests.node.raw import Raw, event, refusal
from tests.waiting import eventually

#: Hardly depends on the Python below it.
pytestmark = pytest.mark.ends


@pytest.fixture(params=["here", "process"])
def node(request):
    """A strict node in this process, and one in another."""
    from ensign_sync.node import Node

    with Node(topics=["weather"], process=request.param == "process") as running:
        yield running


def ids(count, start=0):
    """Return local ids."""
    return [b"%016d" % n for n in range(start, start + count)]


def test_drop_connections(node, raw):
    """Open streams break with UNAVAILABLE; the next call connects anew."""
    stream, _ = raw.publisher()
    subscriber = raw.subscriber()
    assert node.connections >= 1
    assert node.faults.drop_connections() >= 1
    for broken in (stream, subscriber):
        assert broken.rest() == []
        assert broken.status[0] == "UNAVAILABLE"
    eventually(lambda: _works(raw))
    assert node.faults.struck["drop_connections"] >= 1


def _works(raw):
    try:
        return raw.topic_id()
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        direct_call.pause(raw.channel, 0.05, threading.Event())
        return None


def test_black_hole(node, raw):
    """Nothing passes, and nothing breaks; afterwards everything that was on its way arrives."""
    stream, topics = raw.publisher()
    node.faults.black_hole(0.8)
    began = time.monotonic()
    stream.send(event(topics["weather"], b"1"))
    assert stream.nothing(0.4)
    assert isinstance(stream.take(), frames.Ack)
    assert time.monotonic() - began >= 0.7
    stream.cancel()


def test_refuse(node, raw):
    """New connections are refused for a while, and those that are open go on."""
    stream, topics = raw.publisher()
    node.faults.refuse(1.0)
    with grpc.insecure_channel(node.endpoint, [("grpc.use_local_subchannel_pool", 1)]) as other:
        call = other.unary_unary(methods.STATUS.path)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        stream.send(event(topics["weather"], b"1"))
        assert isinstance(stream.take(), frames.Ack)
        assert call(b"", timeout=30, wait_for_ready=True)
    stream.cancel()


def test_delay_acks(node, raw):
    """An ack comes so long after its time, in order; 0 ends it."""
    stream, topics = raw.publisher()
    node.faults.delay_acks(0.5)
    began = time.monotonic()
    stream.send(*(event(topics["weather"], id) for id in ids(5)))
    assert [stream.take().id for _ in range(5)] == ids(5)
    assert time.monotonic() - began >= 0.5
    node.faults.delay_acks(0)
    stream.send(event(topics["weather"], b"x"))
    assert stream.take().id == b"x"
    assert node.faults.struck["delay_acks"] == 5
    stream.cancel()


def test_drop_acks(node, raw):
    """The next acks never come; the events are stored."""
    stream, topics = raw.publisher()
    node.faults.drop_acks(2)
    stream.send(*(event(topics["weather"], id) for id in ids(3)))
    assert stream.take().id == ids(3)[2]
    assert len(node.wait_for("weather", 3)) == 3
    assert node.faults.struck["drop_acks"] == 2
    stream.cancel()


def test_nack_next(node, raw):
    """The next events are refused with the code and its text, and not stored."""
    stream, topics = raw.publisher()
    node.faults.nack_next(2, 6)
    node.faults.nack_next(1, 3)
    stream.send(*(event(topics["weather"], id) for id in ids(4)))
    answers = [stream.take() for _ in range(4)]
    assert [int(getattr(answer, "code", -1)) for answer in sorted(answers, key=lambda a: a.id)] == [6, 6, 3, -1]
    assert "could not commit event, please try again" in [getattr(answer, "error", "") for answer in answers]
    assert len(node.events("weather")) == 1
    stream.cancel()


def test_drop_events(node, raw):
    """The next events are delivered to nobody, and stand in the log."""
    subscriber = raw.subscriber()
    stream, topics = raw.publisher()
    node.faults.drop_events(3)
    stream.send(*(event(topics["weather"], id) for id in ids(5)))
    assert [stream.take().id for _ in range(5)] == ids(5)
    stored = [e.id.bytes for e in node.events("weather")]
    assert [subscriber.take().id for _ in range(2)] == stored[3:]
    assert node.faults.struck["drop_events"] == 3
    for open_stream in (stream, subscriber):
        open_stream.cancel()


def test_expire_tokens(node, raw):
    """What was issued so far is not good any more, open streams go on, and new tokens are good."""
    stream, topics = raw.publisher()
    node.faults.expire_tokens()
    assert refusal(raw, methods.LIST_TOPICS) == ("UNAUTHENTICATED", "invalid credentials")
    stream.send(event(topics["weather"], b"1"))
    assert isinstance(stream.take(), frames.Ack)
    with Raw(node) as fresh:
        assert fresh.topic_id()
    stream.cancel()


def test_close_streams(node, raw):
    """Every open stream ends with OK; a publisher is told what happened on it."""
    stream, topics = raw.publisher()
    subscriber = raw.subscriber()
    stream.send(event(topics["weather"], b"1"))
    stream.take()
    assert node.faults.close_streams() == 2
    assert [type(reply) for reply in stream.rest()] == [frames.CloseStream]
    subscriber.rest()
    assert stream.status == subscriber.status == ("OK", "")
    assert raw.topic_id()


def test_unregister_window(node, raw):
    """What is stored within so long after Ready passes unseen."""
    node.faults.unregister_window(0.7)
    subscriber = raw.subscriber()
    stream, topics = raw.publisher()
    stream.send(event(topics["weather"], b"1"))
    stream.take()
    numbers = iter(range(2, 1000))

    def seen():
        stream.send(event(topics["weather"], b"%d" % next(numbers)))
        stream.take()
        return not subscriber.nothing(0.05)

    eventually(seen)
    stored = node.events("weather")
    assert len(stored) > 2
    subscriber.cancel()
    stream.cancel()
    assert node.faults.struck["unregister_window"] == 1


def test_step_clock(node, raw):
    """Ids and times follow the clock; set back, the live order stays and the log is in the order of the ids."""
    subscriber = raw.subscriber()
    stream, topics = raw.publisher()
    for step, count in ((0, 4), (-20, 4), (20, 2)):
        if step:
            node.faults.step_clock(step)
        for id in ids(count):
            stream.send(event(topics["weather"], id))
            stream.take()
    live = [subscriber.take().id for _ in range(10)]
    assert live != sorted(live)
    assert live[4:8] == sorted(live)[:4]
    stored = [e.id.bytes for e in node.events("weather")]
    assert stored == sorted(live) == live[4:8] + live[:4] + live[8:]
    stream.cancel()
    subscriber.cancel()


def test_kill(node, raw):
    """Connections break; what was acknowledged is there after a restart, on the same ports, with the same tokens."""
    stream, topics = raw.publisher()
    stream.send(*(event(topics["weather"], id) for id in ids(100)))
    assert [stream.take().id for _ in range(100)] == ids(100)
    before = (node.endpoint, node.auth_url)
    node.faults.kill()
    stream.rest()
    assert stream.status[0] == "UNAVAILABLE"
    with pytest.raises(grpc.RpcError):
        raw(methods.STATUS)
    if node.pid != os.getpid():
        with pytest.raises(NodeError, match="restart"):
            node.events("weather")
    node.restart()
    assert (node.endpoint, node.auth_url) == before
    assert eventually(lambda: _works(raw)) == topics["weather"]
    assert len(node.events("weather")) == 100


def test_faults_can_be_ended(node, raw):
    """clear() ends what is still to strike, and forgets what did."""
    node.faults.nack_next(5)
    node.faults.delay_acks(60)
    node.faults.refuse(600)
    node.faults.black_hole(600)
    node.faults.clear()
    stream, topics = raw.publisher()
    stream.send(event(topics["weather"], b"1"))
    assert isinstance(stream.take(), frames.Ack)
    assert node.faults.struck == {}
    stream.cancel()


def test_wrong_arguments(node):
    """A negative or impossible number is refused, and says what was expected."""
    for call in (
        lambda: node.faults.black_hole(-1),
        lambda: node.faults.refuse(float("inf")),
        lambda: node.faults.delay_acks(float("nan")),
        lambda: node.faults.drop_acks(-1),
        lambda: node.faults.drop_events(1.5),
        lambda: node.faults.nack_next(True),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_without_a_relay():
    """The faults of the network need the relay, and say so; the others work."""
    from ensign_sync.node import Node

    with Node(topics=["weather"], faults=False) as node, Raw(node) as raw:
        for call in (node.faults.drop_connections, lambda: node.faults.refuse(1), lambda: node.faults.black_hole(1)):
            with pytest.raises(NodeError, match=r"faults=True"):
                call()
        stream, topics = raw.publisher()
        node.faults.nack_next(1)
        stream.send(event(topics["weather"], b"1"))
        assert isinstance(stream.take(), frames.Nack)
        assert node.connections == 1
        node.faults.kill()
        stream.rest()
        node.restart()
        eventually(lambda: _works(raw))


def test_the_client_survives_them(node):
    """Our client publishes through cuts, refusals, lost acks, closed streams and a kill."""
    with node.client(max_in_flight=64) as client:
        client.publish("weather", "first")
        for n, strike in enumerate(
            (
                node.faults.drop_connections,
                node.faults.close_streams,
                node.faults.expire_tokens,
                lambda: node.faults.refuse(0.3),
                lambda: node.faults.black_hole(0.3),
                lambda: node.faults.delay_acks(0.1),
            )
        ):
            strike()
            client.publish("weather", [f"{n}.{i}" for i in range(20)], timeout=60)
        node.faults.delay_acks(0)
        node.faults.kill()
        node.restart()
        client.publish("weather", "last", timeout=60)
    data = [e.data.decode() for e in node.events("weather")]
    assert set(data) == {"first", "last", *(f"{n}.{i}" for n in range(6) for i in range(20))}
