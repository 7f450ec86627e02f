"""Where a subscription begins, and what becomes of it when its topics change."""

import collections
import queue
import threading
from datetime import datetime, timedelta, timezone

import pytest

from ensign_sync import RLID, EnsignRPCError, UnknownTopicError
from ensign_sync.node import Node
from ensign_sync.streams.log import Log
from tests.size import by_size
from tests.waiting import eventually

LIMIT = 30.0


def take(subscription, count):
    """Return the data of the next events."""
    return [subscription.get(LIMIT).data for _ in range(count)]


def nothing(subscription):
    """Tell whether nothing more is there, after the looks that a new stream gets."""
    with pytest.raises(queue.Empty):
        subscription.get(0.2)
    return True


def numbered(count, start=0):
    """Return so many events that can be told apart."""
    return [str(n).encode() for n in range(start, start + count)]


class TestStart:
    """The values of start."""

    def test_recent(self, node, client):
        """What this client published before is there, what others published is not; all that follows is."""
        with node.client() as other:
            other.publish("weather", b"other")
            client.publish("weather", b"mine")
            other.publish("weather", b"other")
            with client.subscribe("weather") as sub:
                other.publish("weather", b"later")
                assert take(sub, 2) == [b"mine", b"later"]
                assert nothing(sub)

    def test_recent_while_events_are_on_their_way(self, client):
        """What was submitted and is not acknowledged yet counts as well."""
        for n in range(50):
            client.submit("weather", str(n))
        with client.subscribe("weather") as sub:
            assert take(sub, 50) == numbered(50)
            assert nothing(sub)

    def test_recent_is_a_minute(self, node, client):
        """What was published longer ago by the server's clock is not there."""
        client.publish("weather", b"long ago")
        node.faults.step_clock(61)
        client.publish("weather", b"just now")
        with client.subscribe("weather") as sub:
            assert take(sub, 1) == [b"just now"]
            assert nothing(sub)

    def test_latest(self, client):
        """Nothing from before, all from after."""
        client.publish("weather", numbered(10))
        with client.subscribe("weather", start="latest") as sub:
            client.publish("weather", numbered(3, 10))
            assert take(sub, 3) == numbered(3, 10)
            assert nothing(sub)

    def test_latest_of_an_empty_topic(self, client):
        """The first event there ever is arrives."""
        with client.subscribe("weather", start="latest") as sub:
            client.publish("weather", b"first")
            assert take(sub, 1) == [b"first"]

    def test_earliest(self, client):
        """Everything."""
        client.publish("weather", numbered(10))
        with client.subscribe("weather", start="earliest") as sub:
            client.publish("weather", numbered(3, 10))
            assert take(sub, 13) == numbered(13)

    @pytest.mark.parametrize("form", [str, bytes, RLID])
    def test_an_event(self, node, client, form):
        """What follows it."""
        client.publish("weather", numbered(10))
        with client.subscribe("weather", start=form(node.events("weather")[5].id)) as sub:
            assert take(sub, 4) == numbered(4, 6)
            assert nothing(sub)

    def test_the_last_event_and_one_that_never_was(self, node, client):
        """After the last one there is nothing yet; an id need not be that of an event."""
        client.publish("weather", numbered(3))
        last = node.events("weather")[-1].id
        for id, expected in ((last, []), (RLID.of(0, 0), numbered(3)), (RLID(b"\xf0" * 10), [])):
            with client.subscribe("weather", start=id) as sub:
                assert take(sub, len(expected)) == expected
                assert nothing(sub)

    @pytest.mark.parametrize("strict", [True, False])
    def test_a_time(self, strict):
        """What was stored then or later; to the nanosecond where the server says when it was."""
        with Node(topics=["weather"], strict=strict) as node, node.client() as client:
            acks = [ack for n in range(100) for ack in client.publish("weather", str(n))]
            start = acks[50].committed
            if strict:  # its log does not say when an event was stored, so the time in the id counts
                expected = [e.data for e in node.events("weather") if e.id.milliseconds >= start.ns // 1_000_000]
            else:
                expected = [b"%d" % n for n, ack in enumerate(acks) if ack.committed >= start]
                assert expected[-50:] == numbered(50, 50)
            with client.subscribe("weather", start=start) as sub:
                assert take(sub, len(expected)) == expected
                assert nothing(sub)
            for moment, count in ((start - timedelta(days=1), 100), (datetime(1960, 1, 1, tzinfo=timezone.utc), 100)):
                with client.subscribe("weather", start=moment) as sub:
                    assert take(sub, count) == numbered(count)
            with client.subscribe("weather", start=start + timedelta(days=1)) as sub:
                assert nothing(sub)

    def test_each_topic_its_own(self, node, client):
        """A mapping, by name or by id; the others are recent."""
        ids = {name: client.create_topic(name) for name in ("a", "b", "c")}
        with node.client() as other:
            for name in ids:
                other.publish(name, [f"{name}{n}" for n in range(3)])
            after = node.events("c")[0].id
            with client.subscribe("a", "b", "c", start={"a": "earliest", "c": after}) as sub:
                had = take(sub, 5)
                assert [data for data in had if data[:1] == b"a"] == [b"a0", b"a1", b"a2"]
                assert [data for data in had if data[:1] == b"c"] == [b"c1", b"c2"]
                assert nothing(sub)
            with client.subscribe(ids["b"], start={ids["b"]: "earliest"}) as sub:
                assert take(sub, 3) == [b"b0", b"b1", b"b2"]

    def test_the_reads_are_few(self, node, client):
        """The place of an event is found in few reads, however many there are."""
        client.publish("weather", numbered(5_000))
        with client.subscribe("weather", start=node.events("weather")[3_000].id) as sub:
            assert take(sub, 1) == numbered(1, 3_001)
            assert sub.stats()["reads"] <= 2 * 13 + 3

    def test_more_than_the_buffer_before_it_returns(self, client):
        """A recent past that is larger than the buffer does not keep subscribe() from returning."""
        client.publish("weather", numbered(500))
        with client.subscribe("weather", max_buffered=10) as sub:
            assert take(sub, 500) == numbered(500)


class TestTopics:
    """Topics that come, change and go."""

    def test_made_anew(self, node, client):
        """A topic of the same name is a new one: that is told, and everything in it is delivered."""
        gaps = []
        with node.client(heartbeat=0.2) as reader, reader.subscribe("weather", on_gap=gaps.append) as sub:
            client.publish("weather", numbered(3))
            assert take(sub, 3) == numbered(3)
            client.destroy_topic("weather")
            client.create_topic("weather")
            client.publish("weather", numbered(3, 10))
            assert take(sub, 3) == numbered(3, 10)
            eventually(lambda: gaps)
        assert gaps[0].topic == "weather" and gaps[0].certain and gaps[0].after_id is not None
        assert sub.stats()["gaps"] == len(gaps) == 1

    def test_destroyed(self, node, client):
        """The end of one topic is told, and the others go on."""
        client.create_topic("other")
        gaps = []
        with node.client(heartbeat=0.2) as reader, reader.subscribe("weather", "other", on_gap=gaps.append) as sub:
            client.destroy_topic("weather")
            eventually(lambda: gaps)
            assert "destroyed" in gaps[0].reason
            client.publish("other", b"x")
            assert take(sub, 1) == [b"x"]

    def test_destroyed_and_made_anew_later(self, client, node):
        """When its name is there again, everything in it is delivered."""
        gaps = []
        with node.client(heartbeat=0.2) as reader, reader.subscribe("weather", on_gap=gaps.append) as sub:
            client.create_topic("other")  # a project without topics would end the stream
            client.destroy_topic("weather")
            eventually(lambda: gaps)
            client.create_topic("weather")
            client.publish("weather", numbered(2))
            assert take(sub, 2) == numbered(2)

    def test_a_stream_that_is_lost_while_it_opens(self, node, client, monkeypatch):
        """What came on the first one says nothing of the second, and topics may be others by then."""
        original, done = Log.leaves_duplicates_out, []

        def slow(log, timeout):
            if not done:
                done.append(client.publish("weather", b"early"))
                eventually(lambda: node.events("weather"))
                node.faults.unregister_window(1.0)
                client.create_topic("new")
                node.faults.close_streams()
                eventually(lambda: node.faults.struck.get("unregister_window"))
            return original(log, timeout)

        monkeypatch.setattr(Log, "leaves_duplicates_out", slow)
        with node.client() as reader, reader.subscribe(start="earliest") as sub:
            client.publish("weather", b"in the window")
            client.publish("new", b"of the new one")
            assert sorted(take(sub, 3)) == [b"early", b"in the window", b"of the new one"]

    def test_archived(self, client):
        """An archived topic is read like any."""
        client.publish("weather", numbered(3))
        client.archive_topic("weather")
        with client.subscribe("weather", start="earliest") as sub:
            assert take(sub, 3) == numbered(3)

    def test_made_while_somebody_subscribes(self, node, client):
        """It is unknown or known, and if known everything is there."""
        done = threading.Event()

        def make():
            client.create_topic("new")
            client.publish("new", numbered(3))
            done.set()

        thread = threading.Thread(target=make)
        thread.start()
        sub = eventually(lambda: self.subscribe(client))
        with sub:
            thread.join()
            assert take(sub, 3) == numbered(3)

    def subscribe(self, client):
        """Subscribe to a topic that may not be there yet."""
        try:
            return client.subscribe("new", start="earliest")
        except UnknownTopicError:
            return None

    def test_all_topics(self, node, client):
        """A subscription to all topics takes in those that are made later, from their first event on."""
        with node.client(heartbeat=0.2) as reader, reader.subscribe() as sub:
            client.create_topic("later")
            client.publish("later", numbered(3))
            client.publish("weather", b"x")
            had = [sub.get(LIMIT) for _ in range(4)]
        assert [event.data for event in had if event.topic == "later"] == numbered(3)

    def test_some_begin_at_the_end_while_others_have_much_to_deliver(self, client):
        """Nobody takes events before subscribe() returns, so it must not wait for that."""
        names = ["a", "b", "c"]
        for name in names:
            client.create_topic(name)
            client.publish(name, numbered(1_500))
        for before, start in enumerate(({"a": "earliest", "b": "latest"}, {"b": "earliest"}, {"c": "earliest"})):
            with client.subscribe(*names, start={"a": "latest", **start}, max_buffered=1_000) as sub:
                for name in names:
                    client.publish(name, b"live")
                had = collections.Counter(sub.get(LIMIT).topic for _ in range(1_503 + before))
                earliest = next(name for name, at in start.items() if at == "earliest")
                assert had == {name: 1_501 + before if name == earliest else 1 for name in names}

    def test_a_small_buffer_under_a_firehose(self, client, node):
        """What arrives before all topics have a beginning fills it, and subscribe() does not wait for that either."""
        names = ["a", "b", "c", "d"]
        for name in names:
            client.create_topic(name)
        stop = threading.Event()

        def publish():
            with node.client() as other:
                while not stop.is_set():
                    for name in names:
                        other.publish(name, [b"x"] * 5)

        publishing = threading.Thread(target=publish)
        publishing.start()
        try:
            for _ in range(by_size(3, 3, 10, 100)):
                with client.subscribe(*names, start="latest", max_buffered=2) as sub:
                    assert {sub.get(LIMIT).topic for _ in range(50)} <= set(names)
        finally:
            stop.set()
            publishing.join(LIMIT)

    def test_a_hundred_topics_and_twenty_subscriptions(self, node, client):
        """Each is complete, and in order."""
        names = [f"topic{n}" for n in range(100)]
        for name in names:
            client.create_topic(name)
        subs = [client.subscribe(*names, start="earliest") for _ in range(20)]
        for n in range(5):
            for name in names:
                client.submit(name, str(n))
        client.flush(LIMIT)
        for sub in subs:
            had = {name: [] for name in names}
            for _ in range(500):
                event = sub.get(LIMIT)
                had[event.topic].append(event.data)
            assert all(data == numbered(5) for data in had.values())
            sub.close()


class TestNoHealing:
    """Topics that no query can name."""

    def test_it_is_told(self, node, client, caplog):
        """Live events arrive, one warning says what cannot be had, and each possible gap is told."""
        client.create_topic("orders")
        gaps = []
        with client.subscribe("orders", on_gap=gaps.append) as sub:
            assert len([r for r in caplog.records if "no query can name the topic orders" in r.getMessage()]) == 1
            client.publish("orders", numbered(3))
            assert take(sub, 3) == numbered(3)
            assert not gaps
            node.faults.drop_connections()
            eventually(lambda: gaps)
            client.publish("orders", numbered(3))
            assert take(sub, 3) == numbered(3)
        assert [(gap.topic, gap.certain) for gap in gaps] == [("orders", False)]

    def test_a_slow_reader(self, client):
        """Nothing is dropped on our side: the stream waits."""
        client.create_topic("orders")
        with client.subscribe("orders", max_buffered=5) as sub:
            client.publish("orders", numbered(1_000))
            assert take(sub, 1_000) == numbered(1_000)

    def test_a_past_that_cannot_be_had(self, client):
        """start='earliest' tells that what was before is missing."""
        client.create_topic("orders")
        client.publish("orders", b"before")
        gaps = []
        with client.subscribe("orders", start="earliest", on_gap=gaps.append) as sub:
            client.publish("orders", b"after")
            assert take(sub, 1) == [b"after"]
            eventually(lambda: gaps)

    def test_where_the_server_takes_any_name(self):
        """A friendly node heals every topic."""
        with Node(topics=["orders", "a.b"], strict=False) as node, node.client() as client:
            client.publish("orders", numbered(3))
            client.publish("a.b", numbered(3))
            with client.subscribe("orders", "a.b", start="earliest") as sub:
                assert sorted(take(sub, 6)) == sorted(numbered(3) * 2)
                assert sub.stats()["gaps"] == 0

    def test_reads_that_fail(self, client, monkeypatch, caplog):
        """Whatever a read fails with, it is made again; somebody is told where that goes on."""
        original, failures = Log.rows, [RuntimeError("no thread"), *[EnsignRPCError("EnSQL", "INTERNAL", "full")] * 6]

        def fail(*args, **options):
            if failures:
                raise failures.pop()
            return original(*args, **options)

        monkeypatch.setattr(Log, "rows", fail)
        client.publish("weather", b"x")
        with client.subscribe("weather", start="earliest") as sub:
            assert take(sub, 1) == [b"x"]
        assert [r for r in caplog.records if "broke off" in r.getMessage() and r.levelname == "WARNING"]

    def test_queries_that_are_refused(self, client, monkeypatch):
        """After a few the log is given up, and the pauses grow meanwhile."""
        calls, gaps = [], []

        def refuse(*args, **options):
            calls.append(args)
            raise EnsignRPCError("EnSQL", "INVALID_ARGUMENT", "unknown topic in query")

        monkeypatch.setattr(Log, "rows", refuse)
        with client.subscribe("weather", start="earliest", on_gap=gaps.append) as sub:
            eventually(lambda: gaps)
            assert 2 <= len(calls) <= 6
            client.publish("weather", b"x")
            assert take(sub, 1) == [b"x"]

    def test_a_key_that_may_not_query(self, node, client, monkeypatch):
        """The same for a log that cannot be read."""

        def refuse(*args, **options):
            error = EnsignRPCError("EnSQL", "PERMISSION_DENIED", "not authorized to perform this action")
            raise error

        monkeypatch.setattr(Log, "rows", refuse)
        gaps = []
        with client.subscribe("weather", start="earliest", on_gap=gaps.append) as sub:
            eventually(lambda: gaps)
            client.publish("weather", b"x")
            assert take(sub, 1) == [b"x"]
