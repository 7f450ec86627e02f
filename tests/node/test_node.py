"""A node as an object: ready when it is made, looked at, reset, restarted, in another process, over TLS, in a crowd."""

import os
import queue
import subprocess
import sys
import threading
import time

import grpc
import pytest

from ensign_sync import EnsignTimeoutError, NodeError
from ensign_sync.node import Node
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, methods
from tests.node.raw import Raw, event, opening, subscription
from tests.size import by_size
from tests.waiting import eventually


@pytest.mark.parametrize("process", [False, True])
def test_what_can_be_looked_at(process):
    """Events, answers, streams, connections and tokens, in this process and in another."""
    with Node(topics=["weather", "other"], process=process) as node, node.client() as client:
        assert node.topic_names() == ["other", "weather"]
        assert (node.pid == os.getpid()) is not process
        with client.subscribe("weather") as sub:
            client.publish("weather", "1", "2", "3")
            for n in range(3):
                received = sub.get(timeout=30)
                sub.ack(received) if n < 2 else sub.nack(received, 100)
            eventually(lambda: len(node.acks) == 2 and len(node.nacks) == 1)
            stored = node.wait_for("weather", 3, timeout=30)
            assert [e.data for e in stored] == [b"1", b"2", b"3"]
            assert node.acks == [e.id for e in stored[:2]]
            assert node.nacks == [(stored[2].id, 100)]
            assert node.acks_sent == 3
            assert node.streams == 2
            assert node.connections == 1
            assert node.tokens_issued == 1
        with pytest.raises(EnsignTimeoutError, match=r"3 of 4 events after 0\.05 seconds"):
            node.wait_for("weather", 4, timeout=0.05)
        with pytest.raises(KeyError, match="nothing"):
            node.events("nothing")


@pytest.mark.parametrize("process", [False, True])
def test_reset(process):
    """As new: its own topics without events, no other keys, no faults; a client goes on."""
    with Node(topics=["weather"], process=process) as node, node.client() as client:
        client.create_topic("more")
        client.publish("weather", "x")
        key = node.create_api_key()
        node.faults.nack_next(5)
        node.reset()
        assert node.topic_names() == ["weather"]
        assert node.events("weather") == []
        assert (node.acks, node.acks_sent, node.tokens_issued) == ([], 0, 0)
        assert len(client.publish("weather", "y", timeout=30)) == 1
        assert [e.data for e in node.events("weather")] == [b"y"]
        with pytest.raises(Exception, match="invalid credentials"):
            node.client(**key._asdict()).get_topics()


def test_the_clock_of_the_tokens(node):
    """An hour passes in no time: tokens expire, and a client gets others."""
    with node.client() as client:
        client.get_topics()
        for hours in range(1, 4):
            node.token_clock.advance(3600)
            client.get_topics()
            assert node.tokens_issued == 1 + hours


def test_a_node_of_its_own_for_programs_that_fork(tmp_path):
    """A parent with a node in another process forks, and both sides use it."""
    program = """
import os
from ensign_sync.node import Node
node = Node(topics=["weather"], process=True)
pid = os.fork()
if pid == 0:
    with node.client() as client:
        client.publish("weather", "child")
    assert [e.data for e in node.events("weather")] == [b"child"]
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
with node.client() as client:
    client.publish("weather", "parent")
print([e.data for e in node.events("weather")])
node.stop()
"""
    result = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=120, cwd=os.getcwd())
    assert result.stdout == b"[b'child', b'parent']\n"


def test_a_process_ends_with_who_started_it():
    """Also when that dies without a word."""
    program = """
import os, signal
from ensign_sync.node import Node
node = Node(process=True)
print(node.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=120, cwd=os.getcwd())
    pid = int(result.stdout)
    eventually(lambda: not os.path.exists(f"/proc/{pid}/exe") or not os.path.exists(f"/proc/{pid}"))


def test_what_keeps_a_process_from_starting(tmp_path):
    """The error is the one of a node in this process."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database. " * 100)
    from ensign_sync.exceptions import NodeStorageError

    with pytest.raises(NodeStorageError, match=r"notes\.txt"):
        Node(str(path), process=True)
    with pytest.raises(ValueError, match="topic name is invalid"):
        Node(topics=["no spaces"], process=True)


