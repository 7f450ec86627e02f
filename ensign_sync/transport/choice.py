"""Which kind of call moves the bytes; the only place that knows."""

from typing import Any

from ..settings import Settings
from ..wire.methods import Method
from .call import Call, Metadata
from .stub_call import StubCall


def open_call(channel: Any, method: Method, metadata: Metadata, settings: Settings) -> Call:
    """Start a bidirectional call on a gRPC channel."""
    return StubCall(channel, method, metadata, settings)
