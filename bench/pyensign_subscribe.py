"""Receives and acknowledges with the official asyncio client, in whose environment this runs; prints the rate as JSON.

    python pyensign_subscribe.py ENDPOINT TOPIC NUMBER
"""

import asyncio
import json
import sys
import time

from pyensign.connection import Connection
from pyensign.ensign import Ensign


async def receive(endpoint: str, topic: str, number: int) -> float:
    """Receive so many events, acknowledging each; returns how many a second."""
    client = Ensign(client_id="bench", client_secret="bench", endpoint=endpoint, insecure=True)
    client.client.connection = Connection(endpoint, insecure=True)  # without authentication
    count, begin = 0, 0.0
    async for event in client.subscribe(topic):
        if not count:
            begin = time.monotonic()
        await event.ack()
        count += 1
        if count == number:
            break
    return (number - 1) / (time.monotonic() - begin)


if __name__ == "__main__":
    print(json.dumps({"rate": asyncio.run(receive(sys.argv[1], sys.argv[2], int(sys.argv[3])))}))
