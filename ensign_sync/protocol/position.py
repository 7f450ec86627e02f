"""What a subscription has to remember to go on in another process: of each topic, what was acknowledged.

The last acknowledgement alone would not do: events before it may be pending, and events after it acknowledged. So of
each topic are kept the smallest event that is delivered and not acknowledged, with its row in the log, from which the
reading goes on, and what was acknowledged above it. What is kept may be too little by some acknowledgements, and then
those events come again; it is never too much.
"""

import heapq
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, NamedTuple, Optional, Set, Tuple

from ..exceptions import CheckpointError
from ..ids import RLID, ULID

#: So many acknowledgements above the first pending event are kept.
MOST_ACKED = 1000

FORMAT = 1


class Resume(NamedTuple):
    """Where a topic goes on.

    Attributes:
        topic_id: The topic had this id.
        floor: Everything up to here is done, empty if nothing is.
        acked: And these events.
        anchor: The event in the row of the log, None if no row is known: then it is to be searched for, or if there is
            no floor either, the topic begins with its first row.
        row: See there.
    """

    topic_id: bytes
    floor: bytes
    acked: Tuple[bytes, ...]
    anchor: Optional[bytes]
    row: int


class _Topic:
    """What of a topic is pending, and what is done."""

    def __init__(self, begin: Resume) -> None:
        self.begin = begin
        self.pending: Dict[bytes, int] = {}  # id to row, of what was delivered and is not acknowledged
        self.smallest: List[bytes] = []  # a heap of the pending, and of some that are not any more
        self.acked: Set[bytes] = set(begin.acked)
        self.last: Optional[Tuple[bytes, int]] = None  # the largest that was delivered, and its row
        self.done: Deque[bytes] = deque(maxlen=MOST_ACKED)  # the last that were done with nothing pending below
        self.most_done = b""  # the largest of them

    def first_pending(self) -> Optional[bytes]:
        smallest = self.smallest
        if len(smallest) > 2 * len(self.pending) + MOST_ACKED:
            smallest[:] = sorted(self.pending)
        while smallest and smallest[0] not in self.pending:
            heapq.heappop(smallest)
        return smallest[0] if smallest else None

    def late(self, id: bytes, row: int) -> int:
        """Note an event that was stored below what was delivered; returns its row.

        After a step of the server's clock that is so. What is above it is one row further on than it was, and while the
        topic is live it is told with the row of the largest.
        """
        assert self.last is not None
        largest, last_row = self.last
        self.last = (largest, last_row + 1)
        for pending, at in self.pending.items():
            if pending > id:
                self.pending[pending] = at + 1
        if row <= last_row:
            return row
        return last_row + 1 - sum(other > id for other in {largest, *self.pending, *self.acked, *self.done})

    def done_with(self, id: bytes) -> None:
        """Note an acknowledged event with nothing pending below it: something smaller may come yet."""
        self.done.append(id)
        self.most_done = max(self.most_done, id)

    def forget_up_to(self, id: bytes) -> None:
        """Forget the acknowledgements that are no news there; those above may be of a program before this one."""
        for acked in [acked for acked in self.acked if acked <= id]:
            self.acked.discard(acked)
            self.done_with(acked)

    def position(self) -> Resume:
        if self.last is None:
            return self.begin
        first = self.first_pending()
        if first is None:
            floor, (anchor, row) = self.last[0], self.last
        else:
            anchor, row = first, self.pending[first]
            floor = (int.from_bytes(first, "big") - 1).to_bytes(len(first), "big")
        self.forget_up_to(anchor)
        acked = self.acked
        if self.most_done > anchor:
            acked = {*acked, *(id for id in self.done if id > anchor)}
        return Resume(self.begin.topic_id, floor, tuple(sorted(acked)[:MOST_ACKED]), anchor, row)


class Positions:
    """The positions of the topics of a subscription, by name. Not thread-safe."""

    def __init__(self) -> None:
        self._topics: Dict[str, _Topic] = {}
        self._kept: Dict[str, Resume] = {}

    def keep(self, kept: Mapping[str, Resume]) -> None:
        """What was saved before is saved again, until the topics begin."""
        self._kept.update(kept)

    def begin(self, name: str, at: Resume) -> None:
        """A topic begins, or begins anew."""
        self._topics[name] = _Topic(at)

    def delivered(self, name: str, id: bytes, row: int) -> None:
        """An event goes to the application, which is so to say the row of the log."""
        topic = self._topics[name]
        if topic.last is None or id > topic.last[0]:
            topic.last = (id, row)
        else:
            row = topic.late(id, row)
        topic.pending[id] = row
        heapq.heappush(topic.smallest, id)

    def passed_over(self, name: str, id: bytes, row: int) -> None:
        """An event does not concern the application."""
        topic = self._topics[name]
        if topic.last is None or id > topic.last[0]:
            topic.last = (id, row)
        else:
            topic.late(id, row)

    def acknowledged(self, name: str, id: bytes) -> bool:
        """The application is done with an event; returns whether there is something new to save."""
        topic = self._topics.get(name)
        if topic is None:
            return False
        first = topic.first_pending()
        if first is None or topic.pending.pop(id, None) is None:
            return False
        if id == first:
            topic.done_with(id)
            return True  # the next one is the first now
        if len(topic.acked) >= MOST_ACKED:
            topic.forget_up_to(first)
        if len(topic.acked) >= MOST_ACKED:
            return False
        topic.acked.add(id)
        return True

    def save(self) -> Dict[str, Any]:
        """Return everything as a mapping of plain values, which JSON can hold."""
        return {
            "format": FORMAT,
            "topics": {
                **{name: _plain(at) for name, at in self._kept.items()},
                **{name: _plain(topic.position()) for name, topic in self._topics.items()},
            },
        }


def _plain(at: Resume) -> Dict[str, Any]:
    return {
        "topic_id": str(ULID(at.topic_id)),
        "floor": _text(at.floor),
        "anchor": _text(at.anchor),
        "row": at.row,
        "acked": [_text(id) for id in at.acked],
    }


def _text(id: Optional[bytes]) -> Optional[str]:
    return str(RLID(id)) if id else None


def load(saved: Mapping[str, Any]) -> Dict[str, Resume]:
    """Read what ``save`` returned.

    Raises:
        CheckpointError: It is not that.
    """
    if not saved:
        return {}
    try:
        if saved["format"] != FORMAT:
            raise CheckpointError(
                f"the checkpoint has format {saved['format']!r} and this version reads {FORMAT}: use the version of"
                " ensign-sync that saved it, or another checkpoint"
            )
        return {str(name): _resume(topic) for name, topic in saved["topics"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint does not hold what a subscription saved: {error!r}; to begin anew, give it another one"
        ) from error


def _resume(topic: Mapping[str, Any]) -> Resume:
    floor, anchor, row = topic["floor"], topic["anchor"], topic["row"]
    if type(row) is not int or row < -1:
        raise ValueError(f"row is {row!r}")
    return Resume(
        ULID(topic["topic_id"]).bytes,
        RLID(floor).bytes if floor is not None else b"",
        tuple(RLID(id).bytes for id in topic["acked"]),
        RLID(anchor).bytes if anchor is not None else None,
        row,
    )
