"""``ensign-sync bench``: how fast the server, and the way to it, are."""

import argparse
import itertools
import statistics
import time
from typing import TYPE_CHECKING, List

from ..ids import ULID
from .options import add_connection, connect, positive
from .output import Output

if TYPE_CHECKING:
    from ..client import Ensign

HELP = "Publish events, receive them and read them again, and say how long that takes."

#: So many events are published one by one, each after the acknowledgement of the one before.
_ALONE = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--count", metavar="N", type=positive, default=10_000, help="events (default: %(default)s)")
    parser.add_argument("--size", metavar="BYTES", type=positive, default=100, help="of each (default: %(default)s)")
    parser.add_argument("--topic", metavar="NAME", help="publish to this topic (default: one that is destroyed again)")
    add_connection(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Measure, and print a line for each way."""
    with connect(args) as client:
        topic = args.topic or f"bench_{str(ULID.new()).lower()}"
        if args.topic is None:
            client.create_topic(topic)
        try:
            rows = _measured(client, topic, args.count, bytes(args.size))
        finally:
            if args.topic is None:
                client.destroy_topic(topic)
    out.table(("WHAT", "EVENTS", "SECONDS", "A SECOND"), rows)
    return 0


def _measured(client: "Ensign", topic: str, count: int, data: bytes) -> List[List[str]]:
    rows = []
    with client.subscribe(topic, start="latest") as subscription:
        began = time.perf_counter()
        client.publish_from(topic, itertools.repeat(data, count))
        rows.append(_row("published", count, began))
        first = next(subscription)
        for _ in itertools.islice(subscription, count - 1):
            pass
        rows.append(_row("published and received", count, began))
    began = time.perf_counter()
    with client.query(f"SELECT * FROM {topic}") as cursor:
        rows.append(_row("read from the log", sum(1 for event in cursor if event.id >= first.id), began))
    began, times = time.perf_counter(), []
    for _ in range(min(_ALONE, count)):
        before = time.perf_counter()
        client.publish(topic, data)
        times.append(time.perf_counter() - before)
    rows.append(_row("published one by one", len(times), began))
    rows.append([f"one takes {statistics.median(times) * 1000:.2f} ms", "", "", ""])
    return rows


def _row(what: str, count: int, began: float) -> List[str]:
    seconds = time.perf_counter() - began
    return [what, f"{count:,}", f"{seconds:.2f}", f"{count / seconds:,.0f}"]
