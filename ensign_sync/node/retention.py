"""How much a node keeps: events beyond an age or a total size go, the oldest first; positions stay as they are."""

import heapq
import itertools
import logging
import re
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

from ..ids import RLID
from .core import Core

logger = logging.getLogger("ensign_sync.node")

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*\Z")

#: Seconds between two looks, and events that go in one step.
_PERIOD = 1.0
_STEP = 1_000


class Retention(NamedTuple):
    """What is kept: events up to an age in seconds, or up to a number of bytes of all topics together."""

    seconds: Optional[float] = None
    size: Optional[int] = None

    @classmethod
    def parse(cls, text: str) -> "Retention":
        """Read ``7d``, ``12h``, ``90s`` or ``500MB``, ``2GiB``; ValueError names what is understood."""
        match = _TEXT.match(text)
        if match:
            number, unit = float(match.group(1)), match.group(2)
            if unit in _AGES and number > 0:
                return cls(seconds=number * _AGES[unit])
            if unit.upper() in _SIZES and number > 0:
                return cls(size=int(number * _SIZES[unit.upper()]))
        units = f"{', '.join(_AGES)} for an age, or {', '.join(_SIZES)} for a size"
        raise ValueError(f"{text!r} is neither an age nor a size: give a number and one of {units}")


class Keeper:
    """Removes what is not to be kept. All of it happens on the writer's thread, in short steps."""

    def __init__(self, service: Core, retention: Retention) -> None:
        self._service = service
        self._retention = retention

    def start(self) -> None:
        """Look every second from now on."""
        self._service.timer.after(_PERIOD, lambda: self._service.broker.run(self._look))

    def _look(self) -> None:
        try:
            more = self._trim()
        except Exception:
            logger.exception("old events could not be removed; it will be tried again")
            more = False
        if more:
            self._service.broker.run(self._look)  # behind what waits to be stored
        else:
            self.start()

    def _trim(self) -> bool:
        """Remove some of what is too old or too much; returns whether there may be more."""
        log = self._service.log
        cuts: Dict[int, int] = {}
        excess = sum(log.extent(topic.number).size for topic in log.all_topics()) - (self._retention.size or 0)
        limit = self._service.clock.now_ns() // 1_000_000 - int((self._retention.seconds or 0) * 1000)
        for id, number, position, size in self._oldest():
            young = RLID(id).milliseconds >= limit if self._retention.seconds is not None else excess <= 0
            if young:
                break
            cuts[number] = position + 1
            excess -= size
        for number, first in cuts.items():
            log.trim(number, first)
        return bool(cuts)

    def _oldest(self) -> Iterator[Tuple[bytes, int, int, int]]:
        """Yield the oldest events of all topics, as many as go in one step: id, topic, position and size."""
        topics = self._service.log.all_topics()
        return itertools.islice(heapq.merge(*(self._events(topic.number) for topic in topics)), _STEP)

    def _events(self, number: int) -> Iterator[Tuple[bytes, int, int, int]]:
        """Yield what a topic has, one event before all others: of most topics nothing goes."""
        first = self._service.log.extent(number).first
        for start, end in ((first, first + 1), (first + 1, first + _STEP)):
            for position, event in self._service.log.read_positions(number, start, end):
                yield event.id, number, position, len(event.wrapper)
