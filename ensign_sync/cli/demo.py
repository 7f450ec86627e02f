"""``ensign-sync demo``: real records through an embedded node and a client, and whether all arrived."""

import argparse
import contextlib
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Iterator, List, NamedTuple, Tuple

from . import weather
from .options import quiet_grpc
from .output import Output

if TYPE_CHECKING:
    from ..client import Ensign
    from ..node.server import Node

HELP = "Send the weather of 1,461 days through a node in this process, and check what arrives."

TOPIC = "seattle-weather"
#: Rows of the log that are read back: the last year of the records.
OFFSET, LIMIT = 1096, 365
#: No event for this long, and the rest is lost.
PATIENCE = 3.0
#: How long to look for events that should not come any more.
QUIET = 0.2


class Result(NamedTuple):
    """What happened, as the JSON of the records, and how long it took in seconds."""

    sent: List[str]
    acknowledged: int
    received: List[str]
    queried: List[str]
    publish_seconds: float
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the demo needs no options."""


def run(args: argparse.Namespace, out: Output) -> int:
    """Run the demo; the exit code is 0 only if every record arrived once and in order."""
    begun = time.monotonic()
    sent = [day.dump() for day in weather.read()]
    out.line(f"The weather of {len(sent):,} days in Seattle (NOAA, 2012 to 2015), a JSON event a day.")
    out.line("")
    with _node_and_client() as (node, client):
        out.line(f"An Ensign node runs in this process: gRPC on {node.endpoint}, tokens from {node.auth_url}.")
        out.line(f"One thread publishes to the topic {TOPIC!r}, another subscribes and acknowledges.")
        out.flush()
        result = exchange(client, sent)
    return report(result, time.monotonic() - begun, out)


@contextlib.contextmanager
def _node_and_client() -> Iterator[Tuple["Node", "Ensign"]]:
    quiet_grpc()
    from ..node.server import Node

    with Node(strict=False, topics=[TOPIC]) as node, node.client(timeout=PATIENCE) as client:
        yield node, client


def exchange(client: "Ensign", sent: List[str]) -> Result:
    """Publish records while they are received, then read some of them from the log."""
    with client.subscribe(TOPIC, auto_ack=False) as events, ThreadPoolExecutor(1) as publisher:
        begun = time.monotonic()
        publishing = publisher.submit(_publish, client, sent)
        received = _receive(events, len(sent))
        seconds = time.monotonic() - begun
        acknowledged, publish_seconds = publishing.result()
        received += _receive(events, len(sent), QUIET)  # what comes now came twice
    with client.query(f"SELECT * FROM {TOPIC} OFFSET {OFFSET} LIMIT {LIMIT}") as rows:
        queried = [(row.data or b"").decode("utf-8") for row in rows]
    return Result(sent, acknowledged, received, queried, publish_seconds, seconds)


def _publish(client: "Ensign", sent: List[str]) -> Tuple[int, float]:
    from ..events import Event

    begun = time.monotonic()
    events = (Event(text.encode("utf-8"), "application/json", "Weather", "1.0.0") for text in sent)
    return client.publish_from(TOPIC, events), time.monotonic() - begun


def _receive(events: Any, count: int, patience: float = PATIENCE) -> List[str]:
    """Receive and acknowledge up to so many events; fewer if none comes for a while."""
    received: List[str] = []
    while len(received) < count:
        try:
            event = events.get(patience)
        except queue.Empty:
            break
        received.append((event.data or b"").decode("utf-8"))
        event.ack()
    return received


def problems(result: Result) -> List[str]:
    """Return what went wrong, a line each; none if every record was stored and arrived once and in order."""
    found = [f"subscription: {text}" for text in weather.differences(result.sent, result.received)]
    wanted = result.sent[OFFSET : OFFSET + LIMIT]
    found += [f"query: {text}" for text in weather.differences(wanted, result.queried)]
    if result.acknowledged != len(result.sent):
        found.append(f"publisher: {result.acknowledged:,} of {len(result.sent):,} were acknowledged")
    return found


def report(result: Result, total_seconds: float, out: Output) -> int:
    """Print what happened; returns the exit code."""
    days = [weather.load(text) for text in result.received]
    out.line("")
    out.line("The wettest days, from the events that arrived:")
    out.line("")
    out.table((*weather.HEADS, ""), weather.wettest(days, 5))
    out.line("")
    out.line("The hottest:")
    out.line("")
    out.table(weather.HEADS, weather.hottest(days, 5))
    out.line("")
    wrong = problems(result)
    out.table(("WHAT", "EVENTS", ""), _counts(result))
    out.line("")
    for text in wrong:
        out.say(text)
    verdict = "Something went wrong." if wrong else "Every event arrived once and in order."
    out.line(f"{verdict} {total_seconds:.1f} s in all.")
    return 1 if wrong else 0


def _counts(result: Result) -> List[Tuple[str, str, str]]:
    count = len(result.received)
    late = len(weather.out_of_order(result.sent, result.received))
    return [
        ("published", f"{len(result.sent):,}", ""),
        ("acknowledged", f"{result.acknowledged:,}", _rate(result.acknowledged, result.publish_seconds)),
        ("received", f"{count:,}", _rate(count, result.seconds)),
        ("in order", f"{count - late:,}", ""),
        ("queried", f"{len(result.queried):,}", f"rows of the log, from row {OFFSET:,}"),
    ]


def _rate(count: int, seconds: float) -> str:
    return f"in {seconds:.2f} s, {count / max(seconds, 1e-9):,.0f} a second"
