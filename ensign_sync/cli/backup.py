"""``ensign-sync backup``: a copy of the data of a node, while it runs."""

import argparse

from .. import settings
from .options import add_connection
from .output import Output

HELP = "Copy the data of a node, which may be running, to a new file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("file", metavar="FILE", help="the copy, a data file as any; must not exist")
    parser.add_argument("--data", metavar="SOURCE", help="copy this data file; default: ask the node of the connection")
    add_connection(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the copy."""
    from ..node import backup

    if args.data is not None:
        size = backup.copy_file(args.data, args.file)
    else:
        asked = settings.load(
            args.client_id, args.client_secret, args.cred_path, args.endpoint, args.insecure, args.auth_url
        )
        if asked.credentials is None:
            raise ValueError("a backup needs the key of the node: give --client-id and --client-secret, or --data FILE")
        size = backup.fetch(asked.auth_url, asked.credentials, args.file)
    out.say(f"{args.file}: {size} bytes")
    return 0
