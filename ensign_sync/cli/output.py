"""Where every command prints: results on stdout, messages on stderr."""

import os
import sys
from typing import Any, List, Sequence


class OutputClosed(Exception):
    """Nobody reads stdout any more."""


class Output:
    """The two streams of a command. Used by one thread.

    Results are UTF-8 whatever the locale is; a lone surrogate becomes an escape that is right within JSON.
    """

    def __init__(self, stdout: Any, stderr: Any) -> None:
        """Print on these streams of text; either may be None, as when it was closed by the shell."""
        self._stdout = stdout
        self._stderr = stderr

    @property
    def columns(self) -> int:
        """How wide a line of the terminal is; 80 where there is none."""
        import shutil

        return shutil.get_terminal_size().columns

    def line(self, text: str) -> None:
        """Print a line of a result."""
        self.data(text.encode("utf-8", "backslashreplace"))

    def data(self, data: bytes) -> None:
        """Print the bytes of a result, and a newline."""
        if self._stdout is None:
            return
        try:
            self._stdout.buffer.write(data + b"\n")
        except BrokenPipeError:
            self._closed()

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print aligned columns."""
        for text in aligned([heads, *rows]):
            self.line(text)

    def flush(self) -> None:
        """Hand over what was printed."""
        if self._stdout is None:
            return
        try:
            self._stdout.flush()
        except BrokenPipeError:
            self._closed()

    def say(self, text: str) -> None:
        """Print a message; it takes one line."""
        if self._stderr is None:
            return
        try:
            print(f"ensign-sync: {one_line(text)}", file=self._stderr, flush=True)
        except BrokenPipeError:
            pass  # nobody to tell

    def _closed(self) -> None:
        """Give up stdout, so that the interpreter does not stumble over it once more at its end."""
        if self._stdout is sys.stdout:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stdout.fileno())
            os.close(null)
        raise OutputClosed from None


def aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    """Return the rows as lines of aligned columns; columns of numbers are aligned to the right."""
    columns = list(zip(*rows))
    widths = [max(map(len, column)) for column in columns]
    numeric = [len(rows) > 1 and all(map(_is_number, column[1:])) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in rows
    ]


def one_line(text: str) -> str:
    """Return the text with whatever would break a line, or play with the terminal, made visible."""
    return "".join(character if character.isprintable() else _visible(character) for character in text)


def _visible(character: str) -> str:
    return " " if character in "\n\t" else character.encode("unicode_escape").decode("ascii")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
