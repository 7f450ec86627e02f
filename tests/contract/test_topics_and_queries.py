"""Topics, queries and what the server tells, through the client."""

import threading

import pytest

from ensign_sync import (
    CursorClosedError,
    Ensign,
    EnsignRPCError,
    EnsignTopicNotFoundError,
    Event,
    QueryNoRows,
    TopicState,
)
from ensign_sync.exceptions import ConcurrencyError, InvalidQueryError


def test_topics_from_their_making_to_their_end(client):
    """Created, found by name and id, archived, destroyed; and gone."""
    id = client.create_topic("a")
    assert client.ensure_topic_exists("a") == id
    assert client.topic_id("a") == id == client.topic_id(id)
    assert client.topic_exists("a") and client.topic_exists(id) and not client.topic_exists("b")
    topic = client.retrieve_topic("a")
    assert (str(topic.id), topic.name, topic.status) == (id, "a", TopicState.READY)
    assert topic.created is not None
    assert client.topic_names()[id] == "a"
    assert sorted(topic.name for topic in client.get_topics()) == ["a", "weather"]
    assert client.archive_topic("a") is TopicState.READONLY
    assert client.retrieve_topic(id).readonly
    assert client.destroy_topic(id) is TopicState.DELETING
    assert not client.topic_exists("a")
    for call in (client.retrieve_topic, client.archive_topic, client.destroy_topic, client.topic_id):
        with pytest.raises(EnsignTopicNotFoundError, match="a"):
            call("a")


def test_a_topic_that_another_client_made_anew(node, client):
    """An id that is remembered and no longer true is looked up again."""
    old = client.create_topic("a")
    with node.client() as other:
        other.destroy_topic("a")
        new = other.create_topic("a")
    assert old != new
    assert str(client.retrieve_topic("a").id) == new


def test_without_a_topic_cache(node):
    """disable_topic_cache looks an id up each time."""
    with node.client(disable_topic_cache=True) as client:
        id = client.create_topic("a")
        assert client.topic_id("a") == id
        client.destroy_topic("a")
        with pytest.raises(EnsignTopicNotFoundError):
            client.topic_id("a")


def test_a_name_of_twenty_six_characters_is_a_name(client):
    """A text that could be an id is a name if a topic has it."""
    name = "ABCDEFGHJKMNPQRSTVWXYZABCD"
    id = client.create_topic(name)
    assert client.topic_id(name) == id
    client.publish(name, b"x")
    with client.subscribe(name) as sub:
        client.publish(name, b"y")
        assert sub.get(30).topic == name


def test_more_topics_than_a_page(client):
    """get_topics() reads every page."""
    names = [f"t{n:03}" for n in range(130)]
    for name in names:
        client.create_topic(name)
    topics = client.get_topics()
    assert sorted(topic.name for topic in topics) == sorted(["weather", *names])
    assert [topic.id for topic in topics] == sorted(topic.id for topic in topics)


def test_policies(client):
    """Policies are set by name, number or member; what the server cannot do it says."""
    assert client.set_topic_deduplication_policy("weather", "none") is TopicState.READY
    with pytest.raises(EnsignRPCError, match="UNIMPLEMENTED"):
        client.set_topic_sharding_strategy("weather", "random")
    with pytest.raises(KeyError, match="STRICT"):
        client.set_topic_deduplication_policy("weather", "sometimes")


def test_info_counts(client):
    """Info counts events and bytes by topic, schema and mimetype."""
    client.create_topic("empty")
    client.publish("weather", b"raw", "text", {"a": 1}, {"a": 2})
    project = client.info()
    assert (project.num_topics, project.events) == (2, 4)
    weather = next(topic for topic in project.topics if topic.events)
    assert weather.events == 4
    assert weather.data_size_bytes > 0
    assert {int(kind.mimetype): kind.events for kind in weather.types} == {0: 1, 1: 1, 50: 2}
    client.publish("weather", b"more")
    (only,) = client.info(["weather"]).topics
    assert only.events == 5
    with pytest.raises(TypeError):
        client.info("weather")


class TestQuery:
    """Cursors."""

    @pytest.fixture(autouse=True)
    def _events(self, client):
        client.publish("weather", [str(n) for n in range(10)])

    def test_fetching(self, client):
        """One, many and all; then nothing more."""
        cursor = client.query("SELECT * FROM weather")
        assert cursor.fetchone().decode() == "0"
        assert [row.decode() for row in cursor.fetchmany(3)] == ["1", "2", "3"]
        assert [row.decode() for row in cursor.fetchall()] == [str(n) for n in range(4, 10)]
        assert cursor.fetchone() is None
        assert cursor.fetchmany(3) == cursor.fetchall() == []

    def test_iteration_and_bounds(self, client):
        """OFFSET and LIMIT as they are documented, also LIMIT 0."""
        with client.query("SELECT * FROM weather OFFSET 7 LIMIT 2") as cursor:
            assert [row.decode() for row in cursor] == ["7", "8"]
        for query in ("SELECT * FROM weather LIMIT 0", "SELECT * FROM weather OFFSET 10"):
            with pytest.raises(QueryNoRows):
                client.query(query)

    def test_rows_know_their_topic_and_id(self, client):
        """A row is an event with the id of the log."""
        row = client.query("SELECT * FROM weather LIMIT 1").fetchone()
        assert row.topic == "weather"
        assert row.id.milliseconds > 0

    def test_closing(self, client):
        """Fetching after close is an error, closing twice is none."""
        cursor = client.query("SELECT * FROM weather")
        cursor.close()
        cursor.close()
        with pytest.raises(CursorClosedError):
            cursor.fetchone()

    def test_two_threads(self, client):
        """A cursor is read by one thread at a time."""
        cursor = client.query("SELECT * FROM weather")
        with cursor._reading, pytest.raises(ConcurrencyError):
            cursor.fetchone()

    def test_a_log_longer_than_a_page(self, client):
        """Thousands of rows come back in order."""
        client.publish_from("weather", (str(n) for n in range(10, 3000)))
        assert [row.decode() for row in client.query("SELECT * FROM weather")] == [str(n) for n in range(3000)]


