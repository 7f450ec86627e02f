"""``ensign-sync topics``: list, make and end topics, and set their policies."""

import argparse
from typing import Any

from .options import add_connection, connect
from .output import Output

HELP = "List the topics of the project; make, archive or destroy one, or say which of its events count as the same."

_STRATEGIES = ("none", "strict", "datagram", "key_grouped", "unique_key", "unique_field")

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
    _add_policy(actions)


def _add_policy(actions: Any) -> None:
    text = "Say which events of a topic count as the same; prints its state."
    policy = actions.add_parser("policy", help=text, description=text)
    policy.add_argument("topic", metavar="TOPIC", help="its name or id")
    policy.add_argument("strategy", metavar="STRATEGY", choices=_STRATEGIES, help="one of " + ", ".join(_STRATEGIES))
    policy.add_argument(
        "--offset", choices=("earliest", "latest"), default="earliest", help="which is the original (default: earliest)"
    )
    policy.add_argument("--key", metavar="NAME", action="append", default=[], help="of the metadata; may be repeated")
    policy.add_argument("--field", metavar="NAME", action="append", default=[], help="of the data; may be repeated")
    policy.add_argument("--overwrite", action="store_true", help="a duplicate takes the place of the original")
    add_connection(policy)


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
        elif args.action == "policy":
            keys, fields = args.key or None, args.field or None
            state = client.set_topic_deduplication_policy(
                args.topic, args.strategy, args.offset, keys, fields, args.overwrite
            )
            out.line(state.name)
        else:
            out.line(client.destroy_topic(args.topic).name)
    return 0
