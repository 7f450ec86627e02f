"""What a subscription has had of each topic, and what to read of the log so that nothing is missed.

A server delivers live events only, drops them silently for a slow reader, lets some pass between Ready and the moment
at which it knows the subscriber, and forgets all at a reconnection (docs/protocol.rst, "Subscribe stream"). The log has
them. A topic is live, or behind: then one query reads the log from a row that must still be there, the anchor, while
what arrives live is held; at the end of the query what is held follows, and the topic is live. Whatever could hide a
hole is doubted before it is delivered, which costs one more query.

A topic that no query can name cannot be healed (``only_live``): then it is told where events may be missing.

Its doors:
    from the application   start, resume, only_live
    from the stream        opened, lost, live (or straight), idle
    from the log           row (or straight_row), ended
    to the log             next_read
    to the application     begins, deliveries, gaps, and reopen: the stream has to be opened anew
"""

from typing import Dict, Iterable, List, Mapping, Optional, Set, Tuple

from .catchup_values import AT_THE_END, BEFORE_ALL, Begun, Gap, Held, LookBack, Passed, Read
from .frames import Delivery
from .search import Search
from .topic_state import TopicState

#: A server keeps so many events for a subscriber and drops what comes beyond them, so between a look into the log and a
#: drop that it did not show as many are received.
SERVER_BUFFER = 16_384

#: How many ids are remembered: all that a server can have buffered, twice. What a step back of its clock touches is
#: recognised as long as it is among them.
MEMORY = 32_768

#: How much of what arrives live is held while the log is read, in bytes.
MOST_HELD = 64 * 2**20

#: What an event takes besides its payload, in bytes.
OVERHEAD = 400


