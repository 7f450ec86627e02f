"""Every test here may start threads; most want a node and a raw client of it."""

import pytest

from tests.threads import no_thread_stays

__all__ = ["no_thread_stays"]


@pytest.fixture
def raw(node):
    """Call a node with raw bytes: raw(method, request, token=...) -> reply; raw.publish and others for the streams."""
    from tests.node.raw import Raw

    with Raw(node) as caller:
        yield caller


@pytest.fixture
def friendly():
    """A node in memory, as friendly as can be."""
    from ensign_sync.node import Node

    with Node(topics=["weather"], strict=False) as running:
        yield running


@pytest.fixture
def raw_friendly(friendly):
    """Call the friendly node with raw bytes."""
    from tests.node.raw import Raw

    with Raw(friendly) as caller:
        yield caller
