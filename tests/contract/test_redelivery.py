"""Refused events that come again, handlers that are run, and the small apps."""

import collections
import queue
import threading
import time

import pytest

from ensign_sync import Ensign, EnsignError, Event, InvalidQueryError, Publisher, Redeliver, Subscriber, authenticate
from ensign_sync.ensign import publisher, subscriber
from ensign_sync.exceptions import CouldNotAck
from ensign_sync.nack import DELIVER_AGAIN_ANY, DELIVER_AGAIN_NOT_ME, UNHANDLED_MIMETYPE
from ensign_sync.node import Node
from tests.waiting import eventually

LIMIT = 30.0
FAST = Redeliver(attempts=3, initial=0.01, maximum=0.05)


def numbered(count):
    """Return so many events that can be told apart."""
    return [b"%d" % n for n in range(count)]


class TestRedelivery:
    """nack() with DELIVER_AGAIN_*."""

    @pytest.mark.parametrize("wrong", [None, "x", Redeliver(0), Redeliver(-1), Redeliver(3, -1.0), Redeliver(3, "1")])
    def test_what_it_refuses(self, client, wrong):
        """It is said at once, to who gave it."""
        with pytest.raises((TypeError, ValueError), match="Redeliver"):
            client.subscribe("weather", redeliver=wrong)
        if wrong is not None:
            with client.subscribe("weather") as sub, pytest.raises((TypeError, ValueError), match="Redeliver"):
                sub.run(print, retry=wrong)

    @pytest.mark.parametrize("code", [DELIVER_AGAIN_ANY, DELIVER_AGAIN_NOT_ME])
    def test_it_comes_again_and_is_given_up(self, client, code):
        """So many times, later each time; then the program is told."""
        dead = []
        with client.subscribe("weather", redeliver=FAST, on_dead_letter=dead.append) as sub:
            client.publish("weather", numbered(2))
            first, second = sub.get(LIMIT), sub.get(LIMIT)
            assert second.ack() and first.nack(code)
            for _ in range(2):
                again = sub.get(LIMIT)
                assert again.id == first.id and again.data == b"0" and not again.nacked()
                assert again.nack(code)
            eventually(lambda: dead)
            assert dead[0].id == first.id
            with pytest.raises(queue.Empty):
                sub.get(0.2)
            stats = sub.stats()
        assert (stats["redelivered"], stats["dead"], stats["nacked"], stats["acked"]) == (2, 1, 3, 1)

    def test_later_each_time(self, client):
        """The pause grows by the factor, up to the maximum."""
        assert [Redeliver().pause(n) for n in (0, 1, 2, 10)] == [1.0, 2.0, 4.0, 60.0]
        assert Redeliver(initial=5.0, maximum=3.0, factor=1.0).pause(9) == 3.0
        with client.subscribe("weather", redeliver=Redeliver(3, 0.1)) as sub:
            client.publish("weather", b"x")
            sub.get(LIMIT).nack(DELIVER_AGAIN_ANY)
            began = time.monotonic()
            sub.get(LIMIT)
            assert time.monotonic() - began >= 0.09

    def test_other_codes_are_final(self, client):
        """Such an event does not come again."""
        with client.subscribe("weather", redeliver=FAST) as sub:
            client.publish("weather", numbered(2))
            sub.get(LIMIT).nack(UNHANDLED_MIMETYPE)
            assert sub.get(LIMIT).data == b"1"
            with pytest.raises(queue.Empty):
                sub.get(0.2)

    def test_closing_forgets_what_waits(self, client):
        """It was not acknowledged, and the end does not wait for it."""
        sub = client.subscribe("weather", redeliver=Redeliver(3, 30.0))
        client.publish("weather", b"x")
        sub.get(LIMIT).nack(DELIVER_AGAIN_ANY)
        began = time.monotonic()
        sub.close()
        assert time.monotonic() - began < 10

    def test_an_event_of_another(self, client):
        """Only the subscription that an event came from can answer it."""
        with client.subscribe("weather") as one, client.subscribe("weather") as other:
            client.publish("weather", b"x")
            event = one.get(LIMIT)
            with pytest.raises(CouldNotAck, match="this subscription"):
                other.ack(event)
            with pytest.raises(CouldNotAck):
                one.ack(Event(b"x"))
            assert one.ack(event)

    def test_where_the_server_keeps_the_group(self):
        """Members of a group on a friendly node share the events, and it delivers again."""
        with Node(topics=["weather"], strict=False) as node, node.client() as client:
            members = [client.subscribe("weather", consumer_group="crew") for _ in range(2)]
            client.publish("weather", numbered(40))
            had = collections.Counter()
            refused = set()
            deadline = time.monotonic() + LIMIT
            while len(had) < 40 and time.monotonic() < deadline:
                for member in members:
                    for event in member.get_batch(10, 0.02):
                        if event.data in (b"3", b"30") and event.data not in refused:
                            refused.add(event.data)
                            event.nack(DELIVER_AGAIN_ANY)
                        else:
                            had[event.data] += 1
                            event.ack()
            assert had == collections.Counter(numbered(40))
            assert all(member.stats()["reads"] == 0 for member in members)
            for member in members:
                member.close()


