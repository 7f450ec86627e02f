"""The live stream of a subscription and the log, as one: the driver of the machine in ``protocol/catchup.py``.

The reader thread of the stream brings what arrives live. While a topic is behind, another thread, the healer, reads the
log; it also sees now and then whether the names of the topics still mean what they meant. Both put into the inbox. The
inbox is bounded by the reading of the log, which waits for room; what arrives live and finds none is left to the log.
"""

import functools
import logging
import threading
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Set

from ..exceptions import EnsignError, EnsignTimeoutError
from ..handover.clock import Clock, Deadline, Patience
from ..handover.inbox import Inbox
from ..handover.locking import holding
from ..handover.watchdog import Watchdog, Watched
from ..protocol.catchup import OVERHEAD, CatchUp
from ..protocol.catchup_values import AT_THE_END, BEFORE_ALL, LookBack, Read
from ..protocol.frames import Delivery
from ..protocol.position import Resume
from ..protocol.start import Start
from ..transport.liveness import Liveness
from .healer import Healer, Owner, Work
from .idleness import Idleness
from .log import Log
from .meanings import Answer, Meanings
from .outlet import Outlet
from .progress import Progress

logger = logging.getLogger("ensign_sync")

#: For so many seconds the stream waits for a program that does not keep up, before the rest is left to the log; and
#: again while so many events are taken meanwhile, as when the program has got at once what was held.
_A_LITTLE = 0.1
_A_LOT = 500

#: So many bytes that arrive before the topics have begun are kept; what comes beyond them is in the log.
_MOST_EARLY = 64 * 2**20

class Plan(NamedTuple):
    """How topics begin.

    Attributes:
        start: Where a topic begins, by its name and id.
        resume: Where topics go on that a subscription before this one had, by name.
        look_back: What adds to a topic with a recent start what this client published, by its id; None if nothing.
        origins: As whom this client publishes.
    """

    start: Callable[[str, bytes], Start]
    resume: Mapping[str, Resume]
    look_back: Callable[[bytes], Optional[LookBack]]
    origins: Callable[[], Set[str]]


#: Takes the name of a topic, the id after which events are missing, whether that is certain, and the reason.
GapDoor = Callable[[str, bytes, bool, str], None]


class Doors(NamedTuple):
    """What goes out besides events. Any thread calls them, and they must not wait for anything.

    Attributes:
        reopen: Open the stream anew.
        gap: Events were missed, or may have been.
    """

    reopen: Callable[[], None]
    gap: GapDoor


