"""``ensign-sync status``: what the server says of itself."""

import argparse

from .. import settings
from .options import add_connection, connect
from .output import Output

HELP = "Ask the server how it is."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_connection(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the status and the address that was asked."""
    # Before the client, which does not tell: what is missing is said here.
    asked = settings.load(
        args.client_id, args.client_secret, args.cred_path, args.endpoint, args.insecure, args.auth_url
    )
    with connect(args) as client:
        out.line(str(client.status()))
    out.line(f"endpoint: {asked.endpoint}")
    return 0