class TestQuery:
    """subscribe(query=...)."""

    @pytest.mark.parametrize("strict", [True, False])
    def test_filter_and_projection(self, strict):
        """Only what it wants, with the fields that it selects, live and from the log."""
        query = "SELECT n AS number FROM weather WHERE n >= :least"
        with Node(topics=["weather"], strict=strict) as node, node.client() as client:
            client.publish("weather", [{"n": n, "more": "x"} for n in range(6)])
            with client.subscribe(query=query, params={"least": 4}, start="earliest") as sub:
                client.publish("weather", [{"n": n} for n in (1, 7, 2, 8)])
                assert [sub.get(LIMIT).decode() for _ in range(4)] == [{"number": n} for n in (4, 5, 7, 8)]
                with pytest.raises(queue.Empty):
                    sub.get(0.1)

    def test_limit(self, client):
        """It ends after so many."""
        client.publish("weather", [{"n": n} for n in range(6)])
        with client.subscribe("weather", query="SELECT * FROM weather WHERE n > 1 LIMIT 2", start="earliest") as sub:
            assert [event.decode()["n"] for event in sub] == [2, 3]

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_comes_again(self, client, workers):
        """It has the selected fields each time, and counts once."""
        client.publish("weather", [{"n": n, "more": "x"} for n in range(4)])
        had = []

        def handle(event):
            had.append(event.decode())
            if had.count({"n": 1}) == 1 and event.decode() == {"n": 1}:
                raise ValueError("mine")
            if len(had) == 4:
                sub.close()

        sub = client.subscribe(query="SELECT n FROM weather WHERE n > 0 LIMIT 4", start="earliest")
        sub.run(handle, workers=workers, retry=FAST)
        assert sorted(event["n"] for event in had) == [1, 1, 2, 3]
        assert all(list(event) == ["n"] for event in had)

    def test_errors(self, client):
        """Point at the place."""
        with pytest.raises(InvalidQueryError, match="position"):
            client.subscribe(query="SELECT * FROM weather WHERE n ! 1")


