"""The deduplication of what is stored, when a topic gets another policy (docs/protocol.rst, "Topics")."""

import logging
from typing import Callable, Dict, List, Optional, Tuple

from ..enum import DeduplicationStrategy, TopicState
from ..wire import codec, dedup
from ..wire.dedup import Policy
from ..wire.records import TopicRecord
from .core import Core
from .queries import whole
from .storage import StoredEvent

logger = logging.getLogger("ensign_sync.node")

#: As on a full disk.
RETRY_SECONDS = 30.0

#: Events that are compared and rewritten in one step.
_STEP = 1_000


class Rehash:
    """One run over the events of a topic: marks those that repeat an earlier one, refills those that do no more.

    The topic is PENDING meanwhile. On a strict node the run has the real server's habits: the last event that was
    counted is not looked at, and a topic with a policy by fields stays PENDING for ever.
    """

    def __init__(self, service: Core, number: int, policy: Policy) -> None:
        self._service = service
        self._log = service.log
        self._number = number
        self._policy = policy
        self._at = 0

    def run(self) -> None:
        """Do all of it; takes as long as the topic is long. What fails is tried again, the whole of it."""
        self._at = 0
        self._try(self._run_as_the_real_server if self._service.strict else self._run)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            logger.exception("the deduplication of a topic failed; it is tried again in %g seconds", RETRY_SECONDS)
            self._service.timer.after(RETRY_SECONDS, lambda: self._service.pool.submit(self.run))

    def _run_as_the_real_server(self) -> None:
        end = self._log.count(self._number)
        if end and self._policy.strategy == int(DeduplicationStrategy.UNIQUE_FIELD):
            logger.warning("a topic stays PENDING: the real server cannot compare events by their fields")
            return
        self._log.forget_fingerprints(self._number)
        while self._at < end - 1 and self._step(end - 1):
            continue
        self._log.forget_fingerprints(self._number)  # new events are never compared
        self._finish()

    def _run(self) -> None:
        self._log.forget_fingerprints(self._number)
        while self._log.count(self._number) - self._at > _STEP and self._step():
            continue
        # The rest between two transactions, so that no event is stored that neither this run nor the writer compares.
        self._service.broker.run(lambda: self._try(self._run_out))

    def _run_out(self) -> None:
        while self._step():
            continue
        self._finish()

    def _finish(self) -> None:
        topic = self._log.topic(self._number)
        if topic is not None:
            record = TopicRecord(topic.record).in_state(TopicState.READY, self._service.clock.now_ns())
            self._log.change_topic(self._number, record.dump())
            self._service.gatherer.recount(self._number)

    def _step(self, until: Optional[int] = None) -> bool:
        """Look at the next events; returns whether there were any."""
        end = self._at + _STEP if until is None else min(until, self._at + _STEP)
        rows = list(self._log.read_positions(self._number, self._at, end))
        if not rows:
            return False
        changed: Dict[int, bytes] = {}
        fresh: Dict[bytes, Tuple[int, bytes]] = {}
        for position, event in rows:
            wrapper = self._judged(position, event, fresh)
            if wrapper != event.wrapper:
                changed[position] = wrapper
        self._log.rewrite(self._number, changed)
        self._log.add_fingerprints(self._number, {print_: position for print_, (position, _) in fresh.items()})
        self._at = rows[-1][0] + 1
        return True

    def _judged(self, position: int, event: StoredEvent, fresh: Dict[bytes, Tuple[int, bytes]]) -> bytes:
        """Return an event as it has to be stored under the new policy."""
        # The real server gives the data back when it deduplicates no more, and forgets to take the mark away.
        keeps_mark = self._service.strict and not self._policy.deduplicates
        wrapper = whole(self._log, self._number, event, dedup.rebuild if keeps_mark else dedup.unmark)
        if wrapper is None:
            return event.wrapper  # marked by its publisher, or what it repeats is gone: it stays hidden
        if not self._policy.deduplicates:
            return wrapper
        payload = codec.decode_row(wrapper).payload
        print_ = dedup.fingerprint(self._policy, payload)
        original = self._original(print_, fresh) if print_ else b""
        if original and dedup.equal(self._policy, codec.decode_row(original).payload, payload):
            return dedup.mark(self._policy, original, wrapper)
        if print_ and not original:
            fresh[print_] = (position, wrapper)
        return wrapper

    def _original(self, print_: bytes, fresh: Dict[bytes, Tuple[int, bytes]]) -> bytes:
        if print_ in fresh:
            return fresh[print_][1]
        position = self._log.find(self._number, print_)
        event = None if position is None else self._log.event_at(self._number, position)
        return b"" if event is None else event.wrapper


def unfinished(service: Core) -> List[Callable[[], None]]:
    """Return the runs that a node did not finish before it ended."""
    runs = []
    for topic in service.log.all_topics():
        traits = service.book.traits(topic.number)
        if traits is not None and traits.status == TopicState.PENDING:
            runs.append(Rehash(service, topic.number, traits.policy).run)
    return runs
