"""Promise 1: what publish() accepted is stored, or named in an error."""

import threading

import pytest

from ensign_sync import (
    ClientClosedError,
    Ensign,
    EnsignTimeoutError,
    Event,
    EventTooLargeError,
    NackError,
    PublishError,
    PublishTimeoutError,
    UnknownTopicError,
    from_object,
)
from ensign_sync.events import EventState
from tests.proxy import far
from tests.size import by_size
from tests.waiting import eventually


def texts(node, topic="weather"):
    """Return the data of a topic's log."""
    return [event.data for event in node.events(topic)]


def numbered(count):
    """Return so many events that can be told apart."""
    return [str(n).encode() for n in range(count)]


def failure_of(client, topic, events):
    """Publish, and return the error that it fails with."""
    with pytest.raises(PublishError) as caught:
        client.publish(topic, events)
    return caught.value


@pytest.fixture
def far_client(node, proxy):
    """A client behind that network."""
    with far(node, proxy) as connected:
        yield connected


class TestPublish:
    """The blocking call."""

    def test_returns_the_acks_in_order_when_stored(self, node, client):
        """publish() returns one Ack per event, in order, and the events are in the log by then."""
        acks = client.publish("weather", *numbered(10))
        assert texts(node) == numbered(10)
        assert len({ack.id for ack in acks}) == 10
        assert [ack.id for ack in acks] == sorted(ack.id for ack in acks)
        assert all(ack.committed.seconds > 1_600_000_000 for ack in acks)

    def test_marks_the_events(self, client):
        """After publishing an event knows its local id, its commit time and its state."""
        event = Event(b"x", "text/plain", meta={"k": "v"})
        (ack,) = client.publish("weather", event)
        assert (event.id, event.committed, event.state) == (ack.id, ack.committed, EventState.ACKED)
        assert event.acked() and event.published() and not event.nacked()
        assert event.wait_for_ack() == ack

    def test_marks_what_was_submitted(self, node, client):
        """A submitted event is published from then on, and can be waited for; one that was not accepted is not."""
        client.publish("weather", b"first")
        for _ in range(50):
            event = Event(b"x")
            future = client.submit("weather", event)
            assert event.published()
            assert event.wait_for_ack(60) == future.result(60)
        node.faults.nack_next(1)
        refused = Event(b"x")
        client.submit("weather", refused)
        with pytest.raises(NackError):
            refused.wait_for_ack(60)
        unknown = Event(b"x")
        with pytest.raises(UnknownTopicError):
            client.submit("nothing", unknown)
        assert not unknown.published()

    @pytest.mark.parametrize("wrap", [list, tuple, iter], ids=["list", "tuple", "iterator"])
    def test_spreads_a_single_collection(self, node, client, wrap):
        """A single list, tuple or iterator is spread."""
        assert len(client.publish("weather", wrap(numbered(5)))) == 5
        assert texts(node) == numbered(5)

    def test_converts_objects(self, node, client):
        """bytes, str and JSON-able objects become events."""
        client.publish("weather", b"raw", "text", {"a": 1}, from_object([1, 2]))
        assert [event.decode() for event in node.events("weather")] == [b"raw", "text", {"a": 1}, [1, 2]]

    def test_by_topic_id(self, node, client):
        """A topic can be named by its id."""
        client.publish(client.topic_id("weather"), b"x")
        assert texts(node) == [b"x"]

    def test_the_same_event_twice_is_two_events(self, node, client):
        """Publishing an event again stores another one."""
        event = Event(b"x")
        client.publish("weather", event, event)
        client.publish("weather", event)
        assert texts(node) == [b"x"] * 3

    def test_more_than_the_window(self, node):
        """A list far longer than the window passes through it."""
        with node.client(max_in_flight=3) as small:
            small.publish("weather", numbered(200))
        assert texts(node) == numbered(200)

    def test_everything_of_an_event_arrives(self, node, client):
        """Data, mimetype, schema, metadata and time of making are stored as they were."""
        event = Event(b"\x00\xff", "application/msgpack", "Reading", "1.2.3-beta+7", {"a": "b", "ü": "ß"})
        client.publish("weather", event)
        (stored,) = node.events("weather")
        assert (stored.data, stored.mimetype, stored.meta) == (event.data, event.mimetype, event.meta)
        assert str(stored.type) == "Reading v1.2.3"
        assert stored.created == event.created
        assert stored.created.nanos == event.created.nanos

    def test_callbacks_run_here_before_it_returns(self, client):
        """on_ack is called in the calling thread, once per event; what it raises changes nothing."""
        seen = []

        def on_ack(ack):
            seen.append((ack.id, threading.current_thread()))
            raise ValueError("a callback of no use")

        acks = client.publish("weather", *numbered(3), on_ack=on_ack)
        assert seen == [(ack.id, threading.current_thread()) for ack in acks]

    def test_ensure_exists_makes_the_topic(self, node, client):
        """ensure_exists=True makes a missing topic and leaves an existing one alone."""
        client.publish("fresh", b"1", ensure_exists=True)
        client.publish("fresh", b"2", ensure_exists=True)
        assert texts(node, "fresh") == [b"1", b"2"]

    def test_a_topic_made_later_is_found(self, node, client):
        """A topic that another client made after the stream opened can be published to, and nothing is lost."""
        client.publish("weather", b"before")
        with node.client() as other:
            other.create_topic("later")
        futures = [client.submit("weather", payload) for payload in numbered(50)]
        client.publish("later", b"x")
        assert texts(node, "later") == [b"x"]
        assert [future.result(30).committed is not None for future in futures] == [True] * 50
        assert texts(node) == [b"before", *numbered(50)]

    def test_sixteen_threads_share_a_client(self, node, client):
        """Any thread may publish; each keeps its own order."""

        def work(name):
            for n in range(by_size(10, 10, 50, 500)):
                client.publish("weather", f"{name}-{n}".encode())

        threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        stored = texts(node)
        assert len(stored) == 16 * by_size(10, 10, 50, 500)
        for name in range(16):
            mine = [int(text.split(b"-")[1]) for text in stored if text.startswith(f"{name}-".encode())]
            assert mine == sorted(mine)


