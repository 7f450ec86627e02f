"""Write a query of the full dialect as text: in its canonical form, and as a plan for people."""

import re
from typing import List, Union

from ensign_sync import times
from ensign_sync.ids import RLID

from .full_lexer import KEYWORDS
from .tree import Column, Compare, Junction, Moment, Not, Path, Predicate, Select, Value

_PLAIN = re.compile(r"[^\W\d][\w-]*")
# What is a keyword by its place alone, or a truth value, reads better in quotes as well.
_QUOTED = KEYWORDS | frozenset("NOT BEFORE AFTER TRUE FALSE T F".split())


def _name(name: str) -> str:
    if _PLAIN.fullmatch(name) and name.upper() not in _QUOTED:
        return name
    return '"' + name.replace('"', '""') + '"'


def _path(path: Path) -> str:
    return ".".join(map(_name, path))


def _text(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def _value(value: Value) -> str:
    if isinstance(value, str):
        return _text(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _moment(moment: Moment) -> str:
    return _text(str(moment) if isinstance(moment, RLID) else times.to_rfc3339(moment))


def _compare(compare: Compare, negation: str = "") -> str:
    return f"{_path(compare.path)} {negation}{compare.operator} {_value(compare.value)}"


def _predicate(predicate: Predicate) -> str:
    if isinstance(predicate, Compare):
        return _compare(predicate)
    if isinstance(predicate, Not):
        term = predicate.term
        if isinstance(term, Compare) and term.operator in ("LIKE", "ILIKE"):
            return _compare(term, "NOT ")
        return "NOT " + _grouped(term, isinstance(term, Junction))
    terms = []
    for term in predicate.terms:
        inner = isinstance(term, Junction) and not (term.operator == "AND" and predicate.operator == "OR")
        terms.append(_grouped(term, inner))
    return f" {predicate.operator} ".join(terms)


def _grouped(predicate: Predicate, grouped: bool) -> str:
    return f"({_predicate(predicate)})" if grouped else _predicate(predicate)


def _columns(columns: List[Column]) -> str:
    return ", ".join(
        _path(column.path) + ("" if column.alias is None else f" AS {_name(column.alias)}") for column in columns
    )


def _offset(offset: Union[int, RLID]) -> str:
    return _moment(offset) if isinstance(offset, RLID) else str(offset)


def to_text(select: Select) -> str:
    """Return the query in its canonical form, with the values of its parameters written out.

    The form parses to the same query, unless it has a text that ends in a backslash, which only a parameter can bring.
    """
    schema = "." + _name(select.schema) if select.schema else ""
    major = "" if select.major is None else f".{select.major}"
    parts = [f"SELECT {_columns(list(select.columns)) or '*'} FROM {_name(select.topic)}{schema}{major}"]
    if select.where is not None:
        parts.append(f"WHERE {_predicate(select.where)}")
    for word, moment in (("AFTER", select.after), ("BEFORE", select.before)):
        if moment is not None:
            parts.append(f"{word} {_moment(moment)}")
    if select.offset is not None:
        parts.append(f"OFFSET {_offset(select.offset)}")
    if select.limit is not None:
        parts.append(f"LIMIT {select.limit}")
    return " ".join(parts)


def explain(select: Select) -> str:
    """Return the plan of a query, a line for each step in the order in which they are done."""
    version = "" if select.major is None else f", major version {select.major}"
    window = [
        f"{word} {_moment(moment)}" for word, moment in (("after", select.after), ("before", select.before)) if moment
    ]
    start = "the first event" if select.offset is None else f"event {_offset(select.offset)}"
    if isinstance(select.offset, int):
        start = f"behind the first {select.offset} stored events"
    return "\n".join(
        [
            f"topic:  {_name(select.topic)}",
            f"offset: {start}",
            f"schema: {_name(select.schema) + version if select.schema else 'any'}",
            f"time:   {' and '.join(window) or 'any'}",
            f"filter: {'none' if select.where is None else _predicate(select.where)}",
            f"fields: {_columns(list(select.columns)) or '* (the whole event)'}",
            f"limit:  {'none' if select.limit is None else select.limit}",
        ]
    )
