"""``ensign-sync info``: what is in the project."""

import argparse

from .options import add_connection, connect
from .output import Output

HELP = "Count the events of the project, or of some topics; a server may be late with its counts."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("topic", metavar="TOPIC", nargs="*", help="its name or id (default: all topics)")
    add_connection(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Print a line for each topic, and the sums."""
    with connect(args) as client:
        names = client.topic_names()
        project = client.info(args.topic)
    rows = []
    for topic in project.topics:
        name = topic.name or names.get(str(topic.id), "")
        rows.append((str(topic.id), name, str(topic.events), str(topic.duplicates), str(topic.data_size_bytes)))
    sums = (project.events, project.duplicates, project.data_size_bytes)
    out.table(("ID", "NAME", "EVENTS", "DUPLICATES", "BYTES"), [*rows, ("", "", *map(str, sums))])
    return 0
