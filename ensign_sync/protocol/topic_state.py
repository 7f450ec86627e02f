"""What a subscription knows of one topic, and which of its events it has delivered."""

from bisect import insort
from collections import deque
from typing import Deque, Dict, FrozenSet, Optional, Set

from .catchup_values import AT_THE_END, BEFORE_ALL, Held, LookBack, Read
from .search import Search


class TopicState:
    """What is known of one topic."""

    def __init__(self, id: bytes, floor: bytes = BEFORE_ALL) -> None:
        self.id = id
        self.floor = floor  # every event up to here was delivered
        self.seen: Set[bytes] = set()  # and these
        self.done: FrozenSet[bytes] = frozenset()  # and these, by a subscription before this one
        self.by_id: Deque[bytes] = deque()  # sorted
        self.largest = floor  # that was delivered, or counts as if it was
        self.row = -1  # the row of the log ...
        self.anchor: Optional[bytes] = None  # ... that has this id
        self.behind = self.dirty = True
        self.spilled = False
        self.held: Dict[bytes, Held] = {}
        self.search: Optional[Search] = None
        self.read: Optional[Read] = None  # under way
        self.rows = 0  # of it
        self.last_read = 0
        self.held_before: Set[bytes] = set()  # it was sent
        self.again = False  # without duplicates
        self.look_back: Optional[LookBack] = None
        self.end = BEFORE_ALL  # what is read up to here is looked back at
        self.only_live = False

    @property
    def begun(self) -> bool:
        """Whether it is known what comes before the first event that is delivered."""
        return self.floor != AT_THE_END

    def was_delivered(self, id: bytes) -> bool:
        return id <= self.floor or id in self.seen or id in self.done

    def was_had(self, held: Held) -> bool:
        """Tell whether the log was faster than the stream; after a step of the clock a small id may be new."""
        id = held.delivery.id
        return id in self.seen or id in self.done or (id <= self.floor and not held.stepped)

    def pass_straight(self, id: bytes, row: int, most: int) -> None:
        """Note that an event was delivered which is later than all before it, and which row it is."""
        self.row = row
        self.anchor = self.largest = id
        self.seen.add(id)
        self.by_id.append(id)
        if len(self.by_id) > most:
            self.forget(most)

    def remember(self, id: bytes, most: int) -> None:
        self.seen.add(id)
        if not self.by_id or id > self.by_id[-1]:
            self.by_id.append(id)
        else:
            insort(self.by_id, id)
        self.largest = max(self.largest, id)
        self.forget(most)

    def forget(self, most: int) -> None:
        """Forget the smallest, not the oldest: what is later may come again."""
        while len(self.by_id) > most:
            smallest = self.by_id.popleft()
            self.seen.discard(smallest)
            self.floor = max(self.floor, smallest)