class TestRun:
    """Subscription.run()."""

    def run(self, sub, handler, until, **options):
        """Run a handler until a condition holds."""
        thread = threading.Thread(target=sub.run, args=(handler,), kwargs=options)
        thread.start()
        try:
            eventually(until)
        finally:
            sub.close()
            thread.join(LIMIT)
            assert not thread.is_alive()

    def test_in_order(self, client):
        """One worker sees the events of a topic in order, and acknowledges each."""
        client.publish("weather", numbered(300))
        had = []
        sub = client.subscribe("weather")
        self.run(sub, lambda event: had.append(event.data), lambda: sub.stats()["acked"] == 300)
        assert had == numbered(300)

    def test_several_workers(self, client):
        """Several work at once; each event is handled once."""
        client.publish("weather", numbered(300))
        had, meeting = [], threading.Barrier(4)

        def handle(event):
            if int(event.data) < 4:
                meeting.wait(LIMIT)  # four at the same time, or this breaks
            had.append(event.data)

        sub = client.subscribe("weather")
        self.run(sub, handle, lambda: sub.stats()["acked"] == 300, workers=4)
        assert sorted(had) == sorted(numbered(300))

    @pytest.mark.parametrize("workers", [1, 3])
    def test_a_handler_that_raises(self, client, workers):
        """Without retry the event is refused for good, and the next one follows."""
        client.publish("weather", numbered(10))

        def handle(event):
            if event.data == b"3":
                raise ValueError("mine")

        sub = client.subscribe("weather")
        done = lambda: sub.stats()["acked"] == 9 and sub.stats()["nacked"] == 1  # noqa: E731
        self.run(sub, handle, done, workers=workers)

    @pytest.mark.parametrize("workers", [1, 3])
    def test_retry(self, client, workers):
        """It comes again so often; with one worker in its place, so the order holds."""
        client.publish("weather", numbered(6))
        tries, had, dead = collections.Counter(), [], []

        def handle(event):
            tries[event.data] += 1
            if event.data == b"2" and tries[event.data] < 3 or event.data == b"4":
                raise ValueError("mine")
            had.append(event.data)

        sub = client.subscribe("weather", on_dead_letter=dead.append)
        self.run(sub, handle, lambda: len(had) == 5 and dead, workers=workers, retry=FAST)
        assert (tries[b"2"], tries[b"4"]) == (3, 3)
        expected = [b"0", b"1", b"2", b"3", b"5"]
        assert had == expected if workers == 1 else sorted(had) == expected
        assert [event.data for event in dead] == [b"4"]

    def test_answers_by_hand_win(self, client):
        """A handler may acknowledge or refuse by itself."""
        client.publish("weather", numbered(4))
        sub = client.subscribe("weather")
        self.run(sub, lambda event: event.nack(), lambda: sub.stats()["nacked"] == 4)
        assert sub.stats()["acked"] == 0

    def test_closing_ends_a_retry(self, client):
        """Nobody waits for a pause that is long."""
        client.publish("weather", b"x")
        failed = threading.Event()

        def handle(event):
            failed.set()
            raise ValueError("mine")

        sub = client.subscribe("weather")
        thread = threading.Thread(target=sub.run, args=(handle, 1, Redeliver(9, 60.0)))
        thread.start()
        assert failed.wait(LIMIT)
        client.close()
        thread.join(LIMIT)
        assert not thread.is_alive()

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_ends_the_subscription(self, client, workers):
        """An error of the subscription is raised here, and one that is no Exception too."""
        client.publish("weather", b"x")
        sub = client.subscribe("weather")

        def leave(event):
            raise SystemExit(7)

        with pytest.raises(SystemExit):
            sub.run(leave, workers=workers)
        sub.run(leave, workers=workers)  # it is closed
        with pytest.raises(ValueError, match="workers"):
            sub.run(leave, workers=0)


