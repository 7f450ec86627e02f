"""Nodes and clients for the tests that want one."""

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
