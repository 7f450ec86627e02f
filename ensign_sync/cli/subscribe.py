"""``ensign-sync subscribe``: events as they come."""

import argparse
import queue

from ..events import Event
from .formats import as_json
from .options import add_connection, connect, positive, seconds
from .output import Output

HELP = "Print the events of topics as they come, and acknowledge each."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("topics", metavar="TOPIC", nargs="+", help="its name or id")
    parser.add_argument("--start", metavar="WHERE", default="latest", help="which event is the first (default: latest)")
    parser.add_argument("--count", metavar="N", type=positive, help="end after N events")
    parser.add_argument("--timeout", metavar="S", type=seconds, help="end after S seconds without an event")
    parser.add_argument(
        "--format", choices=("raw", "json", "pretty"), default="raw", help="raw: the data (default); json: all of it"
    )
    add_connection(parser, timeout="--connect-timeout")


def run(args: argparse.Namespace, out: Output) -> int:
    """Print events until there were enough, or none for long enough; each is acknowledged once it is printed."""
    with connect(args) as client, client.subscribe(*args.topics, start=args.start, auto_ack=False) as events:
        out.say(f"subscribed to {', '.join(args.topics)}")
        printed = 0
        while args.count is None or printed < args.count:
            try:
                event = events.get(args.timeout)
            except queue.Empty:
                break
            _print(event, args.format, out)
            event.ack()
            printed += 1
    return 0


def _print(event: Event, format: str, out: Output) -> None:
    if format == "json":
        out.line(as_json(event))
    elif format == "pretty":
        out.line(str(event))
    else:
        out.data(event.data or b"")
    out.flush()
