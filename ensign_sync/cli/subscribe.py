"""``ensign-sync subscribe``: events as they come."""

import argparse
import queue
from datetime import datetime
from typing import Union

from .. import times
from ..events import Event
from .formats import as_json
from .options import add_connection, connect, positive, seconds
from .output import Output

HELP = "Print the events of topics as they come, and acknowledge each."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("topics", metavar="TOPIC", nargs="+", help="its name or id")
    parser.add_argument(
        "--start",
        metavar="WHERE",
        type=_start,
        default="latest",
        help="where to begin: latest (the default), earliest, an RFC 3339 time, or after the id of an event",
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="go on where the last run with this file ended, and keep the place there"
    )
    parser.add_argument("--count", metavar="N", type=positive, help="end after N events")
    parser.add_argument("--timeout", metavar="S", type=seconds, help="end after S seconds without an event")
    parser.add_argument(
        "--format", choices=("raw", "json", "pretty"), default="raw", help="raw: the data (default); json: all of it"
    )
    add_connection(parser, timeout="--connect-timeout")


def _start(text: str) -> Union[str, datetime]:
    """Read a point in time; anything else is left to the library, which says what it expects."""
    try:
        return times.parse(text)
    except ValueError:
        return text


def run(args: argparse.Namespace, out: Output) -> int:
    """Print events until there were enough, or none for long enough; each is acknowledged once it is printed."""
    options = {"start": args.start, "checkpoint": args.checkpoint, "auto_ack": False}
    with connect(args) as client, client.subscribe(*args.topics, **options) as events:
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
