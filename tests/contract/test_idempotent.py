"""Idempotent publishing: what is sent again after an outage is in the log once, on servers that look for no duplicates.

Each fault has a control: without ``idempotent`` the same leaves events there twice.
"""

import time

import pytest

from ensign_sync import EnsignSettingsError, Event, PublishTimeoutError
from ensign_sync.handover.clock import Clock
from ensign_sync.node import Node
from ensign_sync.protocol.frames import Made
from ensign_sync.streams import doubt
from ensign_sync.streams.log import Log
from tests.load import LIMIT, Load, strike, under_kills
from tests.proxy import far
from tests.size import by_size
from tests.waiting import eventually

KEY = "ensign-sync-id"


def kept_unanswered(node, client, events):
    """Have a node store events and lose the connection before it can say so; returns the futures of them."""
    client.publish("weather", b"before")
    stored = len(list(node.events("weather")))
    node.faults.drop_acks(len(events))
    futures = [client.submit("weather", event) for event in events]
    eventually(lambda: len(list(node.events("weather"))) == stored + len(events))
    node.faults.drop_connections()
    return futures


def data(node):
    """Return what a node has, in order."""
    return [event.data for event in node.events("weather")]


class TestKills:
    """A strict node that is killed and started again."""

    KILLS, EACH = by_size(2, 1, 4, 20), by_size(300, 150, 600, 2_500)

    def test_every_event_is_stored_once(self, tmp_path, transport):
        """What was stored and not acknowledged is found, the rest is sent again."""
        load, struck, twice, stats = under_kills(tmp_path, self.KILLS, self.EACH, timeout=60, idempotent=True)
        print(
            f"{transport}: {struck} kills, {load.done} acknowledged, {stats['found']} found,"
            f" {stats['resent']} sent again, {twice} twice"
        )
        assert not load.failed
        assert struck >= 1
        assert twice == 0

    @pytest.mark.ends
    def test_control(self, tmp_path, transport):
        """What was stored and not acknowledged is stored again."""
        with Node(str(tmp_path / "data.db"), topics=["weather"], process=True) as node, node.client() as client:
            futures = kept_unanswered(node, client, [b"one", b"two"])
            for future in futures:
                future.result(LIMIT)
            assert data(node) == [b"before", b"one", b"two", b"one", b"two"]