class TestRefusals:
    """What cannot be sent, or is not taken."""

    def test_bad_events_refuse_the_whole_call(self, node, client):
        """One bad event among good ones: its maker is told, and nothing was sent."""
        for bad, error in [(b"", ValueError), ("", ValueError), (object(), TypeError), (b"x" * 5_000_000, ValueError)]:
            with pytest.raises(error):
                client.publish("weather", b"good", bad, b"good")
        assert texts(node) == []
        client.publish("weather", b"good")
        assert texts(node) == [b"good"]

    def test_too_large_says_how_much_is_allowed(self, node, client):
        """An event that no request may carry is refused here, with size and limit; others are unharmed."""
        future = client.submit("weather", b"first")
        with pytest.raises(EventTooLargeError) as caught:
            client.publish("weather", b"x" * (5 * 2**20))
        assert caught.value.limit == 4 * 2**20 - 1024
        assert "5242" in str(caught.value)
        client.publish("weather", b"x" * (4 * 2**20 - 2000))
        assert future.result(30)
        assert [len(text) for text in texts(node)] == [5, 4 * 2**20 - 2000]

    def test_unknown_topics_are_named(self, client):
        """An unknown topic is an error that names it, before and after the stream is open."""
        for _ in range(2):
            with pytest.raises(UnknownTopicError, match="nowhere"):
                client.publish("nowhere", b"x")
            client.publish("weather", b"x")

    def test_a_project_without_topics(self):
        """Where there is no topic at all the error names the one that was wanted."""
        with Ensign(endpoint="embedded:") as client, pytest.raises(UnknownTopicError, match="nowhere"):
            client.publish("nowhere", b"x")

    def test_nothing_to_publish(self, client):
        """No topic and no events are errors of the caller."""
        for events in ((), ([],), (iter([]),)):
            with pytest.raises(ValueError, match="no events"):
                client.publish("weather", *events)
        with pytest.raises(ValueError, match="topic is required"):
            client.publish("", b"x")
        with pytest.raises(TypeError, match="expected type 'str'"):
            client.publish(7, b"x")

    def test_after_close(self, node):
        """A closed client says so, at once."""
        client = node.client()
        client.publish("weather", b"x")
        client.close()
        for call in (client.publish, client.submit):
            with pytest.raises(ClientClosedError):
                call("weather", b"x")
        client.close()

    def test_what_the_server_refuses(self, node, client):
        """A refusal raises NackError, and on_nack takes it instead."""
        client.publish("weather", b"x")
        node.faults.nack_next(3, 4)
        with pytest.raises(NackError) as caught:
            client.publish("weather", b"1", b"2")
        assert caught.value.code == 4
        assert [index for index, _, _ in caught.value.failures] == [0, 1]
        nacks = []
        assert client.publish("weather", b"3", on_nack=nacks.append) == [None]
        assert [nack.code for nack in nacks] == [4]
        assert [event.data for event in node.events("weather")] == [b"x"]


