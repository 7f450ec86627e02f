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
from .stub_call import StubCall

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
    wanted = os.environ.get(VARIABLE, "").strip().lower() or "direct"
    if wanted not in ("direct", "stub"):
        raise EnsignSettingsError(f"{VARIABLE} must be 'direct' or 'stub', got {wanted!r}")
    if wanted == "direct" and _given_up is None:
        try:
            return DirectCall(channel, method, metadata, settings, _give_up)
        except (AttributeError, TypeError) as error:
            _give_up(f"a call could not be started: {error!r}")
    return StubCall(channel, method, metadata, settings)


def _give_up(reason: str) -> None:
    global _given_up
    if _given_up is None:
        logger.warning("streams use grpcio's public interface from now on, which is slower: %s", reason)
        _given_up = reason
