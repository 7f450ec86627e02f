"""One consumer group: who of its members gets which event, and what has to be delivered again.

Pure: no thread, no clock, no store. Each event of the group's topics goes to one member; it goes to another, or again
to the same, when it is nacked, when its member leaves, or when its member is silent for too long.
"""

import heapq
import itertools
from collections import OrderedDict
from typing import Any, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from ..nack import DELIVER_AGAIN_NOT_ME, UNHANDLED_MIMETYPE, UNKNOWN_TYPE

#: So many events may wait for the ack of one member.
CREDIT = 256
#: Seconds that a member may be silent with events in its hands, unless the group says otherwise.
PATIENCE = 20.0
#: A nacked event waits this long before it is delivered again, each time twice as long, up to the second number.
FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0

_NOT_ME = frozenset([int(DELIVER_AGAIN_NOT_ME), int(UNHANDLED_MIMETYPE), int(UNKNOWN_TYPE)])


class Place(NamedTuple):
    """Where an event stands: the number of its topic, and its position."""

    topic: int
    position: int


class _Task(NamedTuple):
    """An event that has to be delivered: how often it was, and which members do not want it."""

    place: Place
    attempt: int = 0
    unwanted: FrozenSet[int] = frozenset()


class _Hand:
    """What one member holds."""

    def __init__(self, topics: Set[int]) -> None:
        self.topics = topics
        self.tasks: OrderedDict[bytes, Tuple[_Task, float]] = OrderedDict()  # by event id, and since when
        self.head_since = 0.0  # when the oldest of them came to be the oldest
        self.heard = 0.0
        self.silent = False  # it let something lie, and has said nothing since


