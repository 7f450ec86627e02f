"""An Ensign node to embed: for tests, laptops and small deployments.

    from ensign_sync.node import Node

    with Node(topics=["weather"]) as node:
        client = node.client()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import Node as Node

__all__ = ["Node"]


def __getattr__(name: str) -> Any:
    if name == "Node":
        from .server import Node

        return Node
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
