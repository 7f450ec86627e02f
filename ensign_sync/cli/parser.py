"""argparse, with options and positional arguments in any order."""

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """A parser that takes ``TOPIC --option FILE``; before Python 3.12 argparse gives up on such an order."""

    _mixing = False

    def __init__(self, **options: Any) -> None:
        """Make a parser; its options may not be abbreviated, so that later versions may add some."""
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; argparse calls this for the parsers of the commands too."""
        last_word_is_another_command = any(
            action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._get_positional_actions()
        )
        if self._mixing or last_word_is_another_command:
            return super().parse_known_args(args, namespace)
        self._mixing = True  # it calls back
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
