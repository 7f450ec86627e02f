"""A connection that is open and dead: what it carries is swallowed for ever, and nobody is told.

A firewall or a load balancer does that which forgets a connection. A new connection is as good as any.
"""

import contextlib
import time

import pytest

from ensign_sync import EnsignTimeoutError, PublishTimeoutError
from ensign_sync.node import Node
from ensign_sync.transport.liveness import Liveness
from tests.load import LIMIT
from tests.proxy import Proxy, far
from tests.waiting import eventually

#: Short, so that little time is needed; what has to be noticed is noticed after any.
HEARTBEAT = 0.4


def data(node):
    """Return what a node has, in order."""
    return [event.data for event in node.events("weather")]


@pytest.fixture
def client(node, proxy):
    """A client on the other side of a network."""
    with far(node, proxy, heartbeat=HEARTBEAT, timeout=LIMIT) as connected:
        yield connected


@pytest.fixture
def believing(monkeypatch):
    """Switch the asking off: whatever is silent is believed to live."""
    monkeypatch.setattr(Liveness, "check", lambda *args: True)


def test_publishing(node, proxy, client):
    """What is published is sent again on a new connection, in order; the old one has gone."""
    client.publish("weather", b"before")
    assert proxy.deaden() == 1
    futures = [client.submit("weather", b"%d" % number) for number in range(10)]
    for future in futures:
        future.result(LIMIT)
    client.publish("weather", b"after")
    assert data(node) == [b"before", *(b"%d" % number for number in range(10)), b"after"]
    assert "open and dead" in client.stats()["last_error"]
    assert proxy.accepted >= 2
    eventually(lambda: proxy.open == 1)


@pytest.mark.ends
def test_publishing_control(proxy, client, believing):
    """Without it, nothing comes."""
    client.publish("weather", b"before")
    proxy.deaden()
    with pytest.raises(PublishTimeoutError):
        client.publish("weather", b"lost", timeout=10 * HEARTBEAT)
    assert proxy.accepted == 1


def test_a_call_that_gives_up(proxy, client, monkeypatch):
    """It has the connection checked, so that the next one need not wait for a heartbeat."""
    client.publish("weather", b"before")
    monkeypatch.setattr(client._connection.liveness, "_shortest", 0.2)
    client._connection._publisher.forsake()
    proxy.deaden()
    with pytest.raises(PublishTimeoutError):
        client.publish("weather", b"lost", timeout=0.1)
    client.publish("weather", b"after", timeout=LIMIT)
    assert proxy.accepted >= 2


def test_a_subscription(node, proxy, client):
    """It goes on, without a hole."""
    with client.subscribe("weather") as subscription, node.client() as near:
        near.publish("weather", b"before")
        assert subscription.get(LIMIT).data == b"before"
        proxy.deaden()
        near.publish("weather", [b"1", b"2", b"3"])
        assert [subscription.get(LIMIT).data for _ in range(3)] == [b"1", b"2", b"3"]
        assert proxy.accepted >= 2
        assert subscription.stats()["gaps"] == 0


@pytest.mark.ends
def test_a_subscription_control(node, proxy, client, believing):
    """Without it, nothing comes."""
    with client.subscribe("weather") as subscription, node.client() as near:
        proxy.deaden()
        near.publish("weather", b"1")
        assert subscription.get_batch(1, 10 * HEARTBEAT) == []


def test_a_subscription_whose_key_may_not_list_topics(node, proxy, client):
    """It asks for the status instead, which anybody may."""
    with client.subscribe("weather") as subscription, node.client() as near:
        subscription._stream.healing._meanings._may_ask = False  # as after a refusal
        proxy.deaden()
        near.publish("weather", b"1")
        assert subscription.get(LIMIT).data == b"1"
        assert proxy.accepted >= 2


