"""What a strict node has in common with the real server, and what a friendly one does instead (docs/node.rst)."""

import json
import queue

import grpc
import pytest

from ensign_sync.ids import ULID
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods
from tests.node.raw import Raw, event, opening, refusal, subscription
from tests.waiting import eventually


def data(*numbers):
    """Return events as they go over the wire, whose data are numbers."""
    return [codec.encode_event(made(n)) for n in numbers]


def made(n, **options):
    """Return an event."""
    from ensign_sync.events import Event

    content = json.dumps({"n": n, **options}).encode()
    return Event(content, meta={"kind": "test"}, schema_name="S", schema_version="1.2.0")


def put(raw, payloads, topic="weather"):
    """Publish payloads and wait for the answers."""
    id = raw.topic_id(topic)
    requests = [opening(), *(event(id, bytes([n]), payload) for n, payload in enumerate(payloads))]
    replies, end = raw.publish(requests)
    assert end == ("OK", "")
    return replies[1:-1]


def numbers(rows):
    """Return what events carry."""
    return [json.loads(codec.decode_event(row, "t").data)["n"] for row in rows]


class TestPublish:
    """The publish stream."""

    def test_answers_are_lost_at_an_early_half_close(self, node, raw):
        """Strict: what is not answered at the half-close never is, and is stored all the same."""
        id = raw.topic_id()
        node.faults.delay_acks(0.5)
        replies, end = raw.publish([opening(), *(event(id, bytes([n])) for n in range(50))], answers=1)
        assert end == ("OK", "")
        farewell = replies[-1]
        acks = [reply for reply in replies if isinstance(reply, frames.Ack)]
        assert isinstance(farewell, frames.CloseStream)
        assert farewell.events == 50
        assert len(acks) < 50
        assert len(node.wait_for("weather", 50)) == 50

    def test_answers_come_before_the_end(self, friendly, raw_friendly):
        """Friendly: every event is answered, however early the half-close."""
        id = raw_friendly.topic_id()
        replies, _ = raw_friendly.publish([opening(), *(event(id, bytes([n])) for n in range(50))], answers=0)
        assert [reply.id for reply in replies[1:-1]] == [bytes([n]) for n in range(50)]
        assert replies[-1] == frames.CloseStream(events=50, topics=1, acks=50, nacks=0)

    def test_topics_are_fixed_at_the_opening(self, raw, raw_friendly):
        """Strict: a topic that came later is unknown to an open stream. Friendly: it is not."""
        for caller, kind in ((raw, frames.Nack), (raw_friendly, frames.Ack)):
            stream, _ = caller.publisher()
            caller(methods.CREATE_TOPIC, messages.create_topic_request("later", ULID.new()))
            stream.send(event(caller.topic_id("later")))
            answer = stream.take()
            assert isinstance(answer, kind)
            stream.cancel()

    def test_a_filter_is_a_filter(self, raw_friendly):
        """Friendly: a stream that named its topics gets no others."""
        stream, _ = raw_friendly.publisher("weather")
        raw_friendly(methods.CREATE_TOPIC, messages.create_topic_request("later", ULID.new()))
        stream.send(event(raw_friendly.topic_id("later")))
        assert isinstance(stream.take(), frames.Nack)
        stream.cancel()

    def test_archived_topics(self, raw, raw_friendly):
        """Strict: takes events as ever. Friendly: refuses with TOPIC_ARCHIVED."""
        for caller, kind in ((raw, frames.Ack), (raw_friendly, frames.Nack)):
            caller(methods.DELETE_TOPIC, messages.delete_topic_request(ULID(caller.topic_id()), 1))
            (answer,) = put(caller, data(1))
            assert isinstance(answer, kind)
            if kind is frames.Nack:
                assert (int(answer.code), answer.error) == (3, "cannot publish to an archived topic")

    def test_destroyed_topics(self, raw, raw_friendly):
        """Strict: an open stream goes on, and subscribers get what nobody can read any more. Friendly: refused."""
        for caller, strict in ((raw, True), (raw_friendly, False)):
            stream, topics = caller.publisher()
            subscriber = caller.subscriber("weather")
            caller(methods.DELETE_TOPIC, messages.delete_topic_request(ULID(topics["weather"]), 2))
            stream.send(event(topics["weather"], b"1", data(1)[0]))
            answer = stream.take()
            if strict:
                assert isinstance(answer, frames.Ack)
                assert numbers([subscriber.take()]) == [1]
                text = "unknown topic in query"
                assert refusal(caller.rows, "SELECT * FROM weather") == ("INVALID_ARGUMENT", text)
            else:
                assert (int(answer.code), answer.error) == (4, "topic is currently being deleted")
            stream.cancel()
            subscriber.cancel()

    def test_the_counter_in_ids_is_the_nodes(self, node, raw):
        """Consecutive over all topics, starting with 1; after a restart it starts again, and ids still go up."""
        raw(methods.CREATE_TOPIC, messages.create_topic_request("other", ULID.new()))
        put(raw, data(1, 2))
        put(raw, data(3), "other")
        put(raw, data(4))
        ids = sorted(e.id for name in ("weather", "other") for e in node.events(name))
        assert [id.sequence for id in ids] == [1, 2, 3, 4]
        node.restart()
        with Raw(node) as again:
            put(again, data(5))
        last = node.events("weather")[-1].id
        assert last.sequence == 1
        assert last > ids[-1]

    def test_no_idempotence(self, node, raw):
        """A local id that was sent before is stored again."""
        id = raw.topic_id()
        raw.publish([opening(), event(id, b"same"), event(id, b"same")])
        assert len(node.events("weather")) == 2


