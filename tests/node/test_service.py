"""The node's calls over real gRPC and HTTP: what is allowed, what is refused, and in which words."""

import grpc
import pytest

from ensign_sync.ids import ULID, topic_name_hash
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods, records
from ensign_sync.wire.methods import Method
from tests.node.raw import Raw, refusal

ALL = [
    methods.LIST_TOPICS,
    methods.CREATE_TOPIC,
    methods.RETRIEVE_TOPIC,
    methods.DELETE_TOPIC,
    methods.TOPIC_NAMES,
    methods.TOPIC_EXISTS,
    methods.SET_TOPIC_POLICY,
    methods.INFO,
    methods.EXPLAIN,
]


TOKENS = {
    "none": ([], "missing credentials"),
    "empty": ([("authorization", "")], "invalid credentials"),
    "rubbish": ([("authorization", "Bearer x")], "invalid credentials"),
    "lower case": ([("authorization", "bearer {token}")], "invalid credentials"),
    "two spaces": ([("authorization", "Bearer  {token}")], "invalid credentials"),
    "basic": ([("authorization", "Basic eDp5")], "invalid credentials"),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_strangers_get_nowhere(raw, kind):
    """Without a good token every call is UNAUTHENTICATED, with the server's words."""
    given, details = TOKENS[kind]
    token = [(key, value.format(token=raw.token)) for key, value in given]
    for method in ALL:
        assert refusal(raw, method, token=token) == ("UNAUTHENTICATED", details)
    assert refusal(raw.rows, "SELECT * FROM weather", token=token) == ("UNAUTHENTICATED", details)
    assert raw.publish([], token=token) == ([], ("UNAUTHENTICATED", details))
    subscribe = raw.channel.stream_stream(methods.SUBSCRIBE.path)
    with pytest.raises(grpc.RpcError) as caught:
        list(subscribe(iter([]), metadata=token, timeout=30))
    assert caught.value.details() == details


def test_status_and_health_need_no_token(raw):
    """Status and the health check answer anybody; unknown calls are UNIMPLEMENTED."""
    assert messages.status_reply(raw(methods.STATUS, token=[])).status == 1
    assert raw(methods.HEALTH_CHECK, token=[]) == records.health_reply(1)
    assert raw(methods.HEALTH_CHECK, b"\x0a\x01x", token=[]) == records.health_reply(0)
    watch = raw.channel.unary_stream(methods.HEALTH_WATCH.path)(b"", timeout=30)
    assert next(watch) == records.health_reply(1)
    watch.cancel()
    assert refusal(raw, Method("Nope"))[0] == "UNIMPLEMENTED"
    assert refusal(raw, methods.EXPLAIN) == ("UNIMPLEMENTED", "explain query is not implemented yet")


def test_the_second_authorization_counts(raw):
    """Of several values the first good one is taken."""
    token = [("authorization", "Bearer x"), ("authorization", f"Bearer {raw.token}")]
    assert raw(methods.LIST_TOPICS, token=token)


class TestPublishStream:
    """The wire of a publish stream."""

    def opening(self, *topics):
        return codec.encode_publisher_frame(frames.OpenStream("me", topics))

    def event(self, topic_id, local_id=b"1" * 16, payload=b"payload"):
        return codec.joined(codec.encode_publisher_frame(frames.Publication(topic_id, local_id, payload)))

    def topic_id(self, raw, name="weather"):
        topics = messages.topics_page_reply(raw(methods.LIST_TOPICS)).items
        return next(topic.id.bytes for topic in topics if topic.name == name)

    def test_a_regular_stream(self, raw):
        """Ready, an ack per event with its local id, and at the end the counts."""
        id = self.topic_id(raw)
        replies, end = raw.publish([self.opening(), self.event(id, b"a"), self.event(id, b""), self.event(id, b"a")])
        assert end == ("OK", "")
        ready, *acks, farewell = replies
        assert ready == frames.Ready("me", "", {"weather": id})
        assert [ack.id for ack in acks] == [b"a", b"", b"a"]
        assert all(ack.committed for ack in acks)
        assert farewell == frames.CloseStream(events=3, topics=1, acks=3, nacks=0)

    def test_nacks(self, raw):
        """No, a bad, an unknown topic id: a nack each, and the stream goes on."""
        id = self.topic_id(raw)
        replies, end = raw.publish(
            [
                self.opening(),
                self.event(b"", b"1"),
                self.event(b"short", b"2"),
                self.event(b"x" * 16, b"3"),
                self.event(id, b"4"),
            ]
        )
        nacks = [reply for reply in replies if isinstance(reply, frames.Nack)]
        assert [(nack.id, int(nack.code), nack.error) for nack in nacks] == [
            (b"1", 2, "no topic id specified"),
            (b"2", 2, "invalid topic id"),
            (b"3", 2, "topic unknown or unhandled"),
        ]
        assert replies[-1] == frames.CloseStream(events=1, topics=1, acks=1, nacks=3)

    @pytest.mark.parametrize("form", ["name", "id", "lower id", "hash"])
    def test_topic_filters(self, raw, form):
        """A filter names topics by name, id or hash; unknown ones are dropped, and none left is refused."""
        raw(methods.CREATE_TOPIC, messages.create_topic_request("other", ULID.new()))
        id = str(ULID(self.topic_id(raw)))
        text = {"name": "weather", "id": id, "lower id": id.lower(), "hash": topic_name_hash("weather")}[form]
        replies, _ = raw.publish([self.opening(text, "unknown")])
        assert list(replies[0].topics) == ["weather"]
        assert raw.publish([self.opening("unknown")])[1] == ("FAILED_PRECONDITION", "no topics available")

    def test_wrong_messages(self, raw):
        """What may not be said ends the stream, with the words of the real server."""
        id = self.topic_id(raw)
        first = "an open stream message must be sent immediately after opening the stream"
        assert raw.publish([self.event(id)]) == ([], ("FAILED_PRECONDITION", first))
        assert raw.publish([b""]) == ([], ("FAILED_PRECONDITION", first))
        replies, end = raw.publish([self.opening(), self.opening()])
        assert (type(replies[-1]), end) == (
            frames.CloseStream,
            ("ABORTED", "cannot send multiple open stream messages"),
        )
        replies, end = raw.publish([self.opening(), b""])
        assert end == ("FAILED_PRECONDITION", "unhandled publisher request message <nil>")
        assert raw.publish([]) == ([], ("OK", ""))
        assert raw.publish([b"\xff\xff\xff"])[1][0] == "INTERNAL"

    def test_a_request_above_four_mebibytes(self, raw):
        """The limit of a request is 4 MiB; what is larger ends the stream."""
        id = self.topic_id(raw)
        fits = 4 * 2**20 - len(self.event(id, payload=bytes(4 * 2**20 - 100))) + 4 * 2**20 - 100
        assert len(self.event(id, payload=bytes(fits))) == 4 * 2**20
        replies, end = raw.publish([self.opening(), self.event(id, payload=bytes(fits))])
        assert end == ("OK", "")
        _, end = raw.publish([self.opening(), self.event(id, payload=bytes(fits + 1))])
        assert end[0] == "RESOURCE_EXHAUSTED"
        assert len(raw.rows("SELECT * FROM weather")) == 1


QUERIES = [
    ("SELECT * FROM weather", 5),
    ("select*from weather;", 5),
    ("SELECT * FROM weather OFFSET 3", 2),
    ("SELECT * FROM weather LIMIT 2 OFFSET 1", 2),
    ("SELECT * FROM weather OFFSET 1 LIMIT 2", 2),
    ("SELECT * FROM weather LIMIT 0", 1),
    ("SELECT * FROM weather OFFSET 5 LIMIT 0", 0),
    ("SELECT * FROM weather OFFSET 18446744073709551615", 0),
    ("SELECT * FROM weather WHERE nothing = 1", 5),
    ('SELECT * FROM "weather"', 0),
    ("SELECT * FROM weather; x", 0),
    ("SELECT * FROM weather /* c */", 0),
]


@pytest.mark.parametrize(("query", "count"), QUERIES)
def test_queries(raw, client, query, count):
    """Rows come in order from any position; what makes the real parser panic gives none."""
    client.publish("weather", *[str(n) for n in range(5)])
    rows = raw.rows(query)
    assert len(rows) == count
    assert [row.id for row in rows] == sorted(row.id for row in rows)


@pytest.mark.parametrize(
    ("query", "details"),
    [
        ("", "invalid query"),
        (" ", "empty query is invalid"),
        ("SELECT * FROM nowhere", "unknown topic in query"),
        ("SELECT * FROM Weather", "unknown topic in query"),
        ("SELECT * FROM orders", 'syntax error at position 14 near "OR": invalid topic identifier'),
        ("SELECT * FROM weather LIMIT -5", 'syntax error at position 28 near "-5": could not parse limit'),
    ],
)
def test_refused_queries(raw, query, details):
    """What is no query is INVALID_ARGUMENT with the server's text."""
    assert refusal(raw.rows, query) == ("INVALID_ARGUMENT", details)


class TestTopics:
    """The calls about topics."""

    @pytest.mark.parametrize(
        ("name", "details"),
        [
            ("", "missing name field"),
            ("x" * 513, "topic name is too long"),
            ("7up", "topic name is invalid"),
            ("with space", "topic name is invalid"),
            ("line\n", "topic name is invalid"),
        ],
    )
    def test_names(self, raw, name, details):
        """Names that break the rules are refused."""
        request = messages.create_topic_request(name, ULID.new())
        assert refusal(raw, methods.CREATE_TOPIC, request) == ("INVALID_ARGUMENT", details)

    def test_a_taken_name_or_id(self, raw):
        """A name is taken once, an id too; 512 bytes are allowed."""
        id = ULID.new()
        raw(methods.CREATE_TOPIC, messages.create_topic_request("x" * 512, id))
        taken = ("ALREADY_EXISTS", "topic name already exists in project")
        assert refusal(raw, methods.CREATE_TOPIC, messages.create_topic_request("weather", ULID.new())) == taken
        same_id = messages.create_topic_request("fresh", id)
        assert refusal(raw, methods.CREATE_TOPIC, same_id) == ("INTERNAL", "could not process create topic request")

    def test_ids(self, raw):
        """Missing, malformed and unknown ids have their own words."""
        assert refusal(raw, methods.RETRIEVE_TOPIC) == ("INVALID_ARGUMENT", "missing topic id field")
        assert refusal(raw, methods.RETRIEVE_TOPIC, b"\x0a\x01x") == ("INVALID_ARGUMENT", "invalid topic id field")
        unknown = messages.retrieve_topic_request(ULID.new())
        assert refusal(raw, methods.RETRIEVE_TOPIC, unknown) == ("NOT_FOUND", "topic not found")
        assert refusal(raw, methods.DELETE_TOPIC) == ("INVALID_ARGUMENT", "invalid operation field")
        assert refusal(raw, methods.DELETE_TOPIC, b"\x10\x01") == ("INVALID_ARGUMENT", "missing id field")
        assert refusal(raw, methods.DELETE_TOPIC, b"\x0a\x01x\x10\x01") == ("INVALID_ARGUMENT", "invalid id field")
        gone = messages.delete_topic_request(ULID.new(), 2)
        assert refusal(raw, methods.DELETE_TOPIC, gone) == ("NOT_FOUND", "topic not found")
        assert refusal(raw, methods.INFO, b"\x0a\x01x")[1] == "could not parse topic id in info request filter"
        assert refusal(raw, methods.LIST_TOPICS, b"\xff")[0] == "INTERNAL"

    def test_pages(self, raw):
        """Lists come in pages of the size that is asked for, in order, each topic once."""
        for n in range(9):
            raw(methods.CREATE_TOPIC, messages.create_topic_request(f"t{n}", ULID.new()))
        sizes, seen, token = [], [], ""
        while True:
            page = messages.topics_page_reply(raw(methods.LIST_TOPICS, messages.page_request(4, token)))
            sizes.append(len(page.items))
            seen += [str(topic.id) for topic in page.items]
            token = page.next_token
            if not token:
                break
        assert sizes == [4, 4, 2]
        assert seen == sorted(set(seen))
        for bad in ("!", "AAAA", "x" * 50):
            assert refusal(raw, methods.LIST_TOPICS, messages.page_request(4, bad))[0] == "INTERNAL"

    def test_exists(self, raw):
        """By name, by id, by both; neither is refused."""
        assert messages.topic_exists_reply(raw(methods.TOPIC_EXISTS, messages.topic_exists_request("weather")))
        assert not messages.topic_exists_reply(raw(methods.TOPIC_EXISTS, messages.topic_exists_request("no")))
        text = "must specify either or both topic name and id"
        assert refusal(raw, methods.TOPIC_EXISTS) == ("INVALID_ARGUMENT", text)

    def test_names_are_hashes(self, raw):
        """TopicNames gives the hash of a name in its place."""
        reply = raw(methods.TOPIC_NAMES)
        assert topic_name_hash("weather").encode() in reply


class TestAuth:
    """The REST side."""

    def test_authenticate(self, raw, node):
        """Codes, texts and content types of the real service."""
        kind = "application/json; charset=utf-8"
        status, content_type, body = raw.post(
            "/v1/authenticate", client_id=node.client_id, client_secret=node.client_secret, more="ignored"
        )
        assert (status, content_type, sorted(body)) == (200, kind, ["access_token", "refresh_token"])
        wrong = {"success": False, "error": "invalid credentials"}
        assert raw.post("/v1/authenticate", client_id="x", client_secret="y") == (403, kind, wrong)
        missing = {"success": False, "error": "missing credentials"}
        assert raw.post("/v1/authenticate") == (400, kind, missing)
        for data in (b"rubbish", b"[]", b'{"client_id": 7}', b"\xff"):
            status, content_type, body = raw.post("/v1/authenticate", data)
            assert (status, content_type) == (400, "text/plain; charset=utf-8")
            assert body["error"] == "could not parse request"

    def test_refresh(self, raw, node):
        """A refresh token is not good before its time, an access token never."""
        body = raw.post("/v1/authenticate", client_id=node.client_id, client_secret=node.client_secret)[2]
        text = "Logged out of your account - please log back in!"
        for token in (body["refresh_token"], body["access_token"], "rubbish"):
            status, _, answer = raw.post("/v1/refresh", refresh_token=token)
            assert (status, answer["error"]) == (403, text)
        assert raw.post("/v1/refresh", refresh_token="")[0] == 400
        assert raw.post("/v1/refresh", b"rubbish")[1] == "text/plain; charset=utf-8"

    def test_routes(self, raw):
        """Status and keys are there; other paths are 404, other methods 405."""
        assert raw.http("GET", "/v1/status")[2]["status"] == "ok"
        assert raw.http("GET", "/.well-known/jwks.json")[2]["keys"][0]["alg"] == "RS256"
        assert raw.http("GET", "/nowhere")[0] == 404
        assert raw.http("GET", "/v1/authenticate")[0] == 405
        assert raw.http("POST", "/v1/status", b"{}")[0] == 405


def test_tokens_expire_and_are_renewed(tmp_path):
    """With tokens of a second a client goes on, by refreshing or authenticating anew."""
    from ensign_sync.node import Node

    with Node(topics=["weather"], access_duration=1.0, refresh_duration=3.0) as node, node.client() as client:
        import time

        until = time.monotonic() + 3.5
        while time.monotonic() < until:
            client.get_topics()
        client.publish("weather", b"x")
        assert node.tokens_issued >= 3


def test_too_many_calls_are_refused(monkeypatch):
    """Beyond its number of calls a node refuses at once, and serves again when one has ended."""
    from ensign_sync.node import Node, server

    monkeypatch.setattr(server, "MOST_CALLS", 3)
    with Node() as node, Raw(node) as raw:
        watches = [raw.channel.unary_stream(methods.HEALTH_WATCH.path)(b"", timeout=30) for _ in range(3)]
        for watch in watches:
            next(watch)
        assert refusal(raw, methods.STATUS)[0] == "RESOURCE_EXHAUSTED"
        for watch in watches:
            watch.cancel()
        until_served = [False]
        while not until_served[0]:
            try:
                until_served[0] = bool(raw(methods.STATUS))
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_taken_port_is_a_clear_error(node):
    """A port in use is named."""
    from ensign_sync import NodeError
    from ensign_sync.node import Node

    for name in ("port", "auth_port"):
        taken = int((node.endpoint if name == "port" else node.auth_url).rpartition(":")[2])
        with pytest.raises(NodeError, match=str(taken)):
            Node(**{name: taken})


def test_a_node_in_a_file_keeps_its_events(tmp_path):
    """Events, topics and the API key are there after a restart, and ids go on."""
    from ensign_sync.node import Node

    path = str(tmp_path / "data.db")
    with Node(path, topics=["weather"]) as node, node.client() as client:
        client.publish("weather", b"1", b"2")
        key, before = node.client_id, node.events("weather")
    with Node(path) as node, node.client() as client:
        client.publish("weather", b"3")
        events = node.events("weather")
        assert node.client_id == key
    assert [event.data for event in events] == [b"1", b"2", b"3"]
    assert [event.id for event in events[:2]] == [event.id for event in before]
    assert events[1].id < events[2].id


def test_stopping_with_grace_ends_streams_at_once(node):
    """A node that is told to stop ends open subscriptions itself, and answers publishers before it goes."""
    import time

    client = node.client()
    with client.subscribe("weather") as sub:
        futures = [client.submit("weather", str(n)) for n in range(200)]
        futures[0].result(30)
        started = time.monotonic()
        node.stop(20)
        assert time.monotonic() - started < 10, "it did not wait for the subscriber"
        stored = sum(1 for future in futures if future.done() and not future.exception())
        client.close(0.2)
        assert sub.stats()["state"] != "OPEN"
    assert stored >= 1
