"""Which kind of call moves the bytes; the only place that knows."""

import logging
import os
from typing import Any, Optional

from ..exceptions import EnsignSettingsError
from ..settings import Settings
from ..wire.methods import Method
from . import direct_call
from .call import Call, Metadata
from .direct_call import DirectCall
from .stub_call import StubCall, StubRows

logger = logging.getLogger("ensign_sync")

#: The variable that chooses: ``stub`` for grpcio's public interface alone, ``direct`` (the default) for the fast one.
VARIABLE = "ENSIGN_SYNC_TRANSPORT"

#: Why direct calls are not used in this process any more.
_given_up: Optional[str] = None if direct_call.available else "this grpcio does not have the names that it needs"


def open_call(channel: Any, method: Method, metadata: Metadata, settings: Settings) -> Call:
    """Start a bidirectional call on a gRPC channel.

    A direct call, unless the environment says otherwise or one has met something unexpected in this process: from then
    on, and for good, grpcio's public stub.
    """
    return _direct_call(channel, method, metadata, settings, None) or StubCall(channel, method, metadata, settings)


def open_rows(
    channel: Any, method: Method, request: bytes, metadata: Metadata, settings: Settings, timeout: Optional[float]
) -> Call:
    """Start a call that sends one message and receives any number, over such a call too.

    Nothing is written to it. After ``timeout`` seconds it ends with DEADLINE_EXCEEDED.
    """
    call = _direct_call(channel, method, metadata, settings, timeout)
    if call is None:
        return StubRows(channel, method, request, metadata, settings, timeout)
    call.write([request])
    call.half_close()
    return call


def _direct_call(
    channel: Any, method: Method, metadata: Metadata, settings: Settings, timeout: Optional[float]
) -> Optional[Call]:
    wanted = os.environ.get(VARIABLE, "").strip().lower() or "direct"
    if wanted not in ("direct", "stub"):
        raise EnsignSettingsError(f"{VARIABLE} must be 'direct' or 'stub', got {wanted!r}")
    if wanted == "direct" and _given_up is None:
        try:
            return DirectCall(channel, method, metadata, settings, _give_up, timeout)
        except (AttributeError, TypeError) as error:
            _give_up(f"a call could not be started: {error!r}")
    return None


def _give_up(reason: str) -> None:
    global _given_up
    if _given_up is None:
        logger.warning("streams use grpcio's public interface from now on, which is slower: %s", reason)
        _given_up = reason
