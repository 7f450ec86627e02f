"""Nodes and clients for the tests that want one."""

import os

import pytest

# Tests start programs while a node runs in their own process. Up to Python 3.9 that is a fork, to which gRPC would add
# noise and threads; here it must not, and the programs do not inherit this.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


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
