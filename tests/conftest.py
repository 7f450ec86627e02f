"""Nodes and clients for the tests that want one."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.size import SIZE

# Tests start programs while a node runs in their own process. Up to Python 3.9 that is a fork, to which gRPC would add
# noise and threads; here it must not, and the programs do not inherit this.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


# How long an example takes to make, and how often one came out too large, depends on the machine and on the seed.
settings.register_profile("ours", suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
settings.load_profile("ours")


def pytest_collection_modifyitems(config, items):
    """Leave out what is for the two ends of the matrix alone."""
    if SIZE == "smoke":
        left_out = [item for item in items if item.get_closest_marker("ends")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("ends")]


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
