"""``ensign-sync run``: a node for as long as a command runs."""

import argparse
import os
import signal
import subprocess
from typing import Any, Dict, Optional

from .output import Output

HELP = "Run a command with an Ensign node of its own; returns the exit code of the command."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.usage = "ensign-sync run [-h] [--topic NAME ...] -- COMMAND [ARGUMENT ...]"
    parser.add_argument("--topic", metavar="NAME", action="append", default=[], help="make a topic; may be repeated")
    parser.add_argument("command", metavar="COMMAND", help="it finds the node by the ENSIGN_* variables")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="of the command")


def run(args: argparse.Namespace, out: Output) -> int:
    """Run the command and wait for it."""
    environment = dict(os.environ)
    # Before gRPC is loaded: up to Python 3.9 a command is started by a fork, to which gRPC would add noise and threads.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    from ..node.server import Node

    with Node(strict=False, topics=args.topic) as node, _Signals() as signals:
        child = subprocess.Popen([args.command, *args.arguments], env={**environment, **node.env()})
        signals.are_for(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


class _Signals:
    """While it is entered, how SIGINT and SIGTERM end the child is the child's own affair.

    Of Ctrl-C the terminal tells the child too; SIGTERM comes to this process alone, and is passed on.
    """

    def __init__(self) -> None:
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._terminated = False
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        # A handler that does nothing, since a signal that is ignored would be ignored in the child as well.
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def are_for(self, child: "subprocess.Popen[bytes]") -> None:
        """Pass SIGTERM on to the child, also one that came before there was any."""
        self._child = child
        if self._terminated:
            child.terminate()

    def _terminate(self, *_: Any) -> None:
        self._terminated = True
        if self._child is not None:
            self._child.terminate()
