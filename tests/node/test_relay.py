"""The relay before a node, on sockets of our own."""

import socket
import time

import pytest

from ensign_sync.handover.clock import Deadline
from ensign_sync.node.relay import Relay
from tests.size import by_size


@pytest.fixture
def line():
    """A relay, and the two ends of a connection through it."""
    with socket.create_server(("127.0.0.1", 0)) if hasattr(socket, "create_server") else _listening() as listener:
        relay = Relay("127.0.0.1", 0, listener.getsockname())
        near = socket.create_connection(("127.0.0.1", relay.port))
        far, _ = listener.accept()
        for end in (near, far):
            end.settimeout(20)
        yield relay, near, far
        near.close()
        far.close()
        relay.close(Deadline(10.0))


def _listening():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    return listener


def test_the_end_of_a_hold(line):
    """Bytes go on when a hold ends, also if the relay was busy at that very moment."""
    relay, near, far = line
    for _ in range(by_size(30, 30, 300, 3_000)):
        relay.hold(0.003)
        end = time.monotonic() + 0.003
        while time.monotonic() < end:
            relay._wake()
        near.sendall(b"x")
        assert far.recv(1) == b"x"
