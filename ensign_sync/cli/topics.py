"""``ensign-sync topics``: list, make and end topics."""

import argparse

from .options import add_connection, connect
from .output import Output

HELP = "List the topics of the project, or make, archive or destroy one."

_ACTIONS = {
    "create": "Make a topic; prints its id.",
    "archive": "Make a topic read-only for good; prints its state.",
    "destroy": "Destroy a topic with all its events, for good; prints its state.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    text = "List the topics: id, name and state."
    add_connection(actions.add_parser("list", help=text, description=text))
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("topic", metavar="TOPIC", help="its name" if name == "create" else "its name or id")
        add_connection(action)


def run(args: argparse.Namespace, out: Output) -> int:
    """Do what the action says."""
    with connect(args) as client:
        if args.action == "list":
            topics = client.get_topics()
            rows = [(str(topic.id), topic.name, topic.status.name if topic.status else "") for topic in topics]
            out.table(("ID", "NAME", "STATE"), rows)
        elif args.action == "create":
            out.line(client.create_topic(args.topic))
        elif args.action == "archive":
            out.line(client.archive_topic(args.topic).name)
        else:
            out.line(client.destroy_topic(args.topic).name)
    return 0
