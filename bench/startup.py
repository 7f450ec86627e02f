"""Starts a node in a fresh process and publishes one event, as a program of a user does; prints how long it took."""

import json
import time

import grpc  # noqa: F401  its import is not the node's


def main() -> None:
    """Print the seconds from ``Node()`` to a node, and to the first ack of a client."""
    from ensign_sync.node import Node

    imported = time.monotonic()
    with Node(topics=["first"]) as node:
        made = time.monotonic()
        with node.client() as client:
            client.publish("first", b"event")
            acknowledged = time.monotonic()
    print(json.dumps({"construction": made - imported, "first_ack": acknowledged - imported}))


if __name__ == "__main__":
    main()
