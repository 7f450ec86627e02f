"""The command line ``ensign-sync``: one module a command.

A command has ``HELP``, ``add_arguments(parser)`` and ``run(args, out)``, which returns the exit code. It imports gRPC
only when it runs, so that ``--help`` is fast.
"""

import os
import sys
from types import ModuleType
from typing import Dict, Optional, Sequence

from ..exceptions import EnsignError
from ..version import __version__
from . import backup, bench, demo, info, publish, query, run, serve, status, subscribe, topics
from .output import Output, OutputClosed
from .parser import Parser

OK, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = """\
exit codes:
  0    it worked
  1    it did not; one line on stderr says why
  2    the command line is wrong
  130  ended by Ctrl-C
  ('run' returns the exit code of its command, or 128 + the number of the signal that ended it)

Results go to stdout in UTF-8, messages to stderr. Without the options of the connection the variables ENSIGN_CLIENT_ID,
ENSIGN_CLIENT_SECRET, ENSIGN_ENDPOINT, ENSIGN_INSECURE, ENSIGN_AUTH_URL and ENSIGN_CREDENTIALS are used.
"""

COMMANDS: Dict[str, ModuleType] = {
    "demo": demo,
    "serve": serve,
    "run": run,
    "status": status,
    "info": info,
    "topics": topics,
    "publish": publish,
    "subscribe": subscribe,
    "query": query,
    "backup": backup,
    "bench": bench,
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit code."""
    out = Output(sys.stdout, sys.stderr)
    try:
        code = _main(argv, out)
        out.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputClosed:
        return OK  # whoever reads has read enough, as in "| head"
    except (EnsignError, ValueError) as error:
        out.say(str(error))
    except OSError as error:
        out.say(f"{error.filename}: {os.strerror(error.errno)}" if error.filename and error.errno else str(error))
    return ERROR


def _main(argv: Optional[Sequence[str]], out: Output) -> int:
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as end:  # argparse has printed the help, or what is wrong
        return int(end.code or OK)
    code: int = args.run(args, out)
    return code


def make_parser() -> Parser:
    """Make the parser of the whole command line."""
    parser = Parser(
        prog="ensign-sync",
        description="Publish, subscribe and query on an Ensign server, or serve an Ensign node.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"ensign-sync {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="name", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP, epilog=EXIT_CODES)
        command.set_defaults(run=module.run)
        module.add_arguments(command)
    return parser