class Group:
    """The state of a group. Times are seconds on any clock that never steps back."""

    def __init__(self, at_most_once: bool = False, patience: float = PATIENCE) -> None:
        self.at_most_once = at_most_once
        self.patience = patience or PATIENCE
        self._hands: Dict[int, _Hand] = {}
        self._again: List[Tuple[float, int, _Task]] = []
        self._numbers = itertools.count()
        self.next: Dict[int, int] = {}  # topic -> the position that was not yet handed out
        self._open: Dict[int, Set[int]] = {}  # topic -> positions before it that are not done
        self.redelivered = 0
        self._able: Optional[Set[int]] = None

    # members

    def join(self, member: int, topics: Dict[int, int], now: float) -> None:
        """Add a member; ``topics`` maps each of its topics to the position at which a topic new to the group begins."""
        for topic, position in topics.items():
            self.next.setdefault(topic, position)
        self._hands[member] = _Hand(set(topics))
        self._hands[member].heard = now

    def leave(self, member: int, now: float) -> None:
        """Remove a member; what it holds is for the others, at once."""
        hand = self._hands.pop(member, None)
        if hand is not None:
            for task, _ in hand.tasks.values():
                self._redo(task, now)

    @property
    def members(self) -> int:
        """How many members there are."""
        return len(self._hands)

    # answers

    def ack(self, member: int, id: bytes, now: float) -> bool:
        """An event is done; False if the member does not hold it (any more)."""
        task = self._give_back(member, id, now)
        if task is None:
            return False
        self._done(task.place)
        return True

    def nack(self, member: int, id: bytes, code: int, now: float) -> bool:
        """An event is to be delivered again, later each time; some codes ask for another member."""
        task = self._give_back(member, id, now)
        if task is None:
            return False
        unwanted = task.unwanted | {member} if code in _NOT_ME else task.unwanted
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(task.attempt, 20))
        self._redo(task._replace(unwanted=unwanted), now + delay)
        return True

    # work

    def wanted(
        self, ends: Dict[int, int], now: float, most: int, able: Optional[Set[int]] = None
    ) -> List[Tuple[Place, int]]:
        """Return up to ``most`` events to be delivered now, and to whom; each has to be confirmed or skipped.

        ``ends`` maps topics to the position of their next event; ``able`` are the members that may get something now.
        """
        self._able = able
        chosen: List[Tuple[Place, int]] = []
        later: List[Tuple[float, int, _Task]] = []
        while self._again and self._again[0][0] <= now and len(chosen) < most:
            entry = heapq.heappop(self._again)
            member = self._choose(entry[2])
            if member is None:
                later.append(entry)
            else:
                self._promise(member, entry[2], now)
                chosen.append((entry[2].place, member))
        for entry in later:
            heapq.heappush(self._again, entry)
        for topic, position in list(self.next.items()):
            end = ends.get(topic, position)
            while position < end and len(chosen) < most:
                task = _Task(Place(topic, position))
                member = self._choose(task)
                if member is None:
                    break
                position += 1
                self._open.setdefault(topic, set()).add(task.place.position)
                self._promise(member, task, now)
                chosen.append((task.place, member))
            self.next[topic] = position
        return chosen

    def confirm(self, member: int, place: Place, id: bytes, now: float) -> None:
        """The event was sent to its member."""
        hand = self._hands.get(member)
        if hand is None:
            return  # it left meanwhile, and what it was promised went to the others
        task, _ = hand.tasks.pop(_key(place))
        if self.at_most_once:
            self._done(place)
            return
        if not hand.tasks:
            hand.head_since = now
        hand.tasks[id] = (task._replace(attempt=task.attempt + 1), now)

    def skip(self, member: int, place: Place) -> None:
        """There is no such event any more, or it is not for delivery."""
        hand = self._hands.get(member)
        if hand is not None:
            hand.tasks.pop(_key(place), None)
        self._done(place)

    def overdue(self, now: float) -> int:
        """Take events back from members that are silent for too long; returns how many.

        A member that works through what it holds is not silent: only the oldest event of its hand is looked at, and
        its time counts from when it came to be the oldest.
        """
        taken = 0
        for number, hand in self._hands.items():
            while hand.tasks:
                id, (task, since) = next(iter(hand.tasks.items()))
                silent = now - max(since, hand.heard) > self.patience
                if now - max(since, hand.head_since) <= self.patience:
                    break
                del hand.tasks[id]
                self._redo(task._replace(unwanted=task.unwanted | {number}), now)
                taken += 1
                hand.silent = hand.silent or silent
                if not silent:
                    hand.head_since = now
        return taken

    def next_look(self, now: float) -> Optional[float]:
        """Return after how many seconds ``overdue`` or ``wanted`` may have something, None if only after an answer."""
        times = [self._again[0][0]] if self._again else []
        for hand in self._hands.values():
            if hand.tasks:
                _, since = next(iter(hand.tasks.values()))
                times.append(max(since, hand.head_since) + self.patience)
        return max(0.0, min(times) - now) if times else None

    # what outlives the process

    def dump(self) -> Dict[str, Any]:
        """Return what has to be kept: per topic the next position, and what before it is not done."""
        topics = {str(topic): [end, sorted(self._open.get(topic, ()))] for topic, end in self.next.items()}
        return {"at_most_once": self.at_most_once, "patience": self.patience, "topics": topics}

    @classmethod
    def load(cls, kept: Dict[str, Any]) -> "Group":
        """Make a group of what was kept; what was not done is delivered again."""
        group = cls(bool(kept["at_most_once"]), float(kept["patience"]))
        for topic, (end, undone) in kept["topics"].items():
            group.next[int(topic)] = int(end)
            group._open[int(topic)] = set(undone)
            for position in undone:
                group._redo(_Task(Place(int(topic), int(position)), 1), 0.0)
        return group

    def forget(self, topics: Iterable[int]) -> None:
        """Topics are gone."""
        gone = set(topics)
        for topic in gone:
            self.next.pop(topic, None)
            self._open.pop(topic, None)
        self._again = [entry for entry in self._again if entry[2].place.topic not in gone]
        heapq.heapify(self._again)

    # inside

    def _choose(self, task: _Task) -> Optional[int]:
        """Return the member with the emptiest hand that wants the topic and has room."""
        takers = {member: hand for member, hand in self._hands.items() if task.place.topic in hand.topics}
        # Rather one that did not want it, or is silent, than nobody; but while there is a better one it is waited for.
        for good in (
            [m for m, hand in takers.items() if m not in task.unwanted and not hand.silent],
            [m for m, hand in takers.items() if not hand.silent],
            list(takers),
        ):
            if good:
                free = [
                    (len(takers[m].tasks), m)
                    for m in good
                    if len(takers[m].tasks) < CREDIT and (self._able is None or m in self._able)
                ]
                return min(free)[1] if free else None
        return None

    def _promise(self, member: int, task: _Task, now: float) -> None:
        self._hands[member].tasks[_key(task.place)] = (task, now)

    def _give_back(self, member: int, id: bytes, now: float) -> Optional[_Task]:
        hand = self._hands.get(member)
        if hand is None or id not in hand.tasks:
            return None
        was_first = next(iter(hand.tasks)) == id
        task, _ = hand.tasks.pop(id)
        hand.heard = now
        hand.silent = False
        if was_first:
            hand.head_since = now
        return task

    def _redo(self, task: _Task, at: float) -> None:
        self.redelivered += task.attempt > 0
        heapq.heappush(self._again, (at, next(self._numbers), task))

    def _done(self, place: Place) -> None:
        self._open.get(place.topic, set()).discard(place.position)


def _key(place: Place) -> bytes:
    """Return what stands for an event in a hand until its id is known: no event id has this length."""
    return b"promised" + place.topic.to_bytes(8, "big") + place.position.to_bytes(8, "big")