class TestSubscribe:
    """The subscribe stream."""

    def test_it_is_live_only(self, raw):
        """What was stored before is not delivered."""
        put(raw, data(1))
        subscriber = raw.subscriber()
        put(raw, data(2))
        assert numbers([subscriber.take()]) == [2]
        subscriber.cancel()

    def test_groups_and_answers_are_ignored(self, node, raw):
        """Strict: every member gets everything, and a nack brings nothing back."""
        members = [raw.subscriber(group="g") for _ in range(2)]
        put(raw, data(*range(5)))
        for member in members:
            got = [member.take() for _ in range(5)]
            assert numbers(got) == list(range(5))
            member.send(codec.encode_subscriber_frame(frames.Nack(got[0].id, 104)))
        eventually(lambda: len(node.nacks) == 2)
        assert all(member.nothing() for member in members)
        for member in members:
            member.cancel()

    def test_the_end_is_the_clients(self, raw):
        """A half-close does not end the stream, and there is no farewell."""
        subscriber = raw.subscriber()
        subscriber.half_close()
        put(raw, data(1))
        assert numbers([subscriber.take()]) == [1]
        subscriber.call.cancel()

    @pytest.mark.ends
    def test_beyond_the_buffer_events_are_dropped(self):
        """A subscriber that stops reading gets the first 16,384 and what was on its way, then nothing for a while."""
        from ensign_sync.node import Node

        count = 24_000
        payloads = [b"%d" % n for n in range(count)]
        with Node(topics=["weather"], faults=False) as node, Raw(node) as raw, Raw(node) as stalled:
            requests = queue.Queue()
            call = stalled.channel.stream_stream(methods.SUBSCRIBE.path)(
                iter(requests.get, None), metadata=stalled.metadata(None), timeout=300
            )
            requests.put(subscription("weather"))
            next(call)  # Ready; then nothing is read, and the flow control of the connection fills
            stream, topics = raw.publisher()
            padding = bytes(1000)  # so that less of it fits into the buffers on the way
            stream.send(*(event(topics["weather"], data, data + padding) for data in payloads))
            assert [stream.take().id for _ in range(count)] == payloads
            (subscriber,) = [s for s in node._living.service._streams if s.kind == "subscribe"]
            assert subscriber.dropped > 0
            left = count - subscriber.dropped
            got = [codec.decode_subscribe_reply(next(call)).payload for _ in range(left)]
            assert got == [data + padding for data in payloads[:left]]
            assert left >= 16_384
            stream.send(event(topics["weather"], b"after", b"after"))
            assert codec.decode_subscribe_reply(next(call)).payload == b"after"
            print(f"delivered {left}, dropped {subscriber.dropped}")
            call.cancel()
            requests.put(None)
            stream.cancel()