class TestPublishFrom:
    """Streams of any length."""

    def test_counts_what_was_acknowledged(self, node, client):
        """The number acknowledged comes back, and the order is kept."""
        seen = []
        assert client.publish_from("weather", (n for n in numbered(1000)), on_ack=seen.append) == 1000
        assert texts(node) == numbered(1000)
        assert len(seen) == 1000

    def test_stops_at_the_first_failure(self, node, client):
        """A bad item stops it; the items before it are stored, and its index comes first."""
        items = [*numbered(7), "", *numbered(3)]
        with pytest.raises(PublishError) as caught:
            client.publish_from("weather", items)
        assert caught.value.failures[0][0] == 7
        assert texts(node) == numbered(7)

    def test_an_iterator_that_raises(self, node, client):
        """What the caller's iterator raises comes out, after the items before it were stored."""

        def items():
            yield from numbered(5)
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            client.publish_from("weather", items())
        assert texts(node) == numbered(5)

    def test_a_slow_iterator(self, node):
        """The time that the caller's iterator takes does not count against the server."""
        waited = threading.Event()

        def items():
            yield b"one"
            waited.wait(0.6)
            yield b"two"

        with node.client(timeout=0.3) as client:
            assert client.publish_from("weather", items()) == 2

    def test_nothing(self, client):
        """An empty iterable is no error here."""
        assert client.publish_from("weather", []) == 0


class TestSubmit:
    """Futures."""

    def test_a_future_of_the_ack(self, node, client):
        """submit() returns a future of the Ack that cannot be cancelled."""
        event = Event(b"x")
        future = client.submit("weather", event)
        assert not future.cancel()
        ack = future.result(30)
        assert event.wait_for_ack(30).id == ack.id == event.id
        assert texts(node) == [b"x"]

    def test_callbacks_run_on_a_thread_of_their_own(self, client):
        """A done-callback may publish and flush; it runs neither here nor on the reader."""
        done = threading.Event()
        names = []

        def again(future):
            names.append(threading.current_thread().name)
            client.publish("weather", b"again")
            client.flush()
            done.set()

        client.submit("weather", b"x").add_done_callback(again)
        assert done.wait(30)
        assert names[0].startswith("ensign-callbacks-")

    def test_flush_waits_for_acks(self, node, client):
        """After flush() every submitted event is acknowledged."""
        futures = [client.submit("weather", payload) for payload in numbered(300)]
        client.flush(30)
        assert all(future.done() for future in futures)
        assert texts(node) == numbered(300)

    def test_close_waits_for_acks(self, node):
        """Leaving the block waits for what was submitted."""
        with node.client() as client:
            futures = [client.submit("weather", payload) for payload in numbered(300)]
        assert [future.result(0).committed is not None for future in futures] == [True] * 300
        assert texts(node) == numbered(300)