class TestCuts:
    """Connections that are cut at random moments."""

    CUTS, EACH = by_size(5, 3, 20, 100), by_size(300, 150, 600, 2_500)

    def run(self, node, proxy, **options):
        """Publish under cuts; returns the load, how often, what was stored twice, and what the client counted."""
        with far(node, proxy, timeout=60, **options) as client:
            load = Load(client, self.EACH)
            struck = strike(load, self.CUTS, lambda: proxy.cut_connections() > 0, 1)
            load.join()
            return load, struck, load.check(node), client.stats()

    @pytest.mark.parametrize("strict", [True, False], ids=["strict", "friendly"])
    def test_every_event_is_stored_once(self, transport, strict):
        """At most one in 10,000 is there twice: the handler of a connection that was cut may still store something."""
        from tests.proxy import Proxy

        with Node(topics=["weather"], strict=strict, faults=True) as node, Proxy(node.endpoint) as proxy:
            load, struck, twice, stats = self.run(node, proxy, idempotent=True)
        print(
            f"{transport}: {struck} cuts, {load.done} acknowledged, {stats['found']} found,"
            f" {stats['resent']} sent again, {twice} twice"
        )
        assert not load.failed
        assert struck >= self.CUTS // 2
        assert twice <= max(1, load.done // 10_000)

    @pytest.mark.ends
    def test_control(self, node, proxy, transport):
        """Sent again without a look, some are there twice."""
        load, struck, twice, _ = self.run(node, proxy)
        print(f"{transport}: {struck} cuts, {load.done} acknowledged, {twice} twice")
        assert not load.failed
        assert twice > 0


class TestFound:
    """Events that are stored although nobody said so."""

    def test_they_are_acknowledged_with_the_time_of_the_log(self, node):
        """In the order of the log, and what comes after them is behind them."""
        with node.client(idempotent=True) as client:
            futures = kept_unanswered(node, client, [b"one", b"two"])
            client.publish("weather", b"three")
            acks = [future.result(LIMIT) for future in futures]
            rows = list(node.events("weather"))
            assert [event.data for event in rows] == [b"before", b"one", b"two", b"three"]
            for ack, event in zip(acks, rows[1:]):
                assert ack.committed.ns // 1_000_000 == event.id.milliseconds
            assert client.stats()["found"] >= 2

    def test_in_the_first_window_of_a_client(self, node):
        """Without any acknowledgement it is known from the clock of the log where to look."""
        with node.client() as other:
            other.publish("weather", [b"%d" % n for n in range(300)])
        with node.client(idempotent=True) as client:
            node.faults.drop_acks(1)
            future = client.submit("weather", b"first")
            eventually(lambda: len(list(node.events("weather"))) == 301)
            node.faults.drop_connections()
            future.result(LIMIT)
            assert client.stats()["found"] == 1
        assert data(node).count(b"first") == 1

    def test_in_several_topics(self, node):
        """By name or by id; only what is asked for is looked for."""
        with node.client(idempotent=True) as client:
            other = str(client.create_topic("other"))
            client.publish(other, b"before")
            client.publish("weather", b"before")
            node.faults.drop_acks(3)
            futures = [client.submit("weather", b"one"), client.submit(other, b"two")]
            plain = client.submit("weather", b"plain", idempotent=False)
            eventually(lambda: len(list(node.events("weather"))) == 3 and len(list(node.events("other"))) == 2)
            node.faults.drop_connections()
            for future in (*futures, plain):
                future.result(LIMIT)
            assert data(node) == [b"before", b"one", b"plain", b"plain"]
            assert [event.data for event in node.events("other")] == [b"before", b"two"]

    def test_for_one_call(self, node):
        """Whoever says so for a call has it for that call."""
        with node.client() as client:
            client.publish("weather", b"one", idempotent=True)
            client.publish("weather", [b"two", b"three"], idempotent=True)
            client.publish_from("weather", iter([b"four"]), idempotent=True)
            client.submit("weather", b"five", idempotent=True).result(LIMIT)
            client.publish("weather", b"six")
            keys = [event.meta.get(KEY) for event in node.events("weather")]
        assert len(set(keys[:5])) == 5
        assert all(len(key) == 32 for key in keys[:5])
        assert keys[5] is None

    def test_the_log_that_cannot_be_read_for_a_while(self, node, monkeypatch):
        """It is tried until it can; until then nothing is sent."""
        failures = []
        rows = Log.rows

        def refuse(self, *args, **options):
            if len(failures) < 3:
                failures.append(1)
                raise doubt.EnsignError("the disk is slow")
            return rows(self, *args, **options)

        with node.client(idempotent=True) as client:
            client.publish("weather", b"zero")
            monkeypatch.setattr(Log, "rows", refuse)
            for future in kept_unanswered(node, client, [b"one"]):
                future.result(LIMIT)
            assert client.stats()["found"] == 1
        assert len(failures) == 3
        assert data(node) == [b"zero", b"before", b"one"]

    def test_the_handler_that_is_late(self, node, monkeypatch):
        """What is stored after the first look is found by the second."""
        hidden = []
        rows = Log.rows

        class Without:
            def __init__(self, inner):
                self.inner, self.cancel = inner, inner.cancel

            def __iter__(self):
                return (row for row in self.inner if b"late" not in row.payload)

        def first_without(self, *args, **options):
            found = rows(self, *args, **options)
            if len(hidden) < 8 and not args[2]:
                hidden.append(1)
                return Without(found) if len(hidden) == 1 else found
            return found

        with node.client(idempotent=True) as client:
            client.publish("weather", b"zero")
            monkeypatch.setattr(Log, "rows", first_without)
            began = time.monotonic()
            for future in kept_unanswered(node, client, [b"one", b"late"]):
                future.result(LIMIT)
            assert time.monotonic() - began > doubt.PAUSE_SECONDS
            assert (client.stats()["found"], client.stats()["resent"]) == (2, 0)
        assert len(hidden) >= 2
        assert data(node) == [b"zero", b"before", b"one", b"late"]


class TestBounds:
    """From where on the log is read."""

    def test_a_clock_of_the_server_that_is_set_meanwhile(self, node):
        """Where something was acknowledged before, that says where to begin, not how long ago it is."""
        for seconds in (30, -5):
            with node.client(idempotent=True) as client, node.client() as other:
                client.publish("weather", b"first")
                node.faults.drop_acks(3)
                stored = len(data(node))
                futures = [client.submit("weather", b"%d" % n) for n in range(3)]
                eventually(lambda n=stored: len(data(node)) == n + 3)
                node.faults.step_clock(seconds)
                other.publish("weather", b"other")
                node.faults.drop_connections()
                for future in futures:
                    future.result(LIMIT)
                assert client.stats()["found"] == 3

    def test_what_was_acknowledged_later(self, node, monkeypatch):
        """An event that was sent long before the last acknowledgement is found all the same."""
        monkeypatch.setattr(doubt, "LONGEST_COMMIT", 0)
        with node.client(idempotent=True) as client:
            client.publish("weather", b"before")
            node.faults.drop_acks(1)
            future = client.submit("weather", b"one")
            eventually(lambda: len(data(node)) == 2)
            node.faults.step_clock(20)
            client.publish("weather", [b"%d" % n for n in range(50)])
            node.faults.drop_connections()
            future.result(LIMIT)
            assert client.stats()["found"] == 1
        assert data(node).count(b"one") == 1

    def test_a_machine_that_slept(self):
        """The clock that never steps stands still then; where nothing was acknowledged yet the wall clock tells."""
        look = doubt._Look.__new__(doubt._Look)
        look._clock = Clock()
        look._clock.now, look._clock.time = lambda: 100.0, lambda: 5_000.0
        look._made = [Made(99.0, 4_000.0), Made(90.0, 4_995.0)]
        assert look._earliest(2_000_000) == 1_000_000
        look._made = [Made(99.0, 4_999.0, 1_500_000 * 10**6), Made(90.0, 4_990.0, 1_990_000 * 10**6)]
        assert look._earliest(2_000_000) == 1_500_000
        assert look._earliest(9_000_000) == 8_990_000  # or too much would be read for a clock that may have been set


class TestClosing:
    """A client that is closed while it looks."""

    def test_it_still_looks(self, node):
        """What is in doubt is found, the rest is sent, and it does not take long."""
        client = node.client(idempotent=True)
        futures = kept_unanswered(node, client, [b"one"])
        eventually(lambda: client.stats()["publisher"] == "CHECKING")
        futures += [client.submit("weather", b"%d" % n) for n in range(5)]
        client.close(LIMIT)
        for future in futures:
            future.result(0)
        assert data(node) == [b"before", b"one", *(b"%d" % n for n in range(5))]


class TestEvents:
    """The key of an event."""

    def test_another_publishers_key_does_not_stay(self, node, client):
        """An event that was received and is published on gets a key of its own; the event itself is not changed."""
        event = Event(b"x", meta={KEY: "theirs", "a": "b"})
        client.publish("weather", event, idempotent=True)
        assert event.meta == {KEY: "theirs", "a": "b"}
        (stored,) = node.events("weather")
        assert stored.meta["a"] == "b"
        assert stored.meta[KEY] not in ("theirs", "")

    def test_a_subscriber_sees_it(self, node, client):
        """As a pair of metadata like others, live and in queries."""
        with client.subscribe("weather") as events:
            client.publish("weather", Event(b"x" * 20_000, meta={"a": "b"}), idempotent=True)
            live = events.get(LIMIT)
        (row,) = client.query("SELECT * FROM weather")
        assert live.meta == row.meta
        assert sorted(live.meta) == ["a", KEY]
        assert live.data == b"x" * 20_000


class TestImpossible:
    """Where the log cannot be searched, whoever asks for it hears so at once."""

    def test_a_name_that_no_query_can_say(self, node):
        """The error names the topic and the ways out."""
        with node.client(idempotent=True) as client:
            client.create_topic("offset")
            for publish in (client.publish, client.submit):
                with pytest.raises(EnsignSettingsError, match="offset.*idempotent=False"):
                    publish("offset", b"x")
            client.publish("offset", b"x", idempotent=False)

    def test_a_key_that_may_not_read(self, node):
        """A key that may only publish."""
        with node.client() as all_rights:
            all_rights.publish("weather", b"zero")
        key = node.create_api_key(["publisher"])
        with node.client(client_id=key.client_id, client_secret=key.client_secret, idempotent=True) as client:
            with pytest.raises(EnsignSettingsError, match="topics:read"):
                client.publish("weather", b"x")
            client.publish("weather", b"x", idempotent=False)
        assert data(node) == [b"zero", b"x"]

    def test_a_topic_that_is_not_there(self, client):
        """The same error as ever."""
        from ensign_sync import UnknownTopicError

        with pytest.raises(UnknownTopicError):
            client.publish("nothing", b"x", idempotent=True)
        client.publish("made", b"x", ensure_exists=True, idempotent=True)

    def test_given_up_while_it_is_looked_for(self, node, monkeypatch):
        """A call whose time ends says that the event may have been stored; a topic that is new does not wait."""
        with node.client(idempotent=True) as client:
            client.publish("weather", b"zero")
            monkeypatch.setattr(Log, "rows", lambda *args: (_ for _ in ()).throw(doubt.EnsignError("no")))
            node.faults.drop_acks(1)
            future = client.submit("weather", b"one")
            eventually(lambda: len(list(node.events("weather"))) == 2)
            node.faults.drop_connections()
            eventually(lambda: client.stats()["publisher"] == "CHECKING")
            with pytest.raises(PublishTimeoutError, match="last error: no$|last error: no;") as caught:
                client.publish("weather", b"two", timeout=0.3)
            assert [error.sent for _, _, error in caught.value.failures] == [False]
            client.close(0.5)
            with pytest.raises(PublishTimeoutError, match="may have been stored"):
                future.result(LIMIT)
        assert data(node) == [b"zero", b"one"]