class Healing:
    """The catch-up of one subscription. Any thread may call any method.

    Attributes:
        gaps: How many were told of.
    """

    def __init__(
        self,
        inbox: Inbox,
        log: Log,
        plan: Plan,
        doors: Doors,
        progress: Progress,
        watchdog: Watchdog,
        liveness: Liveness,
        all_topics: bool,
        clock: Optional[Clock] = None,
    ) -> None:
        self.gaps = 0
        self._machine = CatchUp()
        self._inbox, self._log, self._plan, self._doors, self._progress = inbox, log, plan, doors, progress
        self._liveness, self._watchdog = liveness, watchdog
        self._clock = clock or Clock()
        self._now = self._clock.now
        # Guards the machine and putting into the inbox; nothing is waited for under it.
        self._lock = threading.Lock()
        self._begun = threading.Condition(self._lock)
        self._outlet = Outlet(inbox, progress, plan.origins)
        self._names = self._outlet.names
        self._patient: Set[bytes] = set()  # the topics that cannot be left to the log
        self._early: List[Delivery] = []  # what arrived before the topics begin
        self._early_bytes = 0
        self._open_topics: Optional[Mapping[str, bytes]] = None  # of the stream, while it is open
        self._running = self._closed = False
        owner = Owner(
            self._next_work,
            self._take,
            self._ended,
            self._gave_up,
            lambda id: self._names.get(id, ""),
            self._looks_back,
            self._may_wait,
            self._doubt_names,
        )
        self._healer = Healer(owner, inbox, log, liveness, watchdog, self._clock)
        self._meanings = Meanings(log, liveness.heartbeat, all_topics, self._clock)
        self._idle = Idleness(self._clock)
        self._watched: Optional[Watched] = None

    # the stream

    def begin(self, topics: Mapping[str, bytes], patience: Patience, ended: Callable[[], bool]) -> None:
        """Begin the topics of the stream; blocks until it is sure that what is published from now on is delivered.

        Raises:
            EnsignTimeoutError: It was not within the time.
        """
        spelled = {id: self._healer.spell(name, id, patience.remaining()) for name, id in topics.items()}
        starts = {name: self._plan.start(name, id) for name, id in topics.items()}
        self._outlet.leaves_duplicates_out = self._log.leaves_duplicates_out(patience.remaining())
        sought = [id for name, id in topics.items() if starts[name].floor and name not in self._plan.resume]
        hints = self._log.counts(sought, patience.remaining()) if sought else {}
        self._begin(topics, starts, spelled, hints)
        if not self._wait_begun(patience, ended):
            raise EnsignTimeoutError(f"the end of the log was not found within {patience.seconds:.3g} s")
        self._watch()

    @holding("_lock")
    def _begin(
        self,
        topics: Mapping[str, bytes],
        starts: Mapping[str, Start],
        spelled: Mapping[bytes, Optional[str]],
        hints: Mapping[bytes, int],
    ) -> None:
        machine = self._machine
        for name, id in topics.items():
            self._outlet.add(name, id, starts[name])
            resume = self._plan.resume.get(name)
            if resume is not None:
                self._resume(name, id, resume)
            else:
                look_back = self._plan.look_back(id) if starts[name].recent else None
                machine.start(name, id, starts[name].floor, hints.get(id, 0), look_back)
                floor = starts[name].floor
                self._progress.begin(name, Resume(id, BEFORE_ALL if floor == AT_THE_END else floor, (), None, -1))
            if spelled[id] is None:
                self._give_up(id, f"no query can name the topic {name}")
        self._running = True
        if self._open_topics is not None:
            self._open_machine(self._open_topics)
        for delivery in self._early:
            machine.live(delivery, self._inbox.has_room(len(delivery.payload)))
        self._forget_early()
        self._seen_to()

    def _resume(self, name: str, id: bytes, at: Resume) -> None:
        machine = self._machine
        self._outlet.add(name, id, Start(at.floor))
        self._names[at.topic_id] = name
        if at.topic_id != id:
            machine.start(name, at.topic_id, at.floor, 0)  # the stream has another one, which is told of
        elif at.anchor is not None:
            machine.resume(name, id, at.floor, at.acked, at.anchor, at.row)
        else:
            machine.start(name, id, at.floor, max(at.row, 0))
        self._progress.begin(name, at if at.topic_id == id else Resume(id, BEFORE_ALL, (), None, -1))

    @holding("_lock")
    def _wait_begun(self, patience: Patience, ended: Callable[[], bool]) -> bool:
        left = self._machine.without_beginning
        while not (self._machine.begun() or self._closed or ended()):
            before, left = left, self._machine.without_beginning
            if left < before:
                patience.progress()
            remaining = patience.remaining()
            if remaining <= 0.0:
                return False
            self._begun.wait(min(remaining, 1.0))  # the stream may end meanwhile, of which nobody tells us
        return True

    @holding("_lock")
    def _watch(self) -> None:
        if self._watched is None and not self._closed:
            self._watched = Watched(self._until_due, self._due)
            self._watchdog.add(self._watched)

    @holding("_lock")
    def opened(self, topics: Mapping[str, bytes]) -> None:
        """A stream is open with these topics."""
        self._open_topics = dict(topics)
        self._forget_early()
        if self._running:
            self._open_machine(topics)
            self._seen_to()
            self._healer.wake()

    def _open_machine(self, topics: Mapping[str, bytes]) -> None:
        """Tell the machine of a stream, whose topics may be others than those that were asked for. Needs the lock."""
        for name, id in topics.items():
            if id not in self._names:
                self._names[id] = name
                self._progress.begin(name, Resume(id, BEFORE_ALL, (), None, -1))
        self._meanings.gone.difference_update(topics)
        self._machine.opened(topics)
        self._idle.heard()

    def _forget_early(self) -> None:
        """Forget what came on a stream that is gone: the log has it, and it says nothing of another stream."""
        self._early.clear()
        self._early_bytes = 0

    @holding("_lock")
    def lost(self) -> None:
        """The stream is gone."""
        self._open_topics = None
        self._forget_early()
        self._machine.lost()

    def live(self, delivery: Delivery) -> None:
        """Take an event from the stream, on its reader thread."""
        size = len(delivery.payload)
        room = self._inbox.has_room(size) or self._wait_a_little(delivery.topic_id, size)
        with self._lock:
            self._idle.heard()
            if not self._running:
                if self._early_bytes < _MOST_EARLY:
                    self._early.append(delivery)
                    self._early_bytes += size + OVERHEAD
                return
            machine = self._machine
            if room and self._outlet.lets_straight and not delivery.is_duplicate:
                row = machine.straight(delivery)
                if row >= 0:
                    self._outlet.pass_straight(delivery, row, size)
                    return
            machine.live(delivery, room)
            if machine.deliveries:
                self._pass_on()
            if machine.stirred:
                self._see_to()
        self._healer.one_live()

    @holding("_lock")
    def again(self, item: Any) -> None:
        """Put an event into the inbox that was there before."""
        self._inbox.put(item, len(item[0].payload))

    def _wait_a_little(self, topic_id: bytes, size: int) -> bool:
        """Wait for a program that is only a little slower; what cannot be left to the log waits until there is room.

        Returns whether there is.
        """
        if topic_id in self._patient:
            return self._inbox.wait_for_room(size)
        if not self._machine.is_live(topic_id):
            return False
        inbox = self._inbox
        while True:
            before = inbox.taken
            if inbox.wait_for_room(size, low=True, deadline=Deadline(_A_LITTLE, self._clock)) or inbox.has_room(size):
                return not inbox.closed
            if inbox.taken - before < _A_LOT:
                return False

    @property
    def reads(self) -> int:
        """How often the log was asked."""
        return self._healer.reads

    def signs(self) -> Any:
        """Return something else whenever something of the log was received. Quick."""
        return self._healer.row_at

    @property
    def last_error(self) -> Optional[Exception]:
        """Why the last read broke off that did."""
        return self._healer.last_error

    @property
    def behind(self) -> List[str]:
        """The names of the topics that are not live."""
        return self._behind()

    @holding("_lock")
    def _behind(self) -> List[str]:
        return sorted(self._names[id] for id in self._machine.behind)

    def close(self) -> None:
        """End it; does not wait for the thread."""
        self._close()
        if self._watched is not None:
            self._watchdog.remove(self._watched)

    @holding("_lock")
    def _close(self) -> None:
        self._closed = True
        self._healer.close()
        self._begun.notify_all()

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the healer; returns its name if it did not stop."""
        return self._healer.join(deadline)

    # what the machine has said; all of it needs the lock

    def _pass_on(self) -> None:
        machine, outlet = self._machine, self._outlet
        if machine.begins:
            begins, machine.begins = machine.begins, []
            outlet.begin(begins)
        passed, machine.deliveries = machine.deliveries, []
        outlet.pass_on(passed)

    def _seen_to(self) -> None:
        self._pass_on()
        self._see_to()

    def _see_to(self) -> None:
        """See to what is not events: gaps, topics of another time, and reads."""
        machine = self._machine
        machine.stirred = False
        gaps, machine.gaps = machine.gaps, []
        for gap in gaps if not self._closed else ():
            self.gaps += 1
            self._doors.gap(self._names.get(gap.topic_id, ""), gap.after_id, gap.certain, gap.reason)
        if machine.reopen:
            machine.reopen = False
            self._doors.reopen()
        if machine.begun():
            self._begun.notify_all()
        if (machine.is_behind or self._meanings.due) and self._open_topics is not None:
            self._healer.start()

    def _give_up(self, id: bytes, reason: str) -> None:
        self._patient.add(id)
        self._machine.only_live(id, reason)
        logger.warning(
            "%s: what the server does not deliver live is missed, and told to on_gap as far as it can be known; events"
            " before the subscription cannot be had",
            reason,
        )

    # what the healer calls

    @holding("_lock")
    def _next_work(self) -> Optional[Work]:
        if not self._closed and self._open_topics is not None:
            if self._meanings.due:
                return self._compare_names
            if self._machine.is_behind and self._machine.begun() and not self._inbox.is_low:
                return self._healer.wait_for_room
            read = self._machine.next_read()
            if read is not None:
                return functools.partial(self._healer.read, read)
        self._healer.leave()
        return None

    def _take(self, read: Read, row: Delivery) -> bool:
        machine, outlet = self._machine, self._outlet
        with self._lock:
            if outlet.lets_straight and not row.is_duplicate:
                number = machine.straight_row(read, row)
                if number >= 0:
                    outlet.pass_straight(row, number, len(row.payload))
                    return True
            wanted = machine.row(read, row)
            if machine.deliveries:
                self._pass_on()
            if machine.stirred or not wanted:
                self._see_to()
        return wanted

    @holding("_lock")
    def _ended(self, read: Read, well: bool) -> None:
        self._machine.ended(read, well)
        self._seen_to()

    @holding("_lock")
    def _gave_up(self, id: bytes, reason: str) -> None:
        self._give_up(id, reason)
        self._seen_to()

    @holding("_lock")
    def _looks_back(self, id: bytes) -> bool:
        return self._outlet.is_recent(id)

    @holding("_lock")
    def _may_wait(self) -> bool:
        return self._machine.begun()

    @holding("_lock")
    def _doubt_names(self) -> None:
        self._meanings.due = True

    # the time

    def _until_due(self) -> Optional[float]:
        """Return how long until something is due, None if nothing is known to be."""
        if self._closed or self._open_topics is None:
            return None
        return min(self._meanings.until_due(), self._idle.until_due())

    @holding("_lock")
    def _due(self) -> None:
        """Say that the stream is idle, or that the names are to be compared, if so."""
        if self._closed:
            return
        seconds = self._idle.grown()
        if seconds is not None:
            self._machine.idle(seconds)
        self._meanings.look_at_the_time()
        self._seen_to()
        self._watched = Watched(self._until_due, self._due)
        self._watchdog.add(self._watched)

    def _compare_names(self) -> bool:
        """See whether the names of the topics mean what they meant; a server that does not answer is not there."""
        if not self._liveness.check(self._now() - self._liveness.impatience):
            return True  # the stream is opened anew
        try:
            answer = self._meanings.ask(dict(self._machine.topics))
        except EnsignError as error:
            if not self._closed:
                logger.info("the server does not answer, the subscription is opened anew: %s", error)
                self._doors.reopen()
            return True
        if answer is not None:
            self._compare(answer)
        return True

    @holding("_lock")
    def _compare(self, answer: Answer) -> None:
        machine = self._machine
        for name in answer.destroyed & set(machine.topics):
            machine.forget(name)
        if self._meanings.differ(answer, machine.topics):
            machine.reopen = machine.stirred = True
        self._seen_to()
