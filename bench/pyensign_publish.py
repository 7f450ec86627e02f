"""Publishes with the official asyncio client, in whose environment this runs; prints what it took as JSON.

    python pyensign_publish.py ENDPOINT SIZE NUMBER
"""

import asyncio
import json
import sys
import time

from pyensign.connection import Connection
from pyensign.ensign import Ensign
from pyensign.events import Event


async def publish(endpoint: str, size: int, number: int) -> float:
    """Publish so many events and wait for all acks; returns the seconds."""
    client = Ensign(client_id="bench", client_secret="bench", endpoint=endpoint, insecure=True)
    client.client.connection = Connection(endpoint, insecure=True)  # without authentication
    topic = await client.topic_id("bench")
    kind = ("application/octet-stream", "Reading", "1.0.0", {"source": "bench"})
    events = [Event(bytes(size), *kind) for _ in range(number)]
    acked = 0
    done = asyncio.Event()

    async def on_ack(_: object) -> None:
        nonlocal acked
        acked += 1
        if acked % number == 0:
            done.set()

    begin = time.monotonic()
    await client.publish(topic, *events, on_ack=on_ack)
    await done.wait()
    return time.monotonic() - begin


if __name__ == "__main__":
    print(json.dumps({"seconds": asyncio.run(publish(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))}))
