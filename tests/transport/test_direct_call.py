"""The call on grpcio's completion queue, against a real server, and what happens when grpcio is not as expected."""

import logging
import subprocess
import sys
import threading
import types

import pytest

from ensign_sync import Ensign, EnsignConnectionError, EnsignError, EnsignRPCError, EnsignSettingsError
from ensign_sync.protocol import frames
from ensign_sync.settings import Settings
from ensign_sync.transport import choice, direct_call
from ensign_sync.transport.channel import open_channel
from ensign_sync.transport.direct_call import DirectCall
from ensign_sync.transport.stub_call import StubCall
from ensign_sync.wire import codec, methods
from tests.threads import no_thread_stays

__all__ = ["no_thread_stays"]

LIMIT = 30.0


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget before each test what an earlier one met."""
    monkeypatch.setattr(choice, "_given_up", None)
    monkeypatch.delenv(choice.VARIABLE, raising=False)


@pytest.fixture
def settings(node):
    """The settings of a client without authentication, for the raw calls."""
    return Settings(node.endpoint, True, node.auth_url, None)


@pytest.fixture
def channel(settings):
    """An open channel."""
    with open_channel(settings) as opened:
        yield opened


@pytest.fixture
def metadata(client):
    """The metadata of a call that the node accepts."""
    return client._connected().unary.metadata()[0]


def unexpected(reason):
    """Be told of a surprise where there should be none."""
    raise AssertionError(reason)


@pytest.fixture
def begin(channel, settings, metadata):
    """Open a call; the calls are read to their end afterwards."""
    calls = []

    def begin(method=methods.PUBLISH, metadata=metadata):
        call = DirectCall(channel, method, metadata, settings, unexpected)
        calls.append((call, call.messages()))
        return calls[-1]

    yield begin
    for call, messages in calls:
        call.cancel()
        messages.close()
        assert not call._busy()


OPEN = codec.encode_publisher_frame(frames.OpenStream("me"))


def test_a_conversation(begin, node):
    """What is written arrives in order, what is answered too, and a half-close ends it well."""
    call, messages = begin()
    call.write([OPEN])
    ready = codec.decode_publisher_reply(next(messages))
    ids = [b"%016d" % n for n in range(1000)]
    call.write([codec.encode_publisher_frame(frames.Publication(ready.topics["weather"], id, id)) for id in ids])
    assert [codec.decode_publisher_reply(next(messages)).id for _ in ids] == ids
    call.half_close()
    (last,) = list(messages)
    assert codec.decode_publisher_reply(last).events == 1000
    assert not call._busy()
    call.write([b"too late"])
    call.half_close()
    call.cancel()


def test_many_threads_write(begin, node):
    """Nothing is lost or sent twice between the writers and the thread that reads."""
    call, messages = begin()
    call.write([OPEN])
    topic = codec.decode_publisher_reply(next(messages)).topics["weather"]

    def write(who):
        for n in range(200):
            id = b"%08d%08d" % (who, n)
            call.write([codec.encode_publisher_frame(frames.Publication(topic, id, id))])

    writers = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for writer in writers:
        writer.start()
    ids = [codec.decode_publisher_reply(next(messages)).id for _ in range(1600)]
    for writer in writers:
        writer.join(LIMIT)
    for who in range(8):
        assert [id for id in ids if id.startswith(b"%08d" % who)] == [b"%08d%08d" % (who, n) for n in range(200)]


def test_cancelled_from_another_thread(begin):
    """The reader wakes, with the status of a cancelled call."""
    call, messages = begin()
    call.write([OPEN])
    next(messages)
    threading.Timer(0.05, call.cancel).start()
    with pytest.raises(EnsignRPCError) as caught:
        next(messages)
    assert caught.value.code == "CANCELLED"


def test_cancelled_before_it_is_read(begin):
    """A call that was cancelled at once ends at once."""
    call, messages = begin()
    call.cancel()
    with pytest.raises(EnsignRPCError) as caught:
        next(messages)
    assert caught.value.code == "CANCELLED"


def test_a_refusal(begin):
    """A status of the server is raised as the error it stands for."""
    _, messages = begin(metadata=())
    with pytest.raises(EnsignRPCError) as caught:
        next(messages)
    assert caught.value.code == "UNAUTHENTICATED"


def test_the_server_is_killed(begin, node):
    """The call ends as one whose connection broke, also while messages are under way."""
    call, messages = begin()
    call.write([OPEN])
    topic = codec.decode_publisher_reply(next(messages)).topics["weather"]
    call.write([codec.encode_publisher_frame(frames.Publication(topic, bytes(16), bytes(100_000)))] * 500)
    node.faults.kill()
    with pytest.raises(EnsignConnectionError) as caught:
        list(messages)
    assert caught.value.code == "UNAVAILABLE"
    call.write([OPEN])  # goes nowhere
    assert not call._busy()


def test_nobody_listens(settings, metadata, dead_port):
    """Without a server the call ends at once."""
    there = settings._replace(endpoint=f"127.0.0.1:{dead_port}")
    with open_channel(there) as channel:
        call = DirectCall(channel, methods.PUBLISH, metadata, there, unexpected)
        with pytest.raises(EnsignConnectionError):
            list(call.messages())


@pytest.fixture
def dead_port():
    """A port on which nobody listens."""
    import socket

    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        yield there.getsockname()[1]


def test_the_channel_is_closed(begin, channel):
    """Closing the channel ends its calls; a new one cannot be started."""
    call, messages = begin()
    call.write([OPEN])
    next(messages)
    channel.close()
    with pytest.raises(EnsignError):
        next(messages)
    with pytest.raises(ValueError, match="closed"):
        begin()


def test_given_up_in_the_middle(begin):
    """Who closes the messages ends the call, and nothing of it stays behind."""
    call, messages = begin(methods.SUBSCRIBE)
    call.write([codec.encode_subscriber_frame(frames.Subscription("me"))])
    next(messages)
    messages.close()
    assert not call._busy()


# choosing


def kind(client):
    """Return the kind of call that a client's publish stream uses."""
    return type(client._connected().publisher()._driver._call)


