"""``ensign-sync serve``: an Ensign node until it is told to end."""

import argparse
import contextlib
import json
import queue
import shlex
import signal
from typing import TYPE_CHECKING, Dict, Iterator

from .options import port, seconds
from .output import Output

if TYPE_CHECKING:
    Signals = queue.SimpleQueue[int]

HELP = "Serve an Ensign node; prints the environment that makes clients connect to it."

#: How long open streams may take to end by themselves, in seconds.
GRACE = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--data", metavar="FILE", default=":memory:", help="where to store events (default: memory)")
    parser.add_argument("--host", metavar="HOST", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", metavar="PORT", type=port, default=0, help="for gRPC (default: a free one)")
    parser.add_argument("--auth-port", metavar="PORT", type=port, default=0, help="for tokens (default: a free one)")
    parser.add_argument("--topic", metavar="NAME", action="append", default=[], help="make a topic; may be repeated")
    parser.add_argument("--strict", action="store_true", help="behave as the real server where this node is friendlier")
    parser.add_argument(
        "--access-duration", metavar="S", type=seconds, default=3600.0, help="lifetime of tokens (default: 3600 seconds)"
    )
    parser.add_argument("--json", action="store_true", help="print the environment as one JSON object")


def run(args: argparse.Namespace, out: Output) -> int:
    """Serve until SIGINT or SIGTERM; a second one does not wait for the streams."""
    with _signals() as signals:
        from ..node.server import Node

        node = Node(
            args.data,
            host=args.host,
            port=args.port,
            auth_port=args.auth_port,
            topics=args.topic,
            strict=args.strict,
            access_duration=args.access_duration,
        )
        grace = 0.0
        try:
            _print_environment(node.env(), args.json, out)
            out.say(f"serving on {node.endpoint}, tokens from {node.auth_url}; Ctrl-C ends it")
            ended_by = signals.get()
            out.say(f"{signal.Signals(ended_by).name}: ending")
            _restore(signals)
            grace = GRACE
        finally:
            node.stop(grace)
    return 130 if ended_by == signal.SIGINT else 0
