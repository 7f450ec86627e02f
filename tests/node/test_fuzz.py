"""Whatever is sent to a node, it answers in time and in its own words, goes on for everybody else, and leaves nothing.

``fuzz`` does the same for as long as one likes: ``python -m tests.node.fuzz 600``.
"""

import contextlib
import functools
import http.client
import json
import queue
import random
import socket
import threading

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensign_sync.api.v1beta1 import ensign_pb2
from ensign_sync.ids import ULID
from ensign_sync.node import Node
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods, records
from tests.node import fuzz
from tests.node.fuzz import LIMIT, MOST, REQUESTS, SINGLE, Fuzzer, Target, padded
from tests.node.raw import Raw, RawStream, event, opening, refusal, subscription
from tests.size import by_size
from tests.waiting import eventually

#: Hardly depends on the Python below it.
pytestmark = pytest.mark.ends

both = pytest.mark.parametrize("strict", [True, False], ids=["strict", "friendly"])


@both
@pytest.mark.parametrize("action", ["call", "stream", "query", "http", "several", "storm", "group"])
def test_whatever_is_sent(strict, action):
    """Each request is answered in time, as bad as it is; nothing is logged as an error or raised in a thread."""
    with Target(strict) as target:

        @settings(
            max_examples=by_size(25, 25, 150, 4_000),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        # A seed, and no source of randomness: an example that has drawn too much would be broken off with streams open.
        @given(st.integers(0, 2**32))
        def run(seed):
            with Fuzzer(target, random.Random(seed)) as fuzzer:
                getattr(fuzzer, action)()
            assert not target.noted

        run()
        target.check()
        target.settle()
        assert not target.noted


@both
@pytest.mark.parametrize("server", ["direct", pytest.param("public", marks=pytest.mark.ends)])
def test_rounds_of_everything(strict, server, monkeypatch):
    """After rounds of everything at once a node in its process works, and is not larger than when it was warm."""
    monkeypatch.setenv("ENSIGN_SYNC_NODE_SERVER", server)
    rounds = by_size(3, 3, 8, 240)
    with Target(strict, process=True) as target:
        sizes = []
        for number in range(rounds):
            fuzz.run_round(target, f"test-{strict}-{number}", by_size(40, 30, 150, 150))
            sizes.append(fuzz.Size.of(target.node.pid))
        warm, last = fuzz.growth(sizes)
        print(f"{rounds} rounds: first {sizes[0]}, warm {warm}, last {last}")
        # A request of the largest size leaves some pages to the allocator; a connection that is no HTTP/2 two minutes
        # of a socket to gRPC; the threads of a pool stay for half a minute.
        assert last.memory < warm.memory + 64
        assert last.threads < warm.threads + 24
        assert last.files < warm.files + 48


@pytest.mark.ends
def test_the_program(capsys):
    """The program fuzzes both kinds of node, says with which seed, and succeeds."""
    assert fuzz.main(["0", "--seed", "tests", "--steps", "20"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("seed tests")
    assert "strict: 1 rounds" in told and "friendly: 1 rounds" in told


def test_the_program_tells_of_trouble(capsys, monkeypatch):
    """A node that does not do what it should is trouble, and the last things sent are told."""
    monkeypatch.setattr(fuzz, "ENDINGS", {"UNKNOWN"})
    assert fuzz.main(["0", "--seed", "tests", "--steps", "20", "--kind", "strict"]) == 1
    told = capsys.readouterr().out
    assert "TROUBLE: in the round tests-strict-0" in told and "last sent" in told


class TestTheLargestRequest:
    """4 MiB, and one byte less or more."""

    REFUSED = ("RESOURCE_EXHAUSTED", f"grpc: received message larger than max ({MOST + 1} vs. {MOST})")

    @both
    def test_single_calls(self, strict):
        """A request of the largest size is looked at, one byte more is refused, by every call."""
        with Node(topics=["weather"], strict=strict, faults=False) as node, Raw(node) as raw:
            for method in SINGLE:
                call = raw.channel.unary_stream(method.path)
                for size in (MOST - 1, MOST, MOST + 1):
                    ending = ("OK", "")
                    try:
                        for _ in call(padded(b"", size), metadata=raw.metadata(None), timeout=LIMIT):
                            break  # who watches the health would never be done
                    except grpc.RpcError as error:
                        ending = (error.code().name, error.details())
                    assert (ending == self.REFUSED) == (size > MOST), (method.name, size, ending)

    @both
    def test_publish(self, strict):
        """An event of the largest size is stored; one byte more ends the stream, after the acks of what was before."""
        with Node(topics=["weather"], strict=strict, faults=False) as node, Raw(node) as raw:
            id = raw.topic_id()
            spare = len(event(id, payload=bytes(MOST))) - MOST
            fitting, larger = (event(id, b"2" * 16, bytes(MOST - spare + more)) for more in (0, 1))
            assert (len(fitting), len(larger)) == (MOST, MOST + 1)
            stream, _ = raw.publisher()
            stream.send(event(id, b"1" * 16), fitting)
            assert [stream.take().id for _ in range(2)] == [b"1" * 16, b"2" * 16]
            stream.send(larger)
            assert stream.rest() == [], "no farewell"
            assert stream.status == self.REFUSED
            stream.half_close()
            assert [len(row.payload) for row in raw.rows("SELECT * FROM weather")] == [9, MOST - spare]
            stream = RawStream(raw, methods.PUBLISH, codec.decode_publisher_reply)
            stream.send(padded(opening(), MOST + 1))
            assert (stream.rest(), stream.status) == ([], self.REFUSED)
            stream.half_close()

    @both
    def test_subscribe(self, strict):
        """The first and later messages of a subscriber have the same limit."""
        with Node(topics=["weather"], strict=strict, faults=False) as node, Raw(node) as raw:
            for first in (MOST, MOST + 1):
                stream = RawStream(raw, methods.SUBSCRIBE, codec.decode_subscribe_reply)
                stream.send(padded(subscription(), first))
                if first == MOST:
                    assert isinstance(stream.take(), frames.Ready)
                    stream.send(padded(b"", MOST), padded(b"", MOST + 1))
                assert (stream.rest(), stream.status) == ([], self.REFUSED)
                stream.half_close()

    def test_every_call_has_its_request(self):
        """Nothing is left out of the fuzzing."""
        there = {value for value in vars(methods).values() if isinstance(value, methods.Method)}
        assert set(REQUESTS) == there


class TestOddEnds:
    """What is sent, or not sent, at the wrong moment."""

    @both
    @pytest.mark.parametrize("method", SINGLE, ids=lambda method: method.name)
    def test_no_request_at_all(self, strict, method):
        """A call of one request that is half-closed before it ends at once."""
        with Node(topics=["weather"], strict=strict, faults=False) as node, Raw(node) as raw:
            call = raw.channel.stream_stream(method.path)
            with pytest.raises(grpc.RpcError) as caught:
                list(call(iter(()), metadata=raw.metadata(None), timeout=LIMIT))
            assert caught.value.code().name == "INTERNAL"
            eventually(lambda: node._life.calls == 0)

    @both
    def test_who_asks_without_end(self, strict):
        """A watch has one request: who sends more, and takes no answers, is not answered without end."""
        with Node(strict=strict, faults=False) as node, Raw(node) as raw:
            call = raw.channel.stream_stream(methods.HEALTH_WATCH.path)
            watch = call(iter([b""] * 50), timeout=LIMIT)
            assert next(watch) == records.health_reply(1)
            node.stop()
            assert list(watch) == [records.health_reply(2)]

    @both
    def test_a_publisher_that_takes_no_answers(self, strict):
        """It is not read from while its answers wait, so that they do not pile up; later it gets all of them."""
        count = 8_000
        refused = event(bytes(15), b"x" * 5_000)  # it is answered with its own id
        with Node(topics=["weather"], strict=strict, faults=False) as node, Raw(node) as raw:
            done = threading.Event()

            def requests():
                yield opening()
                for _ in range(count):
                    yield refused
                done.set()

            call = raw.channel.stream_stream(methods.PUBLISH.path)(requests(), metadata=raw.metadata(None), timeout=120)
            assert isinstance(codec.decode_publisher_reply(next(call)), frames.Ready)
            (stream,) = node._living.service._streams
            eventually(lambda: done.is_set() or stream._paused)
            assert not done.is_set()
            assert stream.call.waiting_bytes <= (16 << 20) + 10_000
            replies = [codec.decode_publisher_reply(reply) for reply in call]
            assert [reply.id for reply in replies[:-1]] == [b"x" * 5_000] * count
            assert (replies[-1].events, replies[-1].nacks) == (0, count)

    def test_half_a_character(self):
        """JSON can spell what no text can hold: such a name or secret is a wrong one, like any other."""
        with Node() as node, Raw(node) as raw:
            half = "\ud800"
            right = {"client_id": node.client_id, "client_secret": node.client_secret}
            for name in right:
                assert raw.post("/v1/authenticate", **{**right, name: half})[0] == 403
                assert raw.post("/v1/authenticate", **{**right, name: right[name] + half})[0] == 403
            assert raw.post("/v1/login", email=half, password=half)[0] == 403
            assert raw.post("/v1/refresh", refresh_token=half)[0] == 403
            secret = {"password": "correct horse 7" + half, "pwcheck": "correct horse 7" + half}
            agreed = {"terms_agreement": True, "privacy_agreement": True}
            person = {"name": half, "email": f"a{half}@x", "organization": half, "domain": half, **secret, **agreed}
            assert raw.post("/v1/register", **person)[0] == 201
            assert raw.post("/v1/login", email=f"a{half}@x", password=secret["password"])[0] == 200
            assert raw.post("/v1/authenticate", **right)[0] == 200


class TestGroups:
    """Consumer groups of a friendly node."""

    @pytest.fixture
    def node(self):
        with fuzz.Watch() as watch:
            with Node(topics=["weather"], strict=False) as running:
                yield running
            assert not watch.noted

    def member(self, raw, seconds=0, nanos=0, name="g"):
        """Return the first message of a member whose patience is so long."""
        request = ensign_pb2.SubscribeRequest()
        group = request.subscription.group
        group.name = name
        group.delivery_timeout.seconds, group.delivery_timeout.nanos = seconds, nanos
        return request.SerializeToString()

    @pytest.mark.parametrize("seconds", [10**6, 2**62, -(2**62)])
    def test_any_patience(self, node, seconds):
        """A group may be as patient as it likes, or not at all: it gets its events, also after a while."""
        groups = node._living.service.groups
        with Raw(node) as raw:
            stream = RawStream(raw, methods.SUBSCRIBE, codec.decode_subscribe_reply)
            stream.send(self.member(raw, seconds))
            assert isinstance(stream.take(), frames.Ready)
            for number in range(3):
                raw.publish([opening(), event(raw.topic_id(), payload=b"\x12\x01%d" % number)])
                assert stream.take().payload == b"\x12\x01%d" % number
                eventually(lambda: not groups._dirty)  # now all is kept, and there is nothing to do until much later
            stream.cancel()

    def test_a_member_that_takes_nothing(self, node):
        """Events that it does not answer are not sent to it again and again: they wait for it, or for another."""
        with Raw(node) as raw, Raw(node) as slow:
            requests = queue.Queue()
            requests.put(self.member(raw, nanos=200_000_000))
            call = slow.channel.stream_stream(methods.SUBSCRIBE.path)
            stalled = call(iter(requests.get, None), metadata=slow.metadata(None), timeout=120)
            next(stalled)
            (stream,) = node._living.service._streams
            id = raw.topic_id()
            raw.publish([opening(), *(event(id, bytes(16), b"\x12\xa0\x8d\x06" + bytes(100_000)) for _ in range(200))])
            (group,) = node._living.service.groups._groups.values()
            eventually(lambda: group.redelivered > 20)
            for _ in range(50):
                raw.publish([opening(), event(id)])
            assert stream.call.waiting <= 300
            assert stream.call.waiting_bytes <= 16 << 20
            other = RawStream(raw, methods.SUBSCRIBE, codec.decode_subscribe_reply)
            other.send(self.member(raw))
            assert isinstance(other.take(), frames.Ready)
            got = set()  # what it has for longer than the group's patience comes to it once more
            eventually(lambda: got.add(other.take().id) or len(got) >= 100)
            stalled.cancel()
            requests.put(None)
            other.cancel()


class TestSlowHTTP:
    """HTTP requests that come in pieces, or not at all."""

    def connect(self, node):
        host, _, port = node.auth_url.rpartition("/")[2].partition(":")
        return contextlib.closing(socket.create_connection((host, int(port)), LIMIT))

    def test_a_request_in_pieces(self, node):
        """A request may take its time; others are served meanwhile."""
        body = json.dumps({"client_id": node.client_id, "client_secret": node.client_secret})
        head = f"POST /v1/authenticate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with self.connect(node) as slow, Raw(node) as raw:
            slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for character in head + body:
                slow.sendall(character.encode())
                if character in "\n{,":
                    assert raw.http("GET", "/v1/status")[0] == 200
            reply = http.client.HTTPResponse(slow)
            reply.begin()
            assert reply.status == 200

    @pytest.mark.parametrize("length", ["100", "-1", "x", "99999999999", "1048577", ""])
    def test_a_length_that_is_not_true(self, node, length):
        """A body that is shorter than announced, or longer than anybody needs, is refused once it ends."""
        with self.connect(node) as sock:
            sock.sendall(f"POST /v1/authenticate HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{}}".encode())
            sock.shutdown(socket.SHUT_WR)
            reply = http.client.HTTPResponse(sock)
            reply.begin()
            assert reply.status == 400

    def test_connections_that_say_nothing(self, node):
        """Beyond the number that is served at once a node says so at once, and it serves again when one has gone."""
        from ensign_sync.node.rest import MOST_REQUESTS

        with contextlib.ExitStack() as stack, Raw(node) as raw:
            first = stack.enter_context(self.connect(node))
            for _ in range(MOST_REQUESTS - 1):
                stack.enter_context(self.connect(node))
            address = node.auth_url.rpartition("/")[2].split(":")
            ask = functools.partial(http.client.HTTPConnection, *address, timeout=LIMIT)

            def status():
                with contextlib.closing(ask()) as connection:
                    connection.request("GET", "/v1/status")
                    return connection.getresponse().status

            eventually(lambda: status() == 503)
            first.close()
            eventually(lambda: status() == 200)
            assert raw(methods.STATUS), "calls were not touched by this"


@both
def test_a_token_of_another_page(strict):
    """Pages that are asked for with any token give a page or a refusal; the good ones lead through all topics."""
    with Node(strict=strict, faults=False) as node, Raw(node) as raw:
        names = sorted(f"t{n}" for n in range(25))
        for name in names:
            raw(methods.CREATE_TOPIC, messages.create_topic_request(name, ULID.new()))
        found, token = [], ""
        while True:
            page = messages.topics_page_reply(raw(methods.LIST_TOPICS, messages.page_request(7, token)))
            found += [topic.name for topic in page.items]
            token = page.next_token
            if not token:
                break
        assert sorted(found) == names
        code = "INTERNAL" if strict else "INVALID_ARGUMENT"
        for bad in ("x", "====", "\u00e9", "AAAA", "x" * 100_000):
            text = "unable to process list topics request"
            assert refusal(raw, methods.LIST_TOPICS, messages.page_request(1, bad)) == (code, text)