class CatchUp:
    """The machine of one subscription. Not thread-safe.

    Attributes:
        deliveries: What goes to the application, in order; whoever takes it empties the list.
        begins: Where topics that were to begin at the end of the log do so, the same.
        gaps: What it has to be told of, the same.
        reopen: The stream does not carry the topics of now.
        stirred: Something besides deliveries is to be seen to: gaps, reopen, or a read.
        topics: The ids of the topics, by name.
    """

    def __init__(
        self,
        memory: int = MEMORY,
        most_held: int = MOST_HELD,
        server_buffer: int = SERVER_BUFFER,
        overhead: int = OVERHEAD,
    ) -> None:
        self.deliveries: List[Passed] = []
        self.begins: List[Begun] = []
        self.gaps: List[Gap] = []
        self.reopen = self.stirred = False
        self._memory, self._most_held, self._server_buffer = memory, most_held, server_buffer
        self._overhead = overhead
        self._held_bytes = 0
        self.topics: Dict[str, bytes] = {}
        self._topics: Dict[bytes, TopicState] = {}
        self._share = memory  # of the memory for each topic
        self._open = False
        self._previous: Optional[int] = None  # the counter of the last live event of this stream
        self._received = 0  # since the stream opened or was doubted
        self._largest = BEFORE_ALL
        self._looks: Set[int] = set()
        self._reads = self._read_before_doubt = 0

    # from the application

    def start(self, name: str, id: bytes, floor: bytes, hint: int, look_back: Optional[LookBack] = None) -> None:
        """Begin a topic after an id, else it begins with its first row; ``hint`` is about where the row of the id is.

        Once the end of the log is known, at which a topic with AT_THE_END begins, ``look_back`` says for the last id
        after which id to begin all the same: what lies between the two is delivered first, and marked.
        """
        self.topics[name] = id
        topic = self._add(TopicState(id, floor))
        topic.look_back = look_back
        if floor != BEFORE_ALL:
            topic.search = Search(floor, hint)

    def resume(self, name: str, id: bytes, floor: bytes, seen: Iterable[bytes], anchor: bytes, row: int) -> None:
        """Begin a topic where a subscription before this one ended; ``anchor`` is the event in a row of the log."""
        self.topics[name] = id
        topic = self._add(TopicState(id, floor))
        topic.done = frozenset(seen)
        topic.largest = max(topic.done, default=floor)
        topic.row, topic.anchor = row, anchor

    def only_live(self, id: bytes, reason: str) -> None:
        """No query shows this topic: what is held is delivered, and from now on there is only what arrives live."""
        topic = self._topics.get(id)
        if topic is None or topic.only_live:
            return
        topic.only_live, topic.search, topic.read, self.stirred = True, None, None, True
        topic.behind = topic.dirty = topic.spilled = False
        if topic.begun or topic.look_back is not None:
            self.gaps.append(Gap(id, topic.anchor or (topic.floor if topic.begun else BEFORE_ALL), False, reason))
        if not topic.begun:
            topic.floor = topic.largest = BEFORE_ALL
            self.begins.append(Begun(id, BEFORE_ALL, None, -1))
        for held in topic.held.values():
            if not topic.was_had(held):
                self._put(topic, held.delivery)
        self._drop_held(topic)

    def begun(self) -> bool:
        """Tell whether all topics have a beginning: what is published from now on is delivered."""
        return not self.without_beginning

    @property
    def without_beginning(self) -> int:
        """How many topics have no beginning yet."""
        return sum(not topic.begun for topic in self._topics.values())

    def is_live(self, id: bytes) -> bool:
        """Tell whether what arrives of a topic is delivered at once."""
        topic = self._topics.get(id)
        return topic is not None and not topic.behind

    @property
    def behind(self) -> List[bytes]:
        """The topics that are not live."""
        return [topic.id for topic in self._topics.values() if topic.behind]

    @property
    def is_behind(self) -> bool:
        """Whether the log is to be read."""
        return any(topic.behind for topic in self._topics.values())

    def forget(self, name: str) -> None:
        """A topic is no more."""
        topic = self._topics.get(self.topics.pop(name, b""))
        if topic is not None:
            self._forget(topic)
            reason, self.stirred = f"the topic {name} was destroyed", True
            self.gaps.append(Gap(topic.id, topic.anchor or topic.floor, True, reason))

    # from the stream

    def opened(self, topics: Mapping[str, bytes]) -> None:
        """A stream is open with these topics, name to id; what each of them missed is not known."""
        self._open, self.reopen, self.stirred = True, False, True
        self._previous, self._received, self._largest = None, 0, BEFORE_ALL
        self._looks.clear()
        for name, id in topics.items():
            old = self._topics.get(self.topics.get(name, b""))
            if old is not None and old.id != id:
                self._forget(old)
                self.gaps.append(Gap(old.id, old.anchor or old.floor, True, f"the topic {name} was made anew"))
            self.topics[name] = id
            if id not in self._topics:
                self._add(TopicState(id))
        self._doubt(True)

    def lost(self) -> None:
        """The stream is gone. A read that is under way goes on."""
        self._open = False

    def live(self, event: Delivery, room: bool) -> None:
        """Take an event from the stream; without ``room`` for it, it is left to the log."""
        row = self.straight(event) if room else -1
        if row >= 0:
            self.deliveries.append(Passed(event, row))
            return
        topic = self._topics.get(event.topic_id)
        if topic is None:
            self.reopen = self.stirred = True
            return
        id = event.id
        counter = int.from_bytes(id[-4:], "big")
        if self._previous is None or (counter != self._previous + 1 and self._received >= self._server_buffer):
            self._doubt(self._previous is not None)
        self._previous = counter
        self._received += 1
        held = Held(event, id < self._largest)
        self._largest = max(self._largest, id)
        if topic.behind:
            self._hold(topic, held)
        elif topic.only_live:
            self._put(topic, event)
        elif not topic.was_had(held):
            if room:
                self._put(topic, event)
            else:
                topic.behind = self.stirred = True

    def straight(self, event: Delivery) -> int:
        """Take an event as ``live`` does if nothing is to be done but to deliver it: returns its row then, else -1.

        This is the way of every event: later than all before it, of a topic that is live.
        """
        topic, id = self._topics.get(event.topic_id), event.id
        if topic is None or topic.behind or topic.only_live or id <= topic.largest or self._previous is None:
            return -1
        counter = int.from_bytes(id[-4:], "big")
        if counter != self._previous + 1 and self._received >= self._server_buffer:
            return -1
        self._previous = counter
        self._received += 1
        if id > self._largest:
            self._largest = id
        row = topic.row + 1
        topic.pass_straight(id, row, self._share)
        return row

    def idle(self, seconds: int) -> None:
        """Nothing arrived for so long. Tell it at two ages, such as 1 and 10 seconds.

        That does not mean that the server has nothing left: the line may have paused. So what was received counts on.
        """
        if self._received >= self._server_buffer:
            self._doubt(True)
        elif self._previous is None and seconds not in self._looks:
            self._doubt(False)
        self._looks.add(seconds)

    # to and from the log

    def next_read(self) -> Optional[Read]:
        """Return what to read next, if anything. Ask when there is room for what is read, and after every change."""
        behind = [topic for topic in self._topics.values() if topic.behind and topic.read is None]
        if not behind or not self._open:
            return None
        # First those without a beginning, of which nothing is delivered: until all have one nobody takes what is.
        topic = min([topic for topic in behind if not topic.begun] or behind, key=self._turn)
        self._reads += 1
        offset = max(topic.row, 0) if topic.search is None else topic.search.probe
        topic.read = Read(topic.id, offset, topic.search is not None, not topic.again, self._reads)
        topic.rows, topic.last_read = 0, self._reads
        if topic.search is None:
            if topic.spilled:
                self._drop_held(topic)
            topic.spilled = topic.dirty = False
            topic.held_before = set(topic.held)
        return topic.read

    def _turn(self, topic: TopicState) -> Tuple[int, bytes]:
        """Return what sorts topics by when they are read.

        After a doubt first the one whose event arrived first; then each in turn, so that one that is always behind
        keeps no other waiting.
        """
        first = next(iter(topic.held), AT_THE_END)
        return max(topic.last_read - self._read_before_doubt, 0), first

    def straight_row(self, read: Read, event: Delivery) -> int:
        """Take a row as ``row`` does if nothing is to be done but to deliver it: returns its number then, else -1.

        This is the way of every row: later than all that was delivered before it, and not held.
        """
        topic, id = self._topics.get(read.topic_id), event.id
        if topic is None or topic.read is not read or not topic.rows or event.topic_id != read.topic_id:
            return -1
        if id <= topic.largest or id <= topic.end or id in topic.held or topic.search is not None:
            return -1
        row = read.offset + topic.rows
        topic.rows += 1
        topic.pass_straight(id, row, self._share)
        return row

    def row(self, read: Read, event: Delivery) -> bool:
        """Take a row of a read; returns False if the read is of no use any more and has to be cancelled."""
        row = self.straight_row(read, event)
        if row >= 0:
            self.deliveries.append(Passed(event, row))
            return True
        topic = self._topics.get(read.topic_id)
        if topic is None or topic.read is not read:
            return False
        if event.topic_id != topic.id:
            self.reopen, self.stirred, topic.read = True, True, None
            return False
        if topic.search is not None:
            topic.rows = 1
            self._searched(topic, event.id)
            return False
        if topic.rows == 0 and topic.anchor is not None and event.id != topic.anchor:
            self._misfit(topic)
            return False
        topic.row, topic.anchor = read.offset + topic.rows, event.id
        topic.rows += 1
        held = topic.held.pop(event.id, None)
        if held is not None:
            if event.is_duplicate or event.origin:
                event = event._replace(committed=held.delivery.committed)  # which queries do not say
            else:
                event = held.delivery  # the same, and it says when it was stored
            self._held_bytes -= len(held.delivery.payload) + self._overhead
        if not topic.was_delivered(event.id):
            self._deliver(topic, event, event.id <= topic.end)
        return True

    def ended(self, read: Read, well: bool) -> None:
        """A read is over; not ``well``, if it failed, and then it is made again."""
        topic = self._topics.get(read.topic_id)
        if topic is None or topic.read is not read:
            return
        topic.read = None
        if not well or (not self._open and topic.search is None):
            return
        if topic.search is not None:
            self._searched(topic, None)
        elif topic.rows == 0 and topic.anchor is not None:
            self._misfit(topic)
        else:
            if not topic.begun:
                self._begin(topic)
            if topic.search is None and not (topic.dirty or topic.spilled):
                self._caught_up(topic)

    # inside

    def _doubt(self, likely: bool) -> None:
        """Look into the log; only what is likely is told of where that cannot be."""
        self._received, self.stirred, self._read_before_doubt = 0, True, self._reads
        for topic in self._topics.values():
            if topic.only_live:
                if likely:
                    self._may_miss(topic)
            else:
                topic.behind = topic.dirty = True

    def _hold(self, topic: TopicState, held: Held) -> None:
        size = len(held.delivery.payload) + self._overhead
        if self._held_bytes + size > self._most_held:
            topic.spilled = True
        elif held.delivery.id not in topic.held:
            topic.held[held.delivery.id] = held
            self._held_bytes += size

    def _add(self, topic: TopicState) -> TopicState:
        self._topics[topic.id] = topic
        self._share = self._memory // len(self._topics)
        return topic

    def _may_miss(self, topic: TopicState) -> None:
        """Nothing can be done about what may have passed unseen but to say so, if anything came before it."""
        if topic.anchor is not None:
            reason = "the stream may have left events out, and no query shows this topic"
            self.gaps.append(Gap(topic.id, topic.anchor, False, reason))

    def _drop_held(self, topic: TopicState) -> None:
        self._held_bytes -= sum(len(held.delivery.payload) + self._overhead for held in topic.held.values())
        topic.held.clear()

    def _forget(self, topic: TopicState) -> None:
        self._drop_held(topic)
        del self._topics[topic.id]

    def _put(self, topic: TopicState, event: Delivery) -> None:
        topic.row += 1
        topic.anchor = event.id if topic.anchor is None else max(topic.anchor, event.id)
        self._deliver(topic, event)

    def _deliver(self, topic: TopicState, event: Delivery, looked_back: bool = False) -> None:
        topic.remember(event.id, self._share)
        self.deliveries.append(Passed(event, topic.row, looked_back))

    def _begin(self, topic: TopicState) -> None:
        """The end of the log is known: begin there, or look back from it."""
        end = topic.floor = topic.largest = topic.anchor or BEFORE_ALL
        if topic.look_back is not None:
            topic.floor = topic.largest = min(topic.look_back(end), end) if end else end
        looks_back = topic.floor < end
        anchor, row = (None, -1) if looks_back else (topic.anchor, topic.row)
        self.begins.append(Begun(topic.id, topic.floor, anchor, row))
        if looks_back:
            topic.end = end
            topic.search = Search(topic.floor, topic.row)

    def _caught_up(self, topic: TopicState) -> None:
        held = [one for one in topic.held.values() if not topic.was_had(one)]
        if not topic.again and any(one.delivery.id in topic.held_before for one in held):
            # The log ended before an event that was there when it was read: the server cut it short, or hides that one.
            topic.again = True
            self.gaps.append(Gap(topic.id, topic.anchor or topic.floor, False, "the log does not have a live event"))
            return
        topic.again = topic.behind = False
        topic.end = BEFORE_ALL
        self._drop_held(topic)
        for one in held:
            self._put(topic, one.delivery)

    def _misfit(self, topic: TopicState) -> None:
        """The anchor is not where it was: rows are there that were hidden, or not there any more."""
        topic.read = None
        anchor = topic.anchor or BEFORE_ALL
        above = {id for id in (*topic.seen, *topic.done, anchor) if topic.floor < id <= anchor}
        expected = topic.row + 1 - len(above)
        topic.search = Search(topic.floor, expected, expected)

    def _searched(self, topic: TopicState, id: Optional[bytes]) -> None:
        topic.read, search = None, topic.search
        assert search is not None
        if not search.tell(id):
            return
        if search.expected is not None and search.last_row + 1 > search.expected:
            more = search.last_row + 1 - search.expected
            self.gaps.append(Gap(topic.id, topic.floor, False, f"the log has {more} more events than were delivered"))
        topic.search, topic.row, topic.anchor = None, search.last_row, search.last_id