class TestQueries:
    """EnSQL."""

    @pytest.mark.parametrize("query", ['SELECT * FROM "weather"', "SELECT * FROM weather; x", "SELECT * FROM @x"])
    def test_what_the_parser_stumbles_over(self, raw, query):
        """Strict: OK and no rows."""
        put(raw, data(1))
        assert raw.rows(query) == []

    def test_the_friendly_parser(self, raw_friendly):
        """Friendly: quoted names work, and rubbish is refused with its place."""
        put(raw_friendly, data(1))
        assert numbers(raw_friendly.rows('SELECT * FROM "weather"')) == [1]
        code, text = refusal(raw_friendly.rows, "SELECT * FROM weather; x")
        assert code == "INVALID_ARGUMENT"
        assert text.startswith("syntax error at position 23")

    def test_keywords_match_as_prefixes(self, raw, raw_friendly):
        """Strict: a topic named orders cannot be queried. Friendly: it can."""
        for caller in (raw, raw_friendly):
            caller(methods.CREATE_TOPIC, messages.create_topic_request("orders", ULID.new()))
            put(caller, data(1), "orders")
        text = 'syntax error at position 14 near "OR": invalid topic identifier'
        assert refusal(raw.rows, "SELECT * FROM orders") == ("INVALID_ARGUMENT", text)
        assert numbers(raw_friendly.rows("SELECT * FROM orders")) == [1]

    def test_limit_zero(self, raw, raw_friendly):
        """Strict: one row. Friendly: none."""
        for caller, wanted in ((raw, [1]), (raw_friendly, [])):
            put(caller, data(1, 2))
            assert numbers(caller.rows("SELECT * FROM weather LIMIT 0")) == wanted

    def test_conditions_and_projections(self, raw, raw_friendly):
        """Strict: whole events of the whole topic. Friendly: what was asked for."""
        query = "SELECT n AS number, kind FROM weather.S.1 WHERE n >= 2 AND kind = 'test' LIMIT 2"
        for caller in (raw, raw_friendly):
            put(caller, data(*range(5)))
        assert numbers(raw.rows(query)) == [0, 1]
        rows = raw_friendly.rows(query)
        shown = [json.loads(codec.decode_event(row, "t").data) for row in rows]
        assert shown == [{"number": 2, "kind": "test"}, {"number": 3, "kind": "test"}]

    def test_parameters(self, raw_friendly):
        """Friendly: parameters are bound, as values."""
        put(raw_friendly, data(*range(5)))
        request = messages.query_request("SELECT * FROM weather WHERE n = :n OFFSET :skip", {"n": 3, "skip": 1}, False)
        call = raw_friendly.channel.unary_stream(methods.ENSQL.path)
        rows = [codec.decode_row(row) for row in call(request, metadata=raw_friendly.metadata(None), timeout=30)]
        assert numbers(rows) == [3]

    def test_rows_have_no_time(self, raw, raw_friendly):
        """Strict: a row has no committed. Friendly: it has."""
        for caller, there in ((raw, False), (raw_friendly, True)):
            put(caller, data(1))
            (row,) = caller.rows("SELECT * FROM weather")
            assert (row.committed is not None) is there

    def test_offset_of_an_event(self, raw_friendly):
        """Friendly: OFFSET takes an event's id, which comes first then."""
        from ensign_sync.ids import RLID

        put(raw_friendly, data(*range(5)))
        third = raw_friendly.rows("SELECT * FROM weather")[2]
        assert numbers(raw_friendly.rows(f"SELECT * FROM weather OFFSET '{RLID(third.id)}'")) == [2, 3, 4]

    def test_explain(self, raw, friendly):
        """Strict: UNIMPLEMENTED. Friendly: a text, which our client returns."""
        text = "explain query is not implemented yet"
        assert refusal(raw, methods.EXPLAIN) == ("UNIMPLEMENTED", text)
        with friendly.client() as client:
            assert "weather" in client.explain_query("SELECT * FROM weather LIMIT 3")

    def test_a_short_duplicate_id_ends_the_rows(self, raw, raw_friendly):
        """Strict: with include_duplicates the query ends there with OK, as in the real server; friendly: it goes on."""
        from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2

        for caller, wanted in ((raw, [1]), (raw_friendly, [1, 3])):
            id = caller.topic_id()
            wrapper = event_pb2.EventWrapper(
                topic_id=id, local_id=b"2", event=data(2)[0], is_duplicate=True, duplicate_id=b"x"
            )
            forged = ensign_pb2.PublisherRequest(event=wrapper).SerializeToString()
            first, last = (event(id, bytes([n]), data(n)[0]) for n in (1, 3))
            caller.publish([opening(), first, forged, last])
            call = caller.channel.unary_stream(methods.ENSQL.path)
            request = messages.query_request("SELECT * FROM weather", None, True)
            rows = [codec.decode_row(row) for row in call(request, metadata=caller.metadata(None), timeout=30)]
            assert numbers(rows) == wanted
            assert numbers(caller.rows("SELECT * FROM weather")) == [1, 3]


