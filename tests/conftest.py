"""What tests share: nodes and clients of their own, and the threads that must not stay."""

import threading

import pytest


@pytest.fixture
def node():
    """A node in memory, as the real server is."""
    from ensign_sync.node import Node  # here, since the tests of the pure rooms need no gRPC

    with Node(topics=["weather"]) as running:
        yield running


@pytest.fixture
def client(node):
    """A client of the node."""
    with node.client() as connected:
        yield connected


@pytest.fixture(autouse=True)
def _no_thread_stays():
    """Whatever a test did, the threads of the library end with it."""
    yield
    left = [thread for thread in threading.enumerate() if thread.name.startswith("ensign-")]
    for thread in left:
        thread.join(10.0)
    stubborn = [thread.name for thread in left if thread.is_alive()]
    assert not stubborn, f"threads left behind: {stubborn}"
