"""``ensign-sync serve``: an Ensign node until it is told to end."""

import argparse
import contextlib
import json
import queue
import shlex
import signal
from typing import TYPE_CHECKING, Dict, Iterator

from .options import port, quiet_grpc, retention, seconds
from .output import Output

if TYPE_CHECKING:
    from ..node.server import Node

    Signals = queue.SimpleQueue[int]

HELP = "Serve an Ensign node; prints the environment that makes clients connect to it."

STOPS = (signal.SIGINT, signal.SIGTERM)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--data", metavar="FILE", default=":memory:", help="where to store events (default: memory)")
    parser.add_argument("--host", metavar="HOST", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", metavar="PORT", type=port, default=0, help="for gRPC (default: a free one)")
    parser.add_argument("--auth-port", metavar="PORT", type=port, default=0, help="for tokens (default: a free one)")
    parser.add_argument("--topic", metavar="NAME", action="append", default=[], help="make a topic; may be repeated")
    parser.add_argument("--strict", action="store_true", help="behave as the real server does, quirks included")
    parser.add_argument(
        "--retain", metavar="AGE|SIZE", type=retention, help="keep events up to an age (7d) or a size (500MB)"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="a certificate (PEM): both ports then speak TLS")
    parser.add_argument("--tls-key", metavar="FILE", help="its key")
    parser.add_argument(
        "--access-duration", metavar="S", type=seconds, default=3600.0, help="lifetime of tokens (default: an hour)"
    )
    parser.add_argument(
        "--grace",
        metavar="S",
        type=seconds,
        default=3.5,
        help="how long open streams may take when it ends (default: %(default)s seconds)",
    )
    parser.add_argument("--json", action="store_true", help="print the environment as one JSON object")


def run(args: argparse.Namespace, out: Output) -> int:
    """Serve until SIGINT or SIGTERM; a second one does not wait for the streams."""
    with _stop_signals() as signals, _node(args) as node:
        out.line(_environment(node.env(), args.json))
        out.flush()
        out.say(f"serving on {node.endpoint}, tokens from {node.auth_url}; Ctrl-C ends it")
        out.say(f"look inside: {node.page_url}")
        number = _first(signals)
        for impatient in STOPS:  # what is stored is on disk, so the next one may end the process where it stands
            signal.signal(impatient, signal.SIG_DFL)
        out.say(f"{signal.Signals(number).name}: ending")
        node.stop(args.grace)
    return 130 if number == signal.SIGINT else 0


def _first(signals: "Signals") -> int:
    """Wait for a signal. Python may miss one that comes just before it falls asleep, so it wakes now and then."""
    while True:
        with contextlib.suppress(queue.Empty):
            return signals.get(timeout=0.25)


def _node(args: argparse.Namespace) -> "Node":
    if bool(args.tls_cert) != bool(args.tls_key):
        raise ValueError("--tls-cert and --tls-key go together: give both files")
    quiet_grpc()
    from ..node.server import Node

    return Node(
        args.data,
        host=args.host,
        port=args.port,
        auth_port=args.auth_port,
        topics=args.topic,
        strict=args.strict,
        faults=False,
        access_duration=args.access_duration,
        refresh_duration=2 * args.access_duration,
        tls=(args.tls_cert, args.tls_key) if args.tls_cert else None,
        retain=args.retain,
        keep_ports=args.data != ":memory:",
        page=True,
    )


def _environment(variables: Dict[str, str], as_json: bool) -> str:
    """Return what to print: one JSON object, or lines for a shell."""
    if as_json:
        return json.dumps(variables)
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


@contextlib.contextmanager
def _stop_signals() -> Iterator["Signals"]:
    """Collect SIGINT and SIGTERM for a while; the queue is one that a signal handler may use."""
    signals: Signals = queue.SimpleQueue()
    before = {
        number: signal.signal(number, lambda received, _: signals.put(received))
        for number in STOPS
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