class TestCodes:
    """INTERNAL for bad requests."""

    def test_bad_requests(self, raw, raw_friendly):
        """Strict: INTERNAL, as in the real server. Friendly: INVALID_ARGUMENT with the same text."""
        taken = messages.create_topic_request("again", ULID(raw.topic_id()))
        for caller, code in ((raw, "INTERNAL"), (raw_friendly, "INVALID_ARGUMENT")):
            if caller is raw_friendly:
                taken = messages.create_topic_request("again", ULID(caller.topic_id()))
            bad_page = messages.page_request(4, "!")
            assert refusal(caller, methods.LIST_TOPICS, bad_page) == (code, "unable to process list topics request")
            assert refusal(caller, methods.TOPIC_NAMES, bad_page)[0] == code
            assert refusal(caller, methods.CREATE_TOPIC, taken) == (code, "could not process create topic request")
            no_id = "unable to process topic exists request"
            assert refusal(caller, methods.TOPIC_EXISTS, b"\x0a\x01x") == (code, no_id)
            assert refusal(caller, methods.LIST_TOPICS, b"\xff") == (code, "grpc: error unmarshalling request")

    def test_features_are_announced(self, raw, raw_friendly):
        """Only a friendly node tells what it does itself, with every call."""
        for caller, wanted in ((raw, None), (raw_friendly, "groups,redelivery,where,dedup")):
            call = caller.channel.unary_unary(methods.STATUS.path).with_call(b"", timeout=30)[1]
            assert dict(call.initial_metadata()).get("ensign-features") == wanted
            stream = caller.subscriber()
            assert dict(stream.call.initial_metadata()).get("ensign-features") == wanted
            stream.cancel()

    def test_pairs_of_name_and_id(self, raw, raw_friendly):
        """Strict: both exist, if as different topics. Friendly: the pair is looked at."""
        for caller, there in ((raw, True), (raw_friendly, False)):
            caller(methods.CREATE_TOPIC, messages.create_topic_request("other", ULID.new()))
            id = str(ULID(caller.topic_id("other"))).encode()
            request = b"\x0a" + bytes([len(id)]) + id + b"\x1a\x07weather"
            assert messages.topic_exists_reply(caller(methods.TOPIC_EXISTS, request)) is there

    def test_a_policy_without_deduplication(self, raw, raw_friendly):
        """Strict: OK and nothing. Friendly: refused."""
        for caller in (raw, raw_friendly):
            id = str(ULID(caller.topic_id())).encode()
            request = b"\x0a" + bytes([len(id)]) + id
            if caller is raw:
                assert caller(methods.SET_TOPIC_POLICY, request) == b""
            else:
                text = "no policies defined to set on topic"
                assert refusal(caller, methods.SET_TOPIC_POLICY, request) == ("INVALID_ARGUMENT", text)

    def test_compressed_requests(self, raw_friendly):
        """Friendly: gzip is understood."""
        call = raw_friendly.channel.unary_unary(methods.STATUS.path)
        assert call(b"", timeout=30, compression=grpc.Compression.Gzip)


def test_maintenance(node, raw):
    """In maintenance everything is UNAVAILABLE but Status, which says so, and the health check."""
    node.maintenance = True
    text = "the Ensign server is currently in maintenance mode"
    assert refusal(raw, methods.LIST_TOPICS) == ("UNAVAILABLE", text)
    assert raw.publish([]) == ([], ("UNAVAILABLE", text))
    assert messages.status_reply(raw(methods.STATUS, token=[])).status == 5
    assert raw(methods.HEALTH_CHECK, token=[]) == b"\x08\x01"
    node.maintenance = False
    assert raw.topic_id()
