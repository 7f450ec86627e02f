"""What of the events of a catch-up goes into the inbox, under which name, and where the checkpoint has it."""

from typing import Callable, Dict, Iterable, Set

from ..handover.inbox import Inbox
from ..protocol.catchup_values import BEFORE_ALL, Begun, Passed
from ..protocol.frames import Delivery
from ..protocol.position import Resume
from ..protocol.start import Start
from ..times import instant_of
from .progress import Progress

_FROM_ROW_0 = Start(BEFORE_ALL)


class Outlet:
    """Needs the lock of its owner.

    Attributes:
        names: The names of the topics, by their ids.
        leaves_duplicates_out: The server delivers no duplicates live, so those of the log are not delivered either.
        lets_straight: An event that is no duplicate, and not looked back at, is sure to be one that is wanted.
    """

    def __init__(self, inbox: Inbox, progress: Progress, origins: Callable[[], Set[str]]) -> None:
        """Put into an inbox; ``origins`` says as whom this client publishes."""
        self.names: Dict[bytes, str] = {}
        self.leaves_duplicates_out = False
        self.lets_straight = True
        self._inbox, self._progress, self._origins = inbox, progress, origins
        self._starts: Dict[bytes, Start] = {}

    def add(self, name: str, id: bytes, start: Start) -> None:
        """There is another topic, which is wanted from there on."""
        self.names[id], self._starts[id] = name, start
        if start.moment is not None:
            self.lets_straight = False  # reading begins before it

    def is_recent(self, id: bytes) -> bool:
        """Tell whether a topic may be looked back at."""
        return self._starts.get(id, _FROM_ROW_0).recent

    def begin(self, begins: Iterable[Begun]) -> None:
        """Note where topics begin, before anything is delivered that comes after it."""
        for begun in begins:
            at = Resume(begun.topic_id, begun.floor, (), begun.anchor, begun.row)
            self._progress.begin(self.names[begun.topic_id], at)

    def pass_straight(self, delivery: Delivery, row: int, size: int) -> None:
        """Do as ``pass_on`` for one event that is sure to be wanted."""
        name, progress = self.names[delivery.topic_id], self._progress
        if progress.keeps:
            progress.delivered(name, delivery.id, row)
        self._inbox.put((delivery, name, 0), size)

    def pass_on(self, passed: Iterable[Passed]) -> None:
        """Put the events into the inbox that are wanted."""
        progress = self._progress
        for one in passed:
            delivery = one.delivery
            if self._is_unwanted(one):
                progress.passed_over(self.names[delivery.topic_id], delivery.id, one.row)
            else:
                self.pass_straight(delivery, one.row, len(delivery.payload))

    def _is_unwanted(self, passed: Passed) -> bool:
        """Tell whether an event is a duplicate that is not delivered, or lies before the start after all."""
        delivery = passed.delivery
        if delivery.is_duplicate and self.leaves_duplicates_out:
            return True
        if passed.looked_back:
            return delivery.origin not in self._origins()
        start = self._starts.get(delivery.topic_id)
        if start is None or start.moment is None:
            return False
        committed = instant_of(delivery.committed)
        return start.leaves_out(delivery.id, committed.ns if committed is not None else None)
