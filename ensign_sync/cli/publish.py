"""``ensign-sync publish``: the lines of a file, each an event."""

import argparse
import contextlib
import sys
from typing import IO, Any, ContextManager, Dict, Iterator, Tuple

from .. import mimetypes
from ..events import Event, Type
from .formats import loads
from .options import add_connection, connect
from .output import Output

HELP = "Publish the lines of a file, or of stdin, each as an event."


def schema(text: str) -> Type:
    """Read ``name:1.0.0``."""
    name, _, version = text.rpartition(":")
    if not name.strip() or not version:
        raise argparse.ArgumentTypeError(f"{text!r} is not a schema such as Weather:1.0.0")
    try:
        return Type(name, version)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def mimetype(text: str) -> int:
    """Read a mimetype."""
    try:
        return mimetypes.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def pair(text: str) -> Tuple[str, str]:
    """Read ``key=value``."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("topic", metavar="TOPIC", help="its name or id")
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="what to publish; - is stdin (default)")
    parser.add_argument("--create", action="store_true", help="make the topic if it does not exist")
    parser.add_argument("--jsonl", action="store_true", help="each line has to be JSON; the mimetype is JSON")
    parser.add_argument("--mimetype", type=mimetype, metavar="TYPE", help="default: text/plain")
    parser.add_argument("--schema", type=schema, metavar="NAME:VERSION", help="such as Weather:1.0.0")
    parser.add_argument("--idempotent", action="store_true", help="after an outage look for what is stored already")
    parser.add_argument("--meta", type=pair, metavar="K=V", action="append", default=[], help="may be given repeatedly")
    add_connection(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Publish the lines, and tell how many events the server acknowledged, whatever ends it."""
    acks = [0]

    def count(_: Any) -> None:
        acks[0] += 1

    with _opened(args.file) as file, connect(args) as client:
        if args.create:
            client.ensure_topic_exists(args.topic)
        try:
            client.publish_from(args.topic, _events(file, args), on_ack=count, idempotent=args.idempotent)
        finally:
            out.say(f"{acks[0]} events acknowledged")
    return 0


def _opened(name: str) -> ContextManager[IO[bytes]]:
    if name != "-":
        return open(name, "rb")

    @contextlib.contextmanager
    def stdin() -> Iterator[IO[bytes]]:
        if sys.stdin is None:
            raise OSError("stdin is closed: name a file")
        yield sys.stdin.buffer  # not ours to close

    return stdin()


def _events(file: IO[bytes], args: argparse.Namespace) -> Iterator[Event]:
    options: Dict[str, Any] = {"mimetype": mimetypes.ApplicationJSON if args.jsonl else mimetypes.TextPlain}
    if args.mimetype is not None:
        options["mimetype"] = args.mimetype
    if args.schema is not None:
        options.update(schema_name=args.schema.name, schema_version=args.schema.semver())
    for number, line in enumerate(file, 1):
        data = _without_newline(line)
        if data:
            if args.jsonl:
                _check_json(data, number)
            yield Event(data, meta=dict(args.meta), **options)


def _without_newline(line: bytes) -> bytes:
    if line.endswith(b"\r\n"):
        return line[:-2]
    return line[:-1] if line.endswith(b"\n") else line


def _check_json(data: bytes, number: int) -> None:
    try:
        loads(data)
    except ValueError as error:
        raise ValueError(f"line {number} is not JSON: {error}") from error
