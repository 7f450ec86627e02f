"""What the messages of topics say, decoded once and not for each event."""

from typing import Dict, NamedTuple, Optional, Tuple

from ..enum import TopicState
from ..wire.dedup import Policy
from ..wire.records import TopicRecord
from .storage import Log, StoredTopic


class Traits(NamedTuple):
    """What an event's way depends on."""

    readonly: bool
    status: TopicState
    policy: Policy

    @property
    def deduplicates(self) -> bool:
        """Whether new events are compared with those that are stored, on a node that does so in real time."""
        return self.policy.deduplicates and self.status != TopicState.PENDING


class Book:
    """Knows the traits of the topics of a log. Any thread may ask."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: Dict[int, Tuple[StoredTopic, Traits]] = {}

    def traits(self, number: int) -> Optional[Traits]:
        """Return the traits of a topic, None if it is gone."""
        topic = self._log.topic(number)
        if topic is None:
            self._known.pop(number, None)
            return None
        known = self._known.get(number)
        if known is None or known[0] is not topic:
            record = TopicRecord(topic.record)
            known = (topic, Traits(record.readonly, record.status, Policy.of_topic(topic.record)))
            self._known[number] = known
        return known[1]

    def forget(self) -> None:
        """Forget the topics that are gone."""
        for number in [number for number in list(self._known) if self._log.topic(number) is None]:
            self._known.pop(number, None)
