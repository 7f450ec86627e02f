"""What a parsed query is made of (docs/protocol.rst, section "EnSQL")."""

from functools import reduce
from typing import List, NamedTuple, Optional, Tuple, Union

from .lexer import Kind


class Field(NamedTuple):
    """A selected field; ``alias`` is the name it gets in the result, if another."""

    name: str
    alias: Optional[str] = None


class Comparison(NamedTuple):
    """A condition on one field; ``value`` is the text as written, without quotes, a backslash before a quote kept."""

    field: str
    operator: str
    value: str
    kind: Kind


class Logical(NamedTuple):
    """Two conditions joined by AND or OR."""

    operator: str
    left: "Condition"
    right: "Condition"


Condition = Union[Comparison, Logical]


class Query(NamedTuple):
    """A parsed query.

    Attributes:
        fields: The selected fields; empty for ``*``.
        topic: The name of the topic.
        schema: The name of the event type, "" if none is given, "*" for any.
        version: The version of the event type.
        where: The condition, AND binding tighter than OR.
        offset: How many stored events to skip.
        limit: How many events to return.
    """

    fields: Tuple[Field, ...]
    topic: str
    schema: str = ""
    version: Optional[int] = None
    where: Optional[Condition] = None
    offset: Optional[int] = None
    limit: Optional[int] = None


class _Group:
    """The terms between two parentheses, and the logical operators between the terms."""

    def __init__(self) -> None:
        self.terms: List[Condition] = []
        self.operators: List[str] = []

    def fold(self) -> Condition:
        """Make one condition of the terms."""
        alternatives = self.terms[:1]
        for operator, term in zip(self.operators, self.terms[1:]):
            if operator == "AND":
                alternatives[-1] = Logical("AND", alternatives[-1], term)
            else:
                alternatives.append(term)
        return reduce(lambda left, right: Logical("OR", left, right), alternatives)


class ConditionBuilder:
    """Builds the condition of a query from its parts in the order of the text."""

    def __init__(self) -> None:
        self._groups = [_Group()]

    def add(self, term: Condition) -> None:
        """Add a term."""
        self._groups[-1].terms.append(term)

    def join(self, operator: str) -> None:
        """Add the logical operator between the last term and the next."""
        self._groups[-1].operators.append(operator)

    def open(self) -> None:
        """Open a parenthesis."""
        self._groups.append(_Group())

    def close(self) -> bool:
        """Close the innermost parenthesis; return False if none is open."""
        if len(self._groups) == 1:
            return False
        group = self._groups.pop()
        self.add(group.fold())
        return True

    def finish(self) -> Optional[Condition]:
        """Return the condition, None if there is none; the server does not mind a parenthesis that stays open."""
        while self.close():
            pass
        return self._groups[0].fold() if self._groups[0].terms else None