def test_status_ping_and_explain(client):
    """The server tells its version; explain is not there."""
    assert client.status().status == 1
    assert client.ping(5).version == client.status().version
    with pytest.raises(EnsignRPCError, match="UNIMPLEMENTED"):
        client.explain_query("SELECT * FROM weather")


def test_stats_from_the_first_moment(node):
    """stats() has the same keys before anything happened, and connects nothing."""
    with node.client() as client:
        before = client.stats()
        assert before["published"] == before["in_flight"] == 0
        client.publish("weather", b"x")
        after = client.stats()
        assert after["published"] == after["acked"] == 1
        assert set(before) == set(after)
        assert after["publisher"] == "OPEN"


def test_embedded_clients_share_a_node(tmp_path):
    """Clients of one path share a node, which ends with the last and keeps its file."""
    endpoint = f"embedded:{tmp_path / 'data.db'}?topics=a,b"
    with Ensign(endpoint=endpoint) as one:
        one.publish("a", b"x")
        with Ensign(endpoint=endpoint) as two:
            assert two.query("SELECT * FROM a").fetchone().data == b"x"
        one.publish("b", b"y")
    with Ensign(endpoint=endpoint) as three:
        assert three.query("SELECT * FROM b").fetchone().data == b"y"


def test_no_thread_stays_after_close(node):
    """After close() the threads are those of before, gRPC's own included."""
    before = threading.enumerate()
    client = node.client()
    with client.subscribe("weather"):
        client.publish("weather", b"x")
        client.query("SELECT * FROM weather").fetchall()
        client.submit("weather", b"y").add_done_callback(print)
    client.close()
    left = [thread for thread in threading.enumerate() if thread not in before]
    # The node in this process may still be at its last reply.
    left = [thread for thread in left if not thread.name.startswith("ensign-node")]
    assert left == []


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("query", "params", "expected"),
    [
        ('SELECT n AS number FROM "weather" WHERE n > :least AND NOT n = 3 LIMIT 2', {"least": 1}, [2, 4]),
        ("SELECT n AS number FROM weather WHERE n = 1 OR n >= 4", None, [1, 4, 5]),
        ("SELECT n AS number FROM weather WHERE n >= 1 OFFSET 3", None, [3, 4, 5]),
        ("SELECT n AS number FROM weather WHERE n >= 1 LIMIT 1 OFFSET 3", None, [3]),
        ("SELECT n AS number FROM weather WHERE city ILIKE 'os%'", None, [2]),
        ("SELECT n AS number FROM weather WHERE source = 'mast'", None, [4]),
        ("SELECT n AS number FROM weather.Reading.2", None, [5]),
        ("SELECT n AS number FROM weather OFFSET :from", {"from": "THIRD"}, [3, 4, 5]),
        ("SELECT n AS number FROM weather BEFORE :end AFTER :begin", {"begin": "FIRST", "end": "THIRD"}, [2]),
        ("SELECT n AS number FROM weather LIMIT 0", None, []),
        ("SELECT n AS number FROM weather WHERE n = 77", None, []),
    ],
)
def test_the_whole_language(strict, query, params, expected):
    """What the server announces is left to it, and the rest is evaluated here: the rows are the same."""
    from ensign_sync.node import Node

    with Node(topics=["weather"], strict=strict) as node, node.client() as client:
        cities = {2: {"city": "Oslo"}}
        client.publish("weather", [{"n": n, **cities.get(n, {})} for n in range(4)])
        client.publish("weather", Event(b'{"n": 4}', meta={"source": "mast"}))
        client.publish("weather", Event(b'{"n": 5}', schema_name="Reading", schema_version="2.1.0"))
        ids = {"FIRST": str(node.events("weather")[1].id), "THIRD": str(node.events("weather")[3].id)}
        params = params and {name: ids.get(value, value) for name, value in params.items()}
        if not expected:
            with pytest.raises(QueryNoRows):
                client.query(query, params)
        else:
            with client.query(query, params) as rows:
                assert [row.decode() for row in rows.fetchall()] == [{"number": n} for n in expected]
                assert rows.fetchone() is None


@pytest.mark.parametrize("strict", [False, True])
def test_errors_of_the_whole_language(strict):
    """They point at the place; what the real server cannot name is refused there."""
    from ensign_sync.node import Node

    with Node(topics=["weather", "orders"], strict=strict) as node, node.client() as client:
        client.publish("orders", b"x")
        with pytest.raises(InvalidQueryError, match="position 30"):
            client.query("SELECT * FROM weather WHERE n ? 1")
        if strict:
            with pytest.raises(InvalidQueryError):
                client.query('SELECT * FROM "orders"')
        else:
            assert client.query('SELECT * FROM "orders"').fetchone().data == b"x"
