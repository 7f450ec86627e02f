"""Counts of the events in a log, kept up as the log grows (docs/protocol.rst, "Info and status")."""

import threading
from typing import Dict, Tuple

from ..wire.records import TopicCount, TypeCount, event_kind
from .storage import Log


class Gatherer:
    """Counts each event once, when somebody asks. Any thread may ask."""

    def __init__(self, log: Log) -> None:
        self._log = log
        # Who asks counts what is new; who asks meanwhile waits for it.
        self._lock = threading.Lock()
        self._counts: Dict[int, TopicCount] = {}

    def count(self, number: int, topic_id: bytes) -> TopicCount:
        """Return the counts of a topic as of now."""
        with self._lock:
            known = self._counts.get(number)
            if known is None or known.topic_id != topic_id:
                known = TopicCount(topic_id, 0, 0, b"", {})
            self._counts[number] = known = self._grown(number, known)
            return known

    def _grown(self, number: int, known: TopicCount) -> TopicCount:
        types: Dict[Tuple[str, int, int, int, int], TypeCount] = dict(known.types)
        events, size, last = known.events, known.size, known.last_id
        for event in self._log.read(number, known.events):
            kind = event_kind(event.wrapper)
            so_far = types.get(kind, TypeCount(0, 0))
            types[kind] = TypeCount(so_far.events + 1, so_far.size + len(event.wrapper))
            events, size, last = events + 1, size + len(event.wrapper), event.id
        return TopicCount(known.topic_id, events, size, last, types)
