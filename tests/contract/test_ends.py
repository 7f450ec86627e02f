"""The ends of clients: interrupted, in the middle of calls, with services that never answer."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ensign_sync import ClientClosedError, Ensign, EnsignError, PublishTimeoutError
from tests.proxy import far
from tests.waiting import eventually


@pytest.fixture
def silent_url():
    """The URL of a service that accepts connections and never answers."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(16)
        yield f"http://127.0.0.1:{hole.getsockname()[1]}"


def test_an_interrupted_close_can_be_finished(node, proxy):
    """Ctrl-C in close() comes out; closing again settles what is open and leaves no thread."""
    client = far(node, proxy)
    client.publish("weather", b"1")
    proxy.black_hole()
    future = client.submit("weather", b"2")
    interrupter = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        client.close(30)
    interrupter.join()
    client.close(0.2)
    assert isinstance(future.exception(0), PublishTimeoutError)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("ensign-publisher")]
    assert left == []


def test_a_connection_that_is_cut_while_the_client_closes(node, proxy):
    """A new one is made for what was accepted before, and close() waits for that."""
    client = far(node, proxy)
    client.publish("weather", b"1")
    proxy.black_hole()
    futures = [client.submit("weather", b"%d" % number) for number in range(2, 5)]
    closing = threading.Thread(target=client.close, args=(30,))
    closing.start()
    eventually(lambda: client._connection._publisher.machine.closing)
    proxy.black_hole(False)
    proxy.cut_connections()
    closing.join(60)
    assert [future.result(0).id for future in futures]
    assert [event.data for event in node.events("weather")] == [b"1", b"2", b"3", b"4"]


def test_a_silent_auth_service_holds_nobody_up(node, silent_url):
    """Calls, and close(), end in their time although the auth service never answers."""
    client = Ensign(node.client_id, node.client_secret, endpoint=node.endpoint, insecure=True, auth_url=silent_url)
    for call in (lambda: client.ping(timeout=0.3), lambda: client.publish("weather", b"x", timeout=0.3)):
        started = time.monotonic()
        with pytest.raises(EnsignError):
            call()
        assert time.monotonic() - started < 10
    started = time.monotonic()
    client.close(1)
    assert time.monotonic() - started < 10


def test_closing_wakes_who_publishes_with_the_right_error(node, proxy):
    """Threads that publish while the client is closed get ClientClosedError, or the fate of their events."""
    client = far(node, proxy, max_in_flight=4)
    client.publish("weather", b"x")
    proxy.black_hole()
    errors = []

    def work():
        try:
            client.publish("weather", *[b"y"] * 4)
        except EnsignError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    client.close(0.3)
    for thread in threads:
        thread.join(30)
    assert len(errors) == 8
    assert all(type(error).__name__ != "EnsignRPCError" for error in errors), errors
    with pytest.raises(ClientClosedError):
        client.status()


def test_a_callback_may_publish_while_very_many_wait(node):
    """Callbacks that are slower than their events hold up who submits, and nothing else."""
    with node.client(max_in_flight=100) as client:
        go, over = threading.Event(), threading.Event()
        done = []

        def callback(future):
            go.wait(30)
            done.append(client.publish("weather", b"from a callback"))
            over.set()

        client.submit("weather", b"x").add_done_callback(callback)
        futures = [client.submit("weather", b"y") for _ in range(500)]
        for future in futures:
            future.add_done_callback(lambda f: None)
        assert all(future.result(30) for future in futures)
        go.set()
        assert over.wait(30)
    assert len(done) == 1


def test_two_streams_at_the_same_moment(node):
    """Calls that arrive together are all served: none waits behind a stream."""
    for _ in range(10):
        clients = [node.client(timeout=20) for _ in range(4)]
        for client in clients:
            client.status()
        barrier = threading.Barrier(len(clients))
        opened = []

        def subscribe(client, barrier=barrier, opened=opened):
            barrier.wait()
            opened.append(client.subscribe("weather"))

        threads = [threading.Thread(target=subscribe, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(opened) == len(clients)
        for client in clients:
            client.close()


def test_given_up_behind_a_stalled_line_is_never_sent_later(node, proxy):
    """What a time-out gave up does not leave this process when the line moves again."""
    with far(node, proxy) as client:
        client.publish("weather", b"before")
        proxy.black_hole()
        with pytest.raises(PublishTimeoutError):
            client.publish("weather", *[bytes(200_000)] * 20, timeout=0.5)
        proxy.black_hole(False)
        proxy.cut_connections()  # a connection that lost bytes is of no use
        client.publish("weather", b"after")
    sizes = [len(event.data) for event in node.events("weather")]
    assert sizes[0] == 6
    assert sizes[-1] == 5
    assert sizes.count(200_000) == 0


def test_a_user_who_settles_a_future_harms_no_other(client):
    """A future that somebody else has set is passed over."""
    futures = [client.submit("weather", b"x") for _ in range(20)]
    try:
        futures[10].set_result("mine")
    except Exception:
        futures[10].result(30)
    for future in futures[:10] + futures[11:]:
        assert future.result(30).committed


def test_an_exit_with_a_silent_auth_service(node, silent_url):
    """A program that could not even authenticate ends soon."""
    program = f"""
from ensign_sync import Ensign
client = Ensign("a", "b", endpoint={node.endpoint!r}, insecure=True, auth_url={silent_url!r})
try:
    client.publish("weather", b"x", timeout=0.2)
except Exception as error:
    print(type(error).__name__)
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ENSIGN_", "GRPC_"))}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, env=env)
    assert time.monotonic() - started < 20
    assert result.returncode == 0
    assert b"Traceback" not in result.stderr
