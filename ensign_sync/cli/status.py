"""``ensign-sync status``: what the server says of itself."""

import argparse

from .options import add_connection, connect
from .output import Output

HELP = "Ask the server how it is."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_connection(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the status and the address it came from."""
    from .. import settings

    with connect(args) as client:
        out.line(str(client.status()))
    # The client was made, so the settings are whole; it does not tell where it is connected.
    out.line(f"endpoint: {settings.load(endpoint=args.endpoint, cred_path=args.cred_path).endpoint}")
    return 0
