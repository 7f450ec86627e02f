"""What the options of several commands have in common: kinds of values, and the connection."""

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..client import Ensign

#: How long a command waits for the server without progress, in seconds.
TIMEOUT = 10.0


def seconds(text: str) -> float:
    """Read a positive number of seconds."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return number


def positive(text: str) -> int:
    """Read a positive whole number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def port(text: str) -> int:
    """Read a port; 0 stands for a free one."""
    number = int(text)
    if not 0 <= number < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, from 0 to 65535")
    return number


def retention(text: str) -> str:
    """Read how much is to be kept."""
    from ..node.retention import Retention

    try:
        Retention.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_connection(parser: argparse.ArgumentParser, timeout: str = "--timeout") -> None:
    """Add the options that say which server, and who asks; ``timeout`` is the name of the one for its patience."""
    group = parser.add_argument_group("connection", "Each of them overrides the environment.")
    group.add_argument("--endpoint", metavar="HOST:PORT", default="", help="the server")
    group.add_argument("--client-id", metavar="ID", default="", help="the API key")
    group.add_argument(
        "--client-secret", metavar="SECRET", default="", help="its secret; others on this machine can see it here"
    )
    group.add_argument("--cred-path", metavar="FILE", default="", help="a JSON file with ClientID and ClientSecret")
    group.add_argument("--insecure", action="store_true", default=None, help="speak plaintext")
    group.add_argument("--auth-url", metavar="URL", default="", help="the auth service")
    group.add_argument(
        timeout,
        dest="patience",
        metavar="S",
        type=seconds,
        default=TIMEOUT,
        help="how long to wait for the server without progress (default: %(default)g seconds)",
    )


def quiet_grpc() -> None:
    """Keep gRPC's notes for its makers, as of connections that ended, from stderr; call it before gRPC is imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def connect(args: argparse.Namespace) -> "Ensign":
    """Make the client that the options ask for; the caller closes it."""
    quiet_grpc()
    from ..client import Ensign

    return Ensign(
        client_id=args.client_id,
        client_secret=args.client_secret,
        cred_path=args.cred_path,
        endpoint=args.endpoint,
        insecure=args.insecure,
        auth_url=args.auth_url,
        timeout=args.patience,
    )
