"""What a query of the full dialect is made of."""

from typing import NamedTuple, Optional, Tuple, Union

from ensign_sync.ids import RLID
from ensign_sync.times import Instant

#: What a field is compared with. A bool is a truth value here and never a number.
Value = Union[str, bool, int, float]

#: The name of a field, one part for each level of the decoded payload.
Path = Tuple[str, ...]

#: A place in the log of a topic: that of an event, or a point in time.
Moment = Union[RLID, Instant]


class Column(NamedTuple):
    """A selected field; ``alias`` is the name it gets in the result, if another."""

    path: Path
    alias: Optional[str] = None

    @property
    def name(self) -> str:
        """The key of the field in the result."""
        return ".".join(self.path) if self.alias is None else self.alias


class Compare(NamedTuple):
    """A comparison of a field; ``operator`` is one of ``= != > >= < <= LIKE ILIKE``."""

    path: Path
    operator: str
    value: Value


class Not(NamedTuple):
    """The opposite of a condition; unknown stays unknown."""

    term: "Predicate"


class Junction(NamedTuple):
    """Two or more conditions joined by AND or OR."""

    operator: str
    terms: Tuple["Predicate", ...]


Predicate = Union[Compare, Not, Junction]


class Select(NamedTuple):
    """A parsed query of the full dialect.

    Attributes:
        topic: The name of the topic.
        columns: The selected fields; empty for ``*``.
        schema: The name of the event type; "" for any.
        major: The major version of the event type; None for any.
        where: The condition.
        before: Only events that lie before this one, or that were stored before this time.
        after: Only events that lie after this one, or that were stored at this time or later.
        offset: How many stored events to skip, or the event to start with.
        limit: How many events to return at most.
    """

    topic: str
    columns: Tuple[Column, ...] = ()
    schema: str = ""
    major: Optional[int] = None
    where: Optional[Predicate] = None
    before: Optional[Moment] = None
    after: Optional[Moment] = None
    offset: Union[int, RLID, None] = None
    limit: Optional[int] = None
