"""Look at events with a query of the full dialect, where the server does not."""

import json
from typing import Any, Mapping, Optional

from ensign_sync import mimetypes
from ensign_sync.events import Event
from ensign_sync.exceptions import InvalidQueryError
from ensign_sync.ids import RLID

from .evaluate import Plan, Record
from .full import parse_full
from .tree import Select


class Filter:
    """Tells which events a query wants, and gives them the payload that it asks for. One thread at a time uses it.

    OFFSET by number is left to who reads the events; OFFSET by event, and LIMIT, are seen to here.

    Attributes:
        select: The query.
        at_end: It wants no more.
    """

    def __init__(self, select: Select) -> None:
        self.select = select
        self.at_end = select.limit == 0
        self._plan = Plan(select)
        self._first = select.offset.bytes if isinstance(select.offset, RLID) else None
        self._left = select.limit
        self._looks_inside = bool(select.where or select.columns)

    def wants(self, event: Event) -> bool:
        """Tell whether the query wants an event, which gets the payload of the selected fields if it does."""
        if self.at_end:
            return False
        id = bytes(event.id) if event.id is not None else b""
        if self._first is not None and id < self._first:
            return False
        record = self._record(event, id)
        if not self._plan.wants(record):
            return False
        if self._left is not None:
            self._left -= 1
            self.at_end = self._left <= 0
        self._project(event, record)
        return True

    def again(self, event: Event) -> None:
        """Give an event that was wanted before the payload that the query asks for; it does not count once more."""
        self._project(event, self._record(event, b""))

    def _project(self, event: Event, record: Record) -> None:
        fields = self._plan.project(record)
        if fields is not None:
            event.data, event.mimetype = json.dumps(fields).encode("utf-8"), mimetypes.ApplicationJSON

    def _record(self, event: Event, id: bytes) -> Record:
        data: Any = None
        if self._looks_inside:
            try:
                data = json.loads(event.data.decode("utf-8"))
            except (ValueError, RecursionError):
                data = None
        kind = event.type
        committed = event.committed
        return Record(data, event.meta, kind.name, kind.major_version, id, committed.ns if committed else None)


def subscription_filter(query: Any, params: Optional[Mapping[str, Any]]) -> Optional[Filter]:
    """Return the filter of a subscription, None if there is no query.

    Raises:
        InvalidQueryError: The query is not valid, or asks for what a subscription does not have.
    """
    if not query:
        if params:
            raise InvalidQueryError("params without a query: they stand for what is in one")
        return None
    if not isinstance(query, str):
        raise TypeError(f"expected type 'str' for query, got '{type(query).__name__}'")
    select = parse_full(query, params)
    if select.offset is not None:
        raise InvalidQueryError("a subscription has no OFFSET: say with start= where it begins")
    if select.limit == 0:
        raise InvalidQueryError("a subscription with LIMIT 0 would never deliver anything: leave the limit out")
    return Filter(select)