@pytest.mark.parametrize("process", [False, True])
def test_restart(process, tmp_path):
    """The same ports, keys and events, in memory or in a file."""
    for path in (":memory:", str(tmp_path / "data.db")):
        with Node(path, topics=["weather"], process=process) as node, node.client() as client:
            before = (node.endpoint, node.auth_url, node.client_id)
            client.publish("weather", "1")
            node.restart()
            assert (node.endpoint, node.auth_url, node.client_id) == before
            client.publish("weather", "2", timeout=60)
            assert [e.data for e in node.events("weather")] == [b"1", b"2"]
        with pytest.raises(NodeError, match="stopped"):
            node.restart()


def make_certificate(folder):
    """Make a self-signed certificate for loopback; returns its file and that of its key."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return certificate, key


@pytest.mark.parametrize("process", [False, True])
def test_tls(process, tmp_path):
    """Both ports speak TLS; a client that trusts the certificate works, one that speaks plaintext gets nowhere."""
    tls = make_certificate(tmp_path)
    with Node(topics=["weather"], tls=tls, process=process) as node:
        assert node.auth_url.startswith("https://")
        assert node.env()["ENSIGN_INSECURE"] == "false"
        with node.client() as client:
            client.publish("weather", "x")
            assert len(client.query("SELECT * FROM weather").fetchall()) == 1
        with grpc.insecure_channel(node.endpoint) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(methods.STATUS.path)(b"", timeout=5)
    with pytest.raises(NodeError, match=r"nothing\.pem"):
        Node(tls=(str(tmp_path / "nothing.pem"), tls[1]))


def test_another_address_than_loopback_is_told_loudly(caplog):
    """Plaintext for others to see is a warning that says what it means; on loopback there is none."""
    with Node():
        assert not caplog.records
    with Node(host="0.0.0.0", topics=["weather"]) as node, node.client() as client:
        client.publish("weather", "x")
        assert node.endpoint.startswith("127.0.0.1:")
    (record,) = caplog.records
    assert "without TLS" in record.getMessage()


def test_ipv6():
    """Loopback of IPv6."""
    with Node(host="::1", topics=["weather"]) as node, node.client() as client:
        client.publish("weather", "x")
        assert node.endpoint.startswith("[::1]:")


@pytest.mark.parametrize("server", ["direct", pytest.param("public", marks=pytest.mark.ends)])
def test_a_crowd(server, monkeypatch):
    """100 subscribers and 20 publishers at once: everybody gets everything in order, with few threads of the node."""
    monkeypatch.setenv("ENSIGN_SYNC_NODE_SERVER", server)
    subscribers, publishers, each = 100, 20, by_size(10, 10, 20, 250)
    with Node(topics=["weather"], faults=False) as node, Raw(node) as raw:
        streams = [raw.subscriber() for _ in range(subscribers)]
        threads = [t.name for t in threading.enumerate() if t.name.startswith("ensign-node")]
        if server == "direct":
            assert len(threads) < 30, threads
        sources = [raw.publisher() for _ in range(publishers)]
        for number, (stream, topics) in enumerate(sources):
            payloads = [b"%d %d" % (number, n) for n in range(each)]
            stream.send(*(event(topics["weather"], payload, payload) for payload in payloads))
        for number, (stream, _) in enumerate(sources):
            assert [stream.take().id for _ in range(each)] == [b"%d %d" % (number, n) for n in range(each)]
        stored = [e.id.bytes for e in node.events("weather")]
        assert len(stored) == publishers * each
        for stream in streams:
            assert [stream.take().id for _ in stored] == stored
        for stream in [*streams, *(stream for stream, _ in sources)]:
            stream.cancel()
        eventually(lambda: node.streams == 0)


def test_a_stalled_subscriber_costs_the_others_nothing():
    """Its events wait in bounded memory; the others get theirs, and publishers their acks."""
    with Node(topics=["weather"], process=True, faults=False) as node, Raw(node) as raw, Raw(node) as stalled:
        requests = queue.Queue()
        call = stalled.channel.stream_stream(methods.SUBSCRIBE.path)(
            iter(requests.get, None), metadata=stalled.metadata(None), timeout=300
        )
        requests.put(subscription("weather"))
        next(call)
        lively = raw.subscriber()
        stream, topics = raw.publisher()
        before, count, size = _resident(node.pid), by_size(300, 200, 1_000, 10_000), 200_000
        for n in range(count):
            stream.send(event(topics["weather"], b"%d" % n, bytes(size)))
            if n % 50 == 49:
                assert [stream.take().id for _ in range(50)][-1] == b"%d" % n
                assert [lively.take().id for _ in range(50)]
        grown = _resident(node.pid) - before
        print(f"{count * size >> 20} MiB published past a stalled subscriber, the node grew by {grown >> 20} MiB")
        assert grown < 150 << 20
        got = [codec.decode_subscribe_reply(next(call)) for _ in range(count)]
        assert [d.id for d in got] == [e.id.bytes for e in node.events("weather")]
        call.cancel()
        requests.put(None)
        for each in (stream, lively):
            each.cancel()


def _resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.ends
def test_a_publisher_that_does_not_read_its_answers(node, raw):
    """It is not read from either, once 16,384 answers wait for it; others go on, and nothing is lost."""
    topic, sent = raw.topic_id(), [0]
    full, read = threading.Event(), threading.Event()

    def requests():
        yield opening("weather")
        while not full.is_set():
            sent[0] += 1
            yield event(topic, b"x" * 500)
        read.wait(120)

    call = raw.channel.stream_stream(methods.PUBLISH.path)(requests(), metadata=raw.metadata(None), timeout=300)
    next(call)
    served = next(c for c in node._living._server._calls if c.method == methods.PUBLISH.path)
    eventually(lambda: served.waiting >= 16_384, 60)
    full.set()
    stream, topics = raw.publisher()
    stream.send(event(topics["weather"], b"1"))
    assert isinstance(stream.take(), frames.Ack)
    assert served.waiting < 16_384 * 2 + 5_000
    answers = 0
    while answers < sent[0]:
        assert isinstance(codec.decode_publisher_reply(next(call)), frames.Ack)
        answers += 1
    read.set()
    stream.cancel()


def test_a_stalled_query_holds_no_thread(node, raw):
    """Any number of readers that stop in the middle leave the node's pool free."""
    with node.client() as client:
        client.publish("weather", [bytes(20_000)] * 200)
    from ensign_sync.wire import messages

    request = messages.query_request("SELECT * FROM weather", None, False)
    calls = []
    for _ in range(40):
        call = raw.channel.unary_stream(methods.ENSQL.path)(request, metadata=raw.metadata(None), timeout=300)
        next(call)
        calls.append(call)
    assert raw.topic_id()
    assert sum(1 for _ in calls[7]) == 199
    for call in calls:
        call.cancel()