@pytest.mark.parametrize(("word", "expected"), [("", DirectCall), ("direct", DirectCall), (" STUB ", StubCall)])
def test_the_environment_chooses(word, expected, client, monkeypatch):
    """The variable decides; without it the fast kind is used."""
    monkeypatch.setenv(choice.VARIABLE, word)
    client.publish("weather", b"x")
    assert kind(client) is expected


def test_a_word_that_means_nothing(client, monkeypatch):
    """It is refused, with the words that mean something."""
    monkeypatch.setenv(choice.VARIABLE, "fast")
    with pytest.raises(EnsignSettingsError, match="'direct' or 'stub'"):
        client.publish("weather", b"x")


class Strange(types.SimpleNamespace):
    """A grpcio with one thing that is different."""

    def __init__(self, **different):
        super().__init__(**{**{name: getattr(direct_call._cygrpc, name) for name in direct_call._NAMES}, **different})


_SOURCE = """
def refuses(*_):
    raise TypeError("this is not how it is called here")
"""

#: Something of grpcio that does not take these arguments.
_grpcio = {}
exec(compile(_SOURCE, "grpc/_cython/cygrpc.pyx", "exec"), _grpcio)
refuses = _grpcio["refuses"]


@pytest.mark.parametrize("operation", direct_call._NAMES)
def test_a_surprise(operation, client, node, monkeypatch, caplog):
    """Whatever is different, events are stored all the same, and it is told once."""
    different = types.SimpleNamespace() if operation in ("PropagationConstants", "StatusCode") else refuses
    monkeypatch.setattr(direct_call, "_cygrpc", Strange(**{operation: different}))
    client.publish("weather", [b"%d" % n for n in range(100)])
    client.close()
    assert sorted({int(event.data) for event in node.events("weather")}) == list(range(100))
    if operation not in ("StatusCode", "SendCloseFromClientOperation"):  # these are needed at the end only
        told = [r for r in caplog.records if "public interface" in r.getMessage()]
        assert [r.levelno for r in told] == [logging.WARNING]
    assert choice._given_up is not None


def test_a_surprise_in_the_middle(client, node, monkeypatch):
    """Operations that stop working later cost nothing but the speed."""
    client.publish("weather", b"0")
    assert kind(client) is DirectCall
    monkeypatch.setattr(direct_call, "_cygrpc", Strange(SendMessageOperation=refuses))
    futures = [client.submit("weather", b"%d" % n) for n in range(1, 50)]
    for future in futures:
        future.result(LIMIT)
    assert kind(client) is StubCall
    assert [int(event.data) for event in node.events("weather")] == list(range(50))


def test_a_grpcio_without_the_names():
    """The client works, on the public interface, where the private module lacks something."""
    program = """
import sys
from grpc._cython import cygrpc
del cygrpc.SendCloseFromClientOperation
from ensign_sync import Ensign
from ensign_sync.transport import choice
with Ensign(endpoint="embedded:?topics=weather") as client:
    client.publish("weather", b"x")
    print(type(client._connected().publisher()._driver._call).__name__)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], stdout=subprocess.PIPE, timeout=60, text=True
    )
    assert (ran.returncode, ran.stdout) == (0, "StubCall\n")


def test_tls(tmp_path):
    """Both kinds of call over TLS."""
    from ensign_sync.node import Node
    from tests.node.test_node import make_certificate

    certificate, key = make_certificate(tmp_path)
    with Node(topics=["weather"], tls=(certificate, key)) as node:
        for expected, word in ((DirectCall, "direct"), (StubCall, "stub")):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(choice.VARIABLE, word)
                with Ensign(
                    node.client_id,
                    node.client_secret,
                    endpoint=node.endpoint,
                    auth_url=node.auth_url,
                    tls=certificate,
                ) as client, client.subscribe("weather") as subscription:
                    client.publish("weather", b"x" * 100_000)
                    assert subscription.get(timeout=LIMIT).data == b"x" * 100_000
                    assert kind(client) is expected
