"""The nodes behind ``embedded:`` endpoints: one per process and path, shared, and stopped with the last client."""

import os
import threading
from typing import Dict, Tuple

from ..settings import Embedded
from .server import Node

_lock = threading.Lock()
_nodes: Dict[Tuple[int, str], Node] = {}
_users: Dict[int, int] = {}


def acquire(wanted: Embedded) -> Node:
    """Return the node of a path, started if need be; give it back with ``release``.

    Raises:
        NodeStorageError: The data file cannot be used.
    """
    path = wanted.path if wanted.path == ":memory:" else os.path.abspath(wanted.path)
    # Decided inside: one node per process and path. The process is part of the key, since a fork copies this table.
    with _lock:
        node = _nodes.get((os.getpid(), path))
        if node is None:
            node = Node(path, strict=wanted.strict, faults=False)
            _nodes[os.getpid(), path] = node
        _users[id(node)] = _users.get(id(node), 0) + 1
        node.ensure_topics(wanted.topics)
        return node


def release(node: Node) -> None:
    """Give a node back; it stops with its last user."""
    with _lock:
        _users[id(node)] -= 1
        last = not _users[id(node)]
        if last:
            del _users[id(node)]
            for key in [key for key, known in _nodes.items() if known is node]:
                del _nodes[key]
            # Still inside: who asks for this path next must find the file free.
            if node.pid == os.getpid():
                node.stop()