def test_beyond_the_most_calls(monkeypatch):
    """Beyond its number of calls a node refuses at once, and says how many; it serves again when some have ended."""
    from ensign_sync.node import server

    monkeypatch.setattr(server, "MOST_CALLS", 5)
    with Node(topics=["weather"]) as node, Raw(node) as raw:
        streams = [raw.subscriber() for _ in range(5)]
        with pytest.raises(grpc.RpcError) as caught:
            raw(methods.STATUS)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "5 calls" in caught.value.details()
        streams.pop().cancel()
        eventually(lambda: _served(raw))
        for stream in streams:
            stream.cancel()


def _served(raw):
    try:
        return raw(methods.STATUS)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return None


@pytest.mark.parametrize("server", ["direct", "public"])
def test_both_servers(server, monkeypatch):
    """The same service on grpcio's completion queue and on its public server."""
    monkeypatch.setenv("ENSIGN_SYNC_NODE_SERVER", server)
    with Node(topics=["weather"]) as node, Raw(node) as raw, node.client() as client:
        module = type(node._living._server).__module__
        assert module == f"ensign_sync.node.{server}_server"
        with client.subscribe("weather") as sub:
            client.publish("weather", [str(n) for n in range(500)])
            assert [sub.get(timeout=30).data for _ in range(500)] == [b"%d" % n for n in range(500)]
        assert len(client.query("SELECT * FROM weather").fetchall()) == 500
        watch = raw.channel.unary_stream(methods.HEALTH_WATCH.path)(b"", timeout=60)
        assert next(watch) == b"\x08\x01"
        stream, topics = raw.publisher()
        stream.send(event(topics["weather"], b"1"))
        assert isinstance(stream.take(), frames.Ack)
        client.close()
        began = time.monotonic()
        node.stop(20)
        assert time.monotonic() - began < 15
        assert isinstance(stream.rest()[-1], frames.CloseStream)
        assert list(watch) == [b"\x08\x02"]


def test_gaps_in_grpcio_lead_to_the_public_server(monkeypatch):
    """Where a private name of grpcio is missing, the public server serves."""
    from grpc._cython import cygrpc

    monkeypatch.delattr(cygrpc, "SendStatusFromServerOperation")
    with Node(topics=["weather"]) as node, node.client() as client:
        assert type(node._living._server).__module__.endswith("public_server")
        client.publish("weather", "x")
