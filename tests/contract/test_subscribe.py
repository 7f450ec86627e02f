"""Subscriptions: live events, in order, to whoever asks."""

import logging
import queue
import threading

import pytest

from ensign_sync import ClientClosedError, EnsignClientClosingError, UnknownTopicError
from ensign_sync.events import EventState
from ensign_sync.exceptions import CouldNotAck
from ensign_sync.ids import RLID
from ensign_sync.nack import UNPROCESSED
from tests.waiting import eventually


def numbered(count):
    """Return so many events that can be told apart."""
    return [str(n).encode() for n in range(count)]


def take(subscription, count):
    """Return the data of the next events."""
    return [subscription.get(30).data for _ in range(count)]


def test_events_after_subscribe_arrive_in_order(client):
    """Whatever is published after subscribe() returned arrives once and in order."""
    with client.subscribe("weather") as sub:
        client.publish("weather", numbered(500))
        assert take(sub, 500) == numbered(500)
        with pytest.raises(queue.Empty):
            sub.get_nowait()


def test_a_received_event_knows_where_it_comes_from(client):
    """Id, topic, commit time and state are there; the id is an RLID."""
    with client.subscribe("weather") as sub:
        (ack,) = client.publish("weather", b"x")
        event = sub.get(30)
    assert isinstance(event.id, RLID)
    assert event.topic == "weather"
    assert event.committed == ack.committed
    assert event.state is EventState.SUBSCRIBED


def test_iteration_acknowledges_when_the_next_is_asked_for(client):
    """auto_ack: the event before is acknowledged by asking for the next, an exception leaves it open."""
    sub = client.subscribe("weather")
    client.publish("weather", numbered(3))
    seen = []
    with pytest.raises(KeyError):
        for event in sub:
            seen.append(event)
            if len(seen) == 3:
                raise KeyError("mine")
    assert [event.state for event in seen] == [EventState.ACKED, EventState.ACKED, EventState.SUBSCRIBED]
    assert sub.stats()["acked"] == 2
    sub.close()


def test_an_answer_by_hand_comes_first_and_wins(client):
    """ack() and nack() by hand are not overwritten, by each other or by iteration."""
    with client.subscribe("weather") as sub:
        client.publish("weather", numbered(3))
        first, second = next(sub), next(sub)
        assert first.acked()
        assert second.nack(UNPROCESSED) and second.nacked()
        assert not second.ack()
        third = next(sub)
        assert third.ack() and third.ack() and not third.nack()
        assert second.nacked()
        assert (sub.stats()["acked"], sub.stats()["nacked"]) == (2, 1)


def test_without_auto_ack(client):
    """auto_ack=False leaves every answer to the program."""
    with client.subscribe("weather", auto_ack=False) as sub:
        client.publish("weather", numbered(2))
        first, _ = next(sub), next(sub)
        assert not first.acked()
        assert sub.ack(first)
        assert first.acked()


def test_getting(client):
    """get, get_nowait and get_batch take what there is, and wait no longer than they are told."""
    with client.subscribe("weather") as sub:
        with pytest.raises(queue.Empty):
            sub.get(0.05)
        assert sub.get_batch(10, 0.05) == []
        client.publish("weather", numbered(5))
        batch = sub.get_batch(3, 30)
        assert 1 <= len(batch) <= 3
        rest = take(sub, 5 - len(batch))
        assert [event.data for event in batch] + rest == numbered(5)
        with pytest.raises(CouldNotAck):
            batch[0].wait_for_ack()


def test_several_topics_and_all_topics(node, client):
    """A subscription names topics by name or id, as arguments or a list; none means all there are."""
    ids = {name: client.create_topic(name) for name in ("a", "b")}
    with client.subscribe("a", ids["b"]) as two, client.subscribe(["a"]) as one, client.subscribe() as everything:
        assert two.topics == ids
        for topic in ("weather", "a", "b"):
            client.publish(topic, topic)
        # The order is that of each topic, not that between topics.
        assert sorted(take(two, 2)) == [b"a", b"b"]
        assert take(one, 1) == [b"a"]
        assert sorted(take(everything, 3)) == [b"a", b"b", b"weather"]


def test_unknown_topics_are_named(client):
    """All that is unknown is named, and the client goes on."""
    with pytest.raises(UnknownTopicError, match=r"no1, no2"):
        client.subscribe("no1", "weather", "no2")
    with client.subscribe("weather") as sub:
        client.publish("weather", b"x")
        assert take(sub, 1) == [b"x"]


def test_threads_share_a_subscription(client):
    """Each event goes to exactly one of the threads that iterate."""
    sub = client.subscribe("weather")
    got = []

    def work():
        for event in sub:
            got.append(event.data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with client.subscribe("weather") as other:
        client.publish("weather", numbered(200))
        take(other, 200)
        done = threading.Event()
        while len(got) < 200 and not done.wait(0.01):
            assert any(thread.is_alive() for thread in threads)
    sub.close()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == sorted(numbered(200))


def test_closing_ends_iteration_and_get(client):
    """close() from another thread ends a waiting loop; get() then raises; what was buffered is dropped."""
    sub = client.subscribe("weather")
    seen = []
    looping = threading.Thread(target=lambda: seen.extend(sub))
    looping.start()
    sub.close()
    sub.close()
    looping.join(30)
    assert not looping.is_alive()
    with pytest.raises(EnsignClientClosingError):
        sub.get(1)
    assert list(sub) == []


def test_closing_the_client_ends_its_subscriptions(node):
    """A loop in another thread ends with the client, and no thread stays."""
    client = node.client()
    sub = client.subscribe("weather")
    looping = threading.Thread(target=lambda: list(sub))
    looping.start()
    client.close()
    looping.join(30)
    assert not looping.is_alive()
    with pytest.raises(ClientClosedError):
        client.subscribe("weather")


def test_a_slow_reader_with_a_small_buffer_gets_everything(client, caplog):
    """What does not fit is read from the log later, which is told once, and nothing is lost."""
    caplog.set_level(logging.INFO)
    with client.subscribe("weather", max_buffered=5) as sub:
        client.publish("weather", numbered(300))
        eventually(lambda: sub.stats()["behind"] == ["weather"])
        assert take(sub, 300) == numbered(300)
    assert len([record for record in caplog.records if "is full" in record.getMessage()]) == 1


def test_events_of_any_content_are_delivered(node, client):
    """What is no event, or has a mimetype without name, arrives as data and ends nothing."""
    from ensign_sync.protocol.frames import OpenStream, Publication
    from ensign_sync.wire import codec, methods

    with client.subscribe("weather") as sub:
        topic_id = next(topic.id for topic in client.get_topics() if topic.name == "weather")
        channel = client._connected().channel()
        metadata, _ = client._connected().unary.metadata()
        payloads = [b"", b"\xff\xff", b"\x20\xe7\x07\x12\x01x"]
        frames = [OpenStream("raw")] + [
            Publication(topic_id.bytes, bytes([n]) * 16, payload) for n, payload in enumerate(payloads)
        ]
        delivered = threading.Event()

        def requests():
            yield from [codec.encode_publisher_frame(frame) for frame in frames]
            delivered.wait(30)

        call = channel.stream_stream(methods.PUBLISH.path)(requests(), metadata=metadata)
        events = [sub.get(30) for _ in payloads]
        delivered.set()
        assert len(list(call)) == 5
    assert [event.data for event in events] == [b"", b"\xff\xff", b"x"]
    assert [int(event.mimetype) for event in events] == [0, 0, 999]
    assert all(str(event) for event in events)
