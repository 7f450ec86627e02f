"""Chooses the gRPC server of a node: the fast one where this grpcio has what it needs, else the public one."""

import logging
import os

from ..exceptions import NodeError
from .rpc import Open, Server, Settings

logger = logging.getLogger("ensign_sync.node")

#: ``public`` chooses the public server outright.
VARIABLE = "ENSIGN_SYNC_NODE_SERVER"


def serve(settings: Settings, open_call: Open) -> Server:
    """Listen and serve.

    Raises:
        NodeError: The address cannot be listened on.
    """
    try:
        if os.environ.get(VARIABLE, "") != "public":
            try:
                from . import direct_server

                return direct_server.make(settings, open_call)
            except (AttributeError, TypeError, ImportError) as error:
                logger.info("this grpcio lacks what the fast server of a node needs (%s): taking the public one", error)
        from . import public_server

        return public_server.make(settings, open_call)
    except (OSError, RuntimeError, OverflowError) as error:
        raise NodeError(
            f"cannot listen on {settings.address}: {error}; choose another port, or 0 for a free one"
        ) from error
