"""The log of a project as a subscription reads it: rows of a topic, and which topics there are."""

from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional

from ..exceptions import EnsignError
from ..ids import ULID
from ..transport.unary import Rows, Unary

#: What a server says to a key that may not read the log, or when it has none.
NEVER = frozenset(["PERMISSION_DENIED", "UNIMPLEMENTED"])

#: Which texts may name a topic in a query, best first: of those marked as sure it is known that they do.
Spelling = Callable[[str, bytes, Callable[[], Iterable[str]]], "List[Way]"]


class Way(NamedTuple):
    """A text that may name a topic in a query."""

    text: str
    sure: bool


class Log:
    """Reads it. Any thread may call any method; ``timeout`` is in seconds."""

    def __init__(self, unary: Unary, spelling: Spelling) -> None:
        self._unary = unary
        self._spelling = spelling

    def ids(self, timeout: float) -> Dict[str, bytes]:
        """Return the ids of all topics by their names; raises EnsignError, also where the key may not ask."""
        return {topic.name: topic.id.bytes for topic in self._unary.topics(timeout) if topic.id is not None}

    def is_there(self, id: bytes, timeout: float) -> bool:
        """Tell whether a topic is there, whatever lists say; a server that does not answer proves nothing."""
        try:
            self._unary.retrieve_topic(ULID(id), timeout)
        except EnsignError as error:
            return bool(error.code != "NOT_FOUND")
        return True

    def leaves_duplicates_out(self, timeout: float) -> bool:
        """Tell whether the server delivers no event that it has marked as a duplicate of another."""
        return "dedup" in self._unary.features(timeout)

    def counts(self, ids: Iterable[bytes], timeout: float) -> Dict[bytes, int]:
        """Return about how many rows topics have; none where the server does not say."""
        try:
            project = self._unary.info([ULID(id) for id in ids], timeout)
        except EnsignError:
            return {}
        return {topic.id.bytes: topic.events + topic.duplicates for topic in project.topics if topic.id is not None}

    def way(self, name: str, id: bytes, timeout: float) -> Optional[str]:
        """Return how a query names a topic, None if there is no way.

        What is not sure is tried: it must return a row of that topic. That a query is answered well proves nothing,
        since a server says the same of some that it stumbles over.
        """
        for way in self._spelling(name, id, lambda: self._unary.features(timeout)):
            if way.sure or self._shows(way.text, id, timeout):
                return way.text
        return None

    def rows(
        self,
        topic: str,
        offset: int,
        alone: bool,
        duplicates: bool,
        timeout: Optional[float] = None,
        origins: bool = False,
    ) -> Rows:
        """Start reading a topic, named as in a query, from a row on; the rows come as they are asked for."""
        limit = " LIMIT 1" if alone else ""
        return self._unary.query(f"SELECT * FROM {topic} OFFSET {offset}{limit}", None, duplicates, timeout, origins)

    def _shows(self, text: str, id: bytes, timeout: float) -> bool:
        try:
            rows = self.rows(text, 0, True, True, timeout)
            try:
                first: Any = next(iter(rows), None)
            finally:
                rows.cancel()
        except EnsignError:
            return False
        return first is not None and first.topic_id == id