class TestApps:
    """Publisher, Subscriber and the decorators."""

    @pytest.fixture(autouse=True)
    def _settings(self, node, monkeypatch):
        for name, value in node.env().items():
            monkeypatch.setenv(name, value)

    def test_publisher_and_subscriber(self, node):
        """One publishes what an iterable gives, the other calls on_event for each."""

        class Mine(Subscriber):
            had = []

            def on_event(self, event):
                self.had.append(event.data)
                if len(self.had) == 3:
                    threading.Thread(target=self.close).start()

        assert Publisher("weather").run(iter(["a", "b", "c"])) == 3
        Mine("weather").run(start="earliest")
        assert Mine.had == [b"a", b"b", b"c"]
        with Publisher("weather") as client:
            assert client.publish_from(["d"]) == 1
        assert len(node.events("weather")) == 4

    def test_what_is_missing(self):
        """No topics."""
        with pytest.raises(ValueError, match="topic"):
            Publisher("")
        with pytest.raises(ValueError, match="topics"):
            Subscriber()
        with pytest.raises(TypeError, match="topic"):
            Subscriber(7)

    def test_the_default_handler(self):
        """It acknowledges."""
        Publisher("weather").run(["a"])
        client = Subscriber("weather")
        thread = threading.Thread(target=client.run, kwargs={"start": "earliest"})
        thread.start()
        eventually(lambda: client.stats()["events_acked"] == 1)
        client.close()
        thread.join(LIMIT)

    def test_functions(self, node):
        """Return values are published; the events are given as a stream or one by one."""
        had = []

        @publisher("weather")
        def one(value):
            return value

        @publisher("weather", mimetype="text/plain", encoder=Encoder())
        def encoded():
            return "x"

        @subscriber("weather", start="earliest")
        def read(events, count):
            return [event.data for _, event in zip(range(count), events)]

        @subscriber("weather", start="earliest")
        def each(event):
            had.append(event.data)
            if len(had) == 2:
                _close_the_client()

        @authenticate()
        def main():
            assert one({"a": 1}) == {"a": 1}
            assert one(None) is None
            assert encoded() == "x"
            assert main_within() == 7
            assert read(2) == [b'{"a": 1}', b"<x>"]
            each()
            return 8

        @authenticate("ignored", "as there is a client")
        def main_within():
            return 7

        assert main() == 8
        assert had == [b'{"a": 1}', b"<x>"]
        with pytest.raises(RuntimeError, match="authenticate"):
            one(1)
        with pytest.raises(RuntimeError, match="authenticate"):
            read(1)

    def test_generators(self, node):
        """What they yield is published, and a generator gets the stream."""

        @publisher("weather")
        def some(count):
            yield from range(count)
            yield None

        @subscriber("weather", start="earliest")
        def decoded(stream):
            for event in stream:
                yield event.decode()

        @authenticate()
        def main():
            assert list(some(3)) == [0, 1, 2, None]
            events = decoded()
            yield from [next(events) for _ in range(3)]
            events.close()

        assert list(main()) == [0, 1, 2]
        with pytest.raises(RuntimeError, match="authenticate"):
            next(some(1))

    def test_stream_says_outright(self, node):
        """Whatever the parameter is called."""
        Publisher("weather").run(["a"])

        @subscriber("weather", start="earliest", stream=True)
        def whole(messages):
            return next(messages).data

        @authenticate()
        def main():
            return whole()

        assert main() == b"a"

    def test_what_is_asynchronous(self):
        """It is refused by a word about how to mend it."""

        async def main():
            return None

        async def generator():
            yield None

        for decorate in (authenticate(), publisher("a"), subscriber("a")):
            for function in (main, generator):
                with pytest.raises(TypeError, match="async"):
                    decorate(function)
            with pytest.raises(TypeError, match="function"):
                decorate(7)

    def test_the_client_is_closed_after_an_error(self):
        """Whatever ends the function."""

        @authenticate()
        def main():
            raise KeyError("mine")

        with pytest.raises(KeyError):
            main()
        with pytest.raises((EnsignError, RuntimeError)):
            publisher("weather")(lambda: 1)()


class Encoder:
    """An encoder of the program's own."""

    def encode(self, value):
        """Encode."""
        return f"<{value}>".encode()


def _close_the_client():
    from ensign_sync.decorators import _shared

    client = _shared.get("test")
    assert isinstance(client, Ensign)
    for stream in client._connection._subscribers:
        stream.close()
