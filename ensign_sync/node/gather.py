"""Counts of the events in a log, kept up as the log grows (docs/protocol.rst, "Info and status")."""

import threading
import time
from typing import Dict, Tuple

from ..wire import dedup
from ..wire.records import TopicCount, TypeCount, event_kind
from .storage import Log

#: With old events being removed all the time, counts are made anew at most this often, in seconds.
_RECOUNT_SECONDS = 10.0


class Gatherer:
    """Counts each event once, when somebody asks. Any thread may ask."""

    def __init__(self, log: Log) -> None:
        self._log = log
        # Who asks counts what is new; who asks meanwhile waits for it.
        self._lock = threading.Lock()
        self._counts: Dict[int, Tuple[TopicCount, int, int, float]] = {}  # and the positions counted, and since when

    def count(self, number: int, topic_id: bytes) -> TopicCount:
        """Return the counts of a topic as of now."""
        extent = self._log.extent(number)
        with self._lock:
            known, first, end, since = self._counts.get(number, (TopicCount(topic_id), extent.first, extent.first, 0.0))
            if extent.first != first and time.monotonic() - since >= _RECOUNT_SECONDS:
                known, first, end, since = TopicCount(topic_id), extent.first, extent.first, time.monotonic()
            known, end = self._grown(number, known, end)
            self._counts[number] = (known, first, end, since)
            return known

    def recount(self, number: int) -> None:
        """Count a topic anew: its events were changed."""
        with self._lock:
            self._counts.pop(number, None)

    def forget(self) -> None:
        """Forget the topics that are gone."""
        with self._lock:
            for gone in [known for known in self._counts if self._log.topic(known) is None]:
                del self._counts[gone]

    def _grown(self, number: int, known: TopicCount, end: int) -> Tuple[TopicCount, int]:
        types: Dict[Tuple[str, int, int, int, int], TypeCount] = dict(known.types)
        _, events, duplicates, size, last, _ = known
        for position, event in self._log.read_positions(number, end):
            kind = event_kind(event.wrapper)
            repeats, length = int(dedup.peek(event.wrapper)[0]), len(event.wrapper)
            so_far = types.get(kind, TypeCount())
            types[kind] = TypeCount(so_far.events + 1, so_far.duplicates + repeats, so_far.size + length)
            events, duplicates, size, last = events + 1, duplicates + repeats, size + length, event.id
            end = position + 1
        return TopicCount(known.topic_id, events, duplicates, size, last, types), end