class TestLoss:
    """Connections that die."""

    def test_twenty_cuts_while_two_thousand_events_are_published(self, node, proxy, far_client):
        """All are acknowledged, in order, and none is missing from the log; duplicates are counted."""
        count, cuts = 2000, 20
        struck = []
        done = threading.Event()

        def acked():
            return far_client.stats()["acked"]

        def cut():
            while not done.is_set() and len(struck) < cuts:
                before = acked()
                # The next cut comes when something was acknowledged since the last, so that each strikes a live line.
                while not done.is_set() and acked() < min(count - 1, before + count // cuts // 2):
                    done.wait(0.002)
                struck.append(proxy.cut_connections())

        cutter = threading.Thread(target=cut)
        cutter.start()
        acks = []
        try:
            for start in range(0, count, 50):
                acks += far_client.publish("weather", numbered(count)[start : start + 50])
        finally:
            done.set()
            cutter.join(60)
        stored = [int(text) for text in texts(node)]
        assert len(acks) == count
        assert sorted(set(stored)) == list(range(count)), "none is missing"
        first = [stored.index(n) for n in range(count)]
        assert first == sorted(first), "in order"
        stats = far_client.stats()
        assert sum(struck) >= cuts // 2, f"the cuts did not strike: {struck}"
        assert len(stored) - count <= stats["resent"]
        print(f"cut {sum(struck)} connections, {stats['resent']} sent again, {len(stored) - count} stored twice")

    def test_without_resending_the_same_cuts_lose_events(self, node, proxy):
        """The control: with resend=False a cut fails what was on its way, so the test above can fail."""
        with Ensign(
            node.client_id,
            node.client_secret,
            endpoint=proxy.endpoint,
            insecure=True,
            auth_url=node.auth_url,
            resend=False,
        ) as client:
            client.publish("weather", b"x")
            proxy.black_hole()
            futures = [client.submit("weather", payload) for payload in numbered(20)]
            proxy.cut_connections()
            proxy.black_hole(False)
            failed = [future for future in futures if future.exception(30) is not None]
            assert len(failed) == 20
            assert all(future.exception().sent for future in failed)
            client.publish("weather", b"y")  # over a connection that there is again
            proxy.black_hole()
            publishing = threading.Thread(target=lambda: caught.append(failure_of(client, "weather", numbered(3))))
            caught = []
            publishing.start()
            eventually(lambda: client.stats()["in_flight"] == 3)
            proxy.cut_connections()
            proxy.black_hole(False)
            publishing.join(60)
            assert "3 may have been stored, 0 were not stored" in str(caught[0])
            assert [error.sent for _, _, error in caught[0].failures] == [True] * 3
        assert texts(node) == [b"x", b"y"]

    def test_events_wait_for_a_server_that_is_away(self, node, proxy, far_client):
        """Events submitted during an outage are stored after it."""
        far_client.publish("weather", b"before")
        proxy.refuse()
        proxy.cut_connections()
        futures = [far_client.submit("weather", payload) for payload in numbered(20)]
        with pytest.raises(EnsignTimeoutError, match="20 events"):
            far_client.flush(0.2)
        proxy.refuse(False)
        assert all(future.result(60) for future in futures)
        assert texts(node) == [b"before", *numbered(20)]

    def test_a_timeout_says_what_became_of_each_event(self, node, proxy):
        """Sent events may have been stored, others never left; and none of them is sent later."""
        with Ensign(
            node.client_id,
            node.client_secret,
            endpoint=proxy.endpoint,
            insecure=True,
            auth_url=node.auth_url,
            max_in_flight=3,
        ) as client:
            client.publish("weather", b"before")
            proxy.black_hole()
            with pytest.raises(PublishTimeoutError) as caught:
                client.publish("weather", numbered(5), timeout=0.3)
            assert [index for index, _, _ in caught.value.failures] == [0, 1, 2, 3, 4]
            assert [error.sent for _, _, error in caught.value.failures] == [True, True, True, False, False]
            assert caught.value.acks == [None] * 5
            assert isinstance(caught.value, TimeoutError)
            proxy.black_hole(False)
            proxy.cut_connections()
            client.publish("weather", b"after")
        assert texts(node) == [b"before", b"after"]

    def test_close_names_what_it_gave_up(self, node, proxy, caplog):
        """Closing with a dead line fails the futures and warns once with the count."""
        client = Ensign(
            node.client_id, node.client_secret, endpoint=proxy.endpoint, insecure=True, auth_url=node.auth_url
        )
        client.publish("weather", b"before")
        proxy.black_hole()
        futures = [client.submit("weather", payload) for payload in numbered(7)]
        client.close(0.3)
        errors = [future.exception(0) for future in futures]
        assert all(isinstance(error, PublishTimeoutError) and error.sent for error in errors)
        assert [r.getMessage() for r in caplog.records if "7 events" in r.getMessage()] != []

    def test_hooks_tell_of_an_outage(self, node, proxy):
        """on_disconnect and on_reconnect are called, with role and error, on a thread of callbacks."""
        lost, back, names = [], threading.Event(), []

        def on_disconnect(outage):
            lost.append(outage)
            names.append(threading.current_thread().name)

        with Ensign(
            node.client_id,
            node.client_secret,
            endpoint=proxy.endpoint,
            insecure=True,
            auth_url=node.auth_url,
            on_disconnect=on_disconnect,
            on_reconnect=lambda outage: back.set(),
        ) as client:
            client.publish("weather", b"x")
            proxy.cut_connections()
            assert back.wait(30)
        assert lost[0].role == "publisher"
        assert lost[0].topics == ["weather"]
        assert lost[0].error is not None
        assert names[0].startswith("ensign-callbacks-")
