"""``ensign-sync run``: a node for as long as a command runs."""

import argparse
import contextlib
import os
import signal
import subprocess
from typing import Any, Iterator

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

    with Node(strict=False, topics=args.topic) as node, _interrupts_are_for_the_child():
        child = subprocess.Popen([args.command, *args.arguments], env={**environment, **node.env()})
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _interrupts_are_for_the_child() -> Iterator[None]:
    """Let Ctrl-C pass: the terminal tells the child too, and how that ends is its own affair.

    With a handler that does nothing: a signal that is ignored would be ignored in the child as well.
    """

    def wait_for_the_child(*_: Any) -> None:
        pass

    before = signal.signal(signal.SIGINT, wait_for_the_child)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
