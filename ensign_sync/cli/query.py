"""``ensign-sync query``: what the log of a topic holds."""

import argparse
import csv
import io
from typing import Iterable, Sequence

from ..events import Event
from ..exceptions import QueryNoRows
from .formats import COLUMNS, as_cells, as_json, as_row
from .options import add_connection, connect
from .output import Output

HELP = "Read the log of a topic: SELECT * FROM topic [OFFSET n] [LIMIT n]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("sql", metavar="SQL", help="such as 'SELECT * FROM weather LIMIT 5'")
    parser.add_argument("--format", choices=("json", "table", "csv"), default="json", help="default: json, a line each")
    add_connection(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the rows."""
    with connect(args) as client:
        try:
            rows = client.query(args.sql)
        except QueryNoRows as error:
            out.say(str(error))
            return 0
        with rows:
            _PRINTERS[args.format](rows, out)
    return 0


def _print_json(rows: Iterable[Event], out: Output) -> None:
    for row in rows:
        out.line(as_json(row))


def _print_table(rows: Iterable[Event], out: Output) -> None:
    cells = [as_row(row, out.columns) for row in rows]
    before_data = [max(map(len, column)) + 2 for column in zip(("ID", "SCHEMA"), *(row[:2] for row in cells))]
    room = max(10, out.columns - sum(before_data))
    out.table(("ID", "SCHEMA", "DATA"), [(id, schema, data[:room]) for id, schema, data in cells])


def _print_csv(rows: Iterable[Event], out: Output) -> None:
    out.line(_csv_line(COLUMNS))
    for row in rows:
        out.line(_csv_line(as_cells(row)))


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


_PRINTERS = {"json": _print_json, "table": _print_table, "csv": _print_csv}
