"""Every test here may start threads. Those that are about streams run over each kind of call."""

import sys

import pytest

from ensign_sync.transport import choice
from ensign_sync.transport.direct_call import DirectCall
from ensign_sync.transport.stub_call import StubCall
from tests.proxy import Proxy
from tests.size import SIZE
from tests.threads import no_thread_stays

__all__ = ["no_thread_stays"]

#: The modules about streams.
STREAMS = {
    *("test_publish", "test_publish_faults", "test_idempotent", "test_interrupts", "test_ends"),
    *("test_subscribe", "test_subscribe_faults", "test_half_open"),
}

#: In the smoke test, both kinds of call are tried on the Pythons between which grpcio changed.
KINDS = ["direct", "stub"] if SIZE != "smoke" or sys.version_info[:2] in ((3, 7), (3, 10), (3, 13)) else ["direct"]


def pytest_generate_tests(metafunc):
    """Run a test about streams once with each kind of call."""
    if metafunc.module.__name__.rpartition(".")[2] in STREAMS:
        metafunc.parametrize("transport", KINDS, indirect=True)


@pytest.fixture
def proxy(node):
    """A network between the client and the node."""
    with Proxy(node.endpoint) as between:
        yield between


@pytest.fixture(autouse=True)
def transport(request, monkeypatch):
    """Choose the kind of call, here and in the processes that a test starts."""
    kind = getattr(request, "param", "direct")
    used = []

    def note(kind):
        return lambda *args: used.append(kind) or kind(*args)

    monkeypatch.setenv(choice.VARIABLE, kind)
    monkeypatch.setattr(choice, "_given_up", None)
    monkeypatch.setattr(choice, "DirectCall", note(choice.DirectCall))
    monkeypatch.setattr(choice, "StubCall", note(choice.StubCall))
    yield kind
    assert set(used) <= {DirectCall if kind == "direct" else StubCall}