def test_a_member_of_a_group():
    """The stream of a group is not healed from the log, but it is not left dead either."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(Node(topics=["weather"], strict=False))
        proxy = stack.enter_context(Proxy(node.endpoint))
        client, near = (stack.enter_context(one) for one in (far(node, proxy, heartbeat=HEARTBEAT), node.client()))
        member = stack.enter_context(client.subscribe("weather", consumer_group="crew"))
        proxy.deaden()
        near.publish("weather", b"1")
        assert member.get(LIMIT).data == b"1"
        assert proxy.accepted >= 2


def test_everything_of_a_client(node, proxy, client):
    """Publisher, subscriptions and calls share the connection: one of them notices, and all go on."""
    with client.subscribe("weather") as one, client.subscribe("weather") as other:
        client.publish("weather", b"before")
        proxy.deaden()
        client.publish("weather", b"after")
        for subscription in (one, other):
            assert [subscription.get(LIMIT).data for _ in range(2)] == [b"before", b"after"]
        assert [topic.name for topic in client.get_topics()] == ["weather"]
        assert proxy.accepted >= 2


def test_a_single_call(proxy, client):
    """One that was not answered in its time has the connection checked, so a later one is answered."""
    client.get_topics()
    proxy.deaden()
    with pytest.raises(EnsignTimeoutError, match="got no answer"):
        client.ping(timeout=0.2)
    assert client.ping(timeout=LIMIT).version
    assert proxy.accepted >= 2


def test_a_call_meanwhile(proxy, client):
    """One that waits for its answer on a connection that is replaced is made again on the new one."""
    client.publish("weather", b"before")
    proxy.deaden()
    client.submit("weather", b"1")  # whose silence is noticed
    assert [topic.name for topic in client.get_topics()] == ["weather"]
    assert proxy.accepted >= 2


def test_a_query(proxy, client):
    """One that gives up has the connection checked."""
    client.publish("weather", b"before")
    client._connection._publisher.forsake()
    proxy.deaden()
    with pytest.raises(EnsignTimeoutError):
        client.query("SELECT * FROM weather", timeout=0.2)
    assert [event.data for event in client.query("SELECT * FROM weather")] == [b"before"]
    assert proxy.accepted >= 2


def test_a_server_that_is_asked_and_answers(node, proxy, client):
    """A stream on which an answer is due that never comes is opened anew, and the connection stays."""
    client.publish("weather", b"before")
    client._connection.liveness._shortest = LIMIT  # as long as it takes on a machine that has much to do
    node.faults.drop_acks(1)
    client.submit("weather", b"1").result(LIMIT)
    assert data(node) == [b"before", b"1", b"1"]
    assert "the server answers" in client.stats()["last_error"]
    assert proxy.accepted == 1


def test_a_server_that_has_nothing_to_say(node, proxy, client):
    """Silence alone ends nothing: the same connection and the same streams go on."""
    with client.subscribe("weather") as subscription:
        client.publish("weather", b"before")
        assert subscription.get(LIMIT).data == b"before"
        client._connection.liveness._shortest = LIMIT  # as above
        asked_at = subscription._stream.healing._meanings._asked_at
        eventually(lambda: subscription._stream.healing._meanings._asked_at > asked_at + 4 * HEARTBEAT)
        client.publish("weather", b"after")
        assert subscription.get(LIMIT).data == b"after"
        stats = client.stats()
        assert (proxy.accepted, stats["reconnects"], stats["last_error"]) == (1, 0, None)


def test_closing(node, proxy, client):
    """close() waits for what is pending, and a new connection is made for that."""
    client.publish("weather", b"before")
    proxy.deaden()
    future = client.submit("weather", b"1")
    client.close(LIMIT)
    assert future.result(0).id
    assert data(node) == [b"before", b"1"]


def test_closing_while_it_is_checked(proxy, client, monkeypatch):
    """close() does not wait for an answer that does not come."""
    client.publish("weather", b"before")
    monkeypatch.setattr(client._connection.liveness, "_shortest", LIMIT)
    proxy.deaden()
    client.submit("weather", b"1")
    eventually(lambda: client._connection.liveness._call is not None)
    began = time.monotonic()
    client.close(0.2)
    assert time.monotonic() - began < LIMIT / 2


def test_a_process_that_stood_still(proxy, client, monkeypatch):
    """An answer that it could not see in time proves nothing: it asks again, and keeps the connection."""
    client.publish("weather", b"before")
    liveness = client._connection.liveness
    asked = []

    def answers(seconds):
        asked.append(time.monotonic())
        if len(asked) == 1:
            client._connection.liveness._now = lambda: time.monotonic() + 100  # as after a stop of the process
            return False
        return True

    monkeypatch.setattr(liveness, "_answers", answers)
    assert liveness.check(time.monotonic())
    assert len(asked) == 2
    assert proxy.accepted == 1
