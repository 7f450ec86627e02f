"""The live stream of a subscription and the log, as one: the driver of the machine in ``protocol/catchup.py``.

The reader thread of the stream brings what arrives live. While a topic is behind, another thread, the healer, reads the
log; it also sees now and then whether the names of the topics still mean what they meant, and ends when there is
nothing to do. Both put into the inbox. The inbox is bounded by the reading of the log, which waits for room; what
arrives live and finds none is left to the log.
"""

import contextlib
import functools
import logging
import threading
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set

from ..exceptions import EnsignError, EnsignTimeoutError
from ..handover.clock import Clock, Deadline, Patience
from ..handover.inbox import Inbox
from ..handover.locking import Signal, holding
from ..handover.spawn import gather, spawn_kept
from ..handover.watchdog import Watchdog, Watched
from ..protocol import retry
from ..protocol.catchup import OVERHEAD, CatchUp
from ..protocol.catchup_values import AT_THE_END, BEFORE_ALL, LookBack, Read
from ..protocol.frames import Delivery
from ..protocol.position import Resume
from ..protocol.start import Start
from ..settings import Reconnect
from ..transport.liveness import Liveness
from ..transport.unary import Rows
from .idleness import Idleness
from .log import NEVER, Log
from .meanings import Answer, Meanings
from .outlet import Outlet
from .progress import Progress
from .turns import Turns

logger = logging.getLogger("ensign_sync")

#: For so many seconds the stream waits for a program that does not keep up, before the rest is left to the log; and
#: again while so many events are taken meanwhile, as when the program has got at once what was held.
_A_LITTLE = 0.1
_A_LOT = 500

#: So many bytes that arrive before the topics have begun are kept; what comes beyond them is in the log.
_MOST_EARLY = 64 * 2**20

#: How long a read of the log may give no row, and how long other questions to the server may take, in seconds.
PATIENCE = 30.0

#: The pauses between reads that fail.
_PAUSES = Reconnect(initial=0.05, maximum=5.0)

#: A query that the server calls invalid is asked so often again, since the topic may be about to come or to go.
_MOST_REFUSALS = 3

#: After so many failures of reads in a row somebody should know.
_WORTH_A_WARNING = 5


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
        counts: gaps, reads.
        last_error: Why the last read broke off that did.
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
        self.counts: Dict[str, int] = {"gaps": 0, "reads": 0}
        self._machine = CatchUp()
        self._inbox, self._log, self._plan, self._doors, self._progress = inbox, log, plan, doors, progress
        self._watchdog = watchdog
        self._clock = clock or Clock()
        self._now = self._clock.now
        # Guards the machine and putting into the inbox; nothing is waited for under it.
        self._lock = threading.Lock()
        self._begun = threading.Condition(self._lock)
        self._outlet = Outlet(inbox, progress, plan.origins)
        self._names = self._outlet.names
        self._spelled: Dict[bytes, Optional[str]] = {}  # how queries name the topics, None if they cannot
        self._patient: Set[bytes] = set()  # the topics that cannot be left to the log
        self._early: List[Delivery] = []  # what arrived before the topics begin
        self._early_bytes = 0
        self._open_topics: Optional[Mapping[str, bytes]] = None  # of the stream, while it is open
        self._running = self._closed = False
        self._thread: Optional[threading.Thread] = None
        self._leaving: Optional[threading.Thread] = None  # the last one, which may not have ended yet
        self._wake = Signal()
        self._cancel: Callable[[], None] = _nothing
        self._failures = 0  # of reads, in a row
        self._turns = Turns()
        self._row_at: Optional[float] = None  # when the last row came; None while none is waited for
        self._refused: Dict[bytes, int] = {}
        self.last_error: Optional[Exception] = None
        self._liveness = liveness
        self._meanings = Meanings(log, liveness.heartbeat, liveness.patience, all_topics, self._clock)
        self._idle = Idleness(self._clock)
        self._watched: Optional[Watched] = None
        self._told_full = False

    # the stream

    def begin(self, topics: Mapping[str, bytes], patience: Patience, ended: Callable[[], bool]) -> None:
        """Begin the topics of the stream; blocks until it is sure that what is published from now on is delivered.

        Raises:
            EnsignTimeoutError: It was not within the time.
        """
        spelled = {id: self._spell(name, id, patience) for name, id in topics.items()}
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
            self._spelled[id] = spelled[id]
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
        while not (self._machine.begun() or self._closed or ended()):
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
            self._wake.set()

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
        if self._row_at is not None:
            self._turns.one_live()

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
    def behind(self) -> List[str]:
        """The names of the topics that are not live."""
        return self._behind()

    @holding("_lock")
    def _behind(self) -> List[str]:
        return sorted(self._names[id] for id in self._machine.behind)

    def close(self) -> None:
        """End it; does not wait for the thread."""
        self._close()
        self._wake.set()
        if self._watched is not None:
            self._watchdog.remove(self._watched)

    @holding("_lock")
    def _close(self) -> None:
        self._closed = True
        self._cancel()
        self._begun.notify_all()

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the healer; returns its name if it did not stop."""
        return gather([thread for thread in (self._thread, self._leaving) if thread is not None], deadline)

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
            self.counts["gaps"] += 1
            self._doors.gap(self._names.get(gap.topic_id, ""), gap.after_id, gap.certain, gap.reason)
        if machine.reopen:
            machine.reopen = False
            self._doors.reopen()
        if machine.begun():
            self._begun.notify_all()
        if machine.is_behind or self._meanings.due:
            self._start_healer()

    def _start_healer(self) -> None:
        if self._thread is None and not self._closed and self._open_topics is not None:
            try:
                spawn_kept(self, "healer", self._run)
            except RuntimeError:  # the program is about to end, and takes no more threads
                self._thread = None

    def _give_up(self, id: bytes, reason: str) -> None:
        self._patient.add(id)
        self._machine.only_live(id, reason)
        logger.warning(
            "%s: what the server does not deliver live is missed, and told to on_gap as far as it can be known; events"
            " before the subscription cannot be had",
            reason,
        )

    # the healer

    def _run(self) -> None:
        while True:
            work = self._next_work()
            if work is None:
                return
            if not self._went_well(work):
                self._wake.wait(retry.interval(self._failures, _PAUSES))
                self._failures += 1
            self._wake.clear()

    def _went_well(self, work: Callable[[], bool]) -> bool:
        try:
            return work()
        except Exception as error:  # a defect of ours, or no thread to be had: the next round may do better
            logger.exception("the log could not be read, which is tried again")
            self.last_error = error
        return False

    @holding("_lock")
    def _next_work(self) -> Optional[Callable[[], bool]]:
        """Return what to do, None if nothing is and the thread ends; what to do returns whether it went well."""
        if not self._closed and self._open_topics is not None:
            if self._meanings.due:
                return self._compare_names
            if self._machine.is_behind and not self._inbox.is_low:
                self._tell_full()
                return self._wait_for_room
            read = self._machine.next_read()
            if read is not None:
                return functools.partial(self._read, read)
        self._leaving, self._thread = self._thread, None
        return None

    def _tell_full(self) -> None:
        if not self._told_full and len(self._inbox) > 1:
            self._told_full = True
            logger.info(
                "the buffer of a subscription is full (%d events): the program is slower than its publishers, and what"
                " does not fit is read from the log when it has gone on",
                len(self._inbox),
            )

    def _wait_for_room(self) -> bool:
        self._inbox.wait_for_room(0, low=True)
        return True

    def _read(self, read: Read) -> bool:
        """Read from the log what the machine wants; returns whether that went well."""
        self.counts["reads"] += 1
        try:
            return self._read_it(read)
        except BaseException:
            self._ended(read, False)
            raise

    def _read_it(self, read: Read) -> bool:
        name = self._names.get(read.topic_id, "")
        spelled = self._spelled.get(read.topic_id)
        if spelled is None and read.topic_id not in self._spelled:
            spelled = self._spelled[read.topic_id] = self._spell(name, read.topic_id, Patience(PATIENCE, PATIENCE))
        if spelled is None:
            self._gave_up(read.topic_id, f"no query can name the topic {name}")
            return True
        now = self._now
        try:
            rows = self._log.rows(spelled, read.offset, read.alone, read.duplicates, None, self._looks_back(read))
        except EnsignError as error:
            return self._failed(read, name, error)
        well = wanted = True
        try:
            with self._watching(rows):
                inbox, machine, turns, outlet = self._inbox, self._machine, self._turns, self._outlet
                for row in rows:
                    size = len(row.payload)
                    if not inbox.has_room(size):
                        self._row_at = None
                        self._tell_full()
                        inbox.wait_for_room(size, low=True)
                    self._row_at = now()
                    turns.one_row()
                    if self._failures:
                        self._got_on(read)
                    with self._lock:
                        if outlet.lets_straight and not row.is_duplicate:
                            number = machine.straight_row(read, row)
                            if number >= 0:
                                outlet.pass_straight(row, number, size)
                                continue
                        wanted = self._row(read, row)
                    if not wanted:
                        break
        except EnsignError as error:
            well = self._failed(read, name, error)
        if well:
            self._got_on(read)
            if wanted:
                self._ended(read, not self._closed)
        return well

    @contextlib.contextmanager
    def _watching(self, rows: Rows) -> Iterator[None]:
        """Have a read ended, and the connection checked, when a row does not come; and at the end in any case."""
        self._row_at = self._now()
        watched = Watched(self._until_row_is_late, rows.expire)
        self._watchdog.add(watched)
        self._cancel = rows.cancel
        try:
            if self._closed:
                rows.cancel()
            with self._liveness.waiting_since(lambda: self._row_at):
                yield
        finally:
            self._watchdog.remove(watched)
            self._row_at, self._cancel = None, _nothing
            rows.cancel()

    @holding("_lock")
    def _looks_back(self, read: Read) -> bool:
        return self._outlet.is_recent(read.topic_id)

    def _until_row_is_late(self) -> Optional[float]:
        """Return how long the server still may take until the next row; None while that waits for us."""
        at = self._row_at
        return None if at is None else max(0.0, at + PATIENCE - self._now())

    def _row(self, read: Read, row: Delivery) -> bool:
        """Take a row that is not as all others. Needs the lock."""
        machine = self._machine
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

    def _failed(self, read: Read, name: str, error: EnsignError) -> bool:
        """See to a read that broke off; returns whether there is something else to do at once."""
        if error.code in NEVER:
            self._gave_up(read.topic_id, f"the log of the topic {name} cannot be read: {error}")
            return True
        self._ended(read, False)
        self.last_error = error
        if not self._closed:
            log = logger.warning if self._failures == _WORTH_A_WARNING else logger.info
            log("a read of the log of %s broke off, and is made again (try %d): %s", name, self._failures + 1, error)
        if error.code == "INVALID_ARGUMENT":
            self._meanings.due = True  # it may be gone
            self._refused[read.topic_id] = self._refused.get(read.topic_id, 0) + 1
            if self._refused[read.topic_id] > _MOST_REFUSALS:
                self._gave_up(read.topic_id, f"the server does not take queries of the topic {name}: {error}")
        return False

    def _got_on(self, read: Read) -> None:
        """A read has given what it was to give, or some of it."""
        self._failures = 0
        self._refused.pop(read.topic_id, None)

    @holding("_lock")
    def _gave_up(self, id: bytes, reason: str) -> None:
        self._give_up(id, reason)
        self._seen_to()

    def _spell(self, name: str, id: bytes, patience: Patience) -> Optional[str]:
        return self._log.way(name, id, patience.remaining())

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
        asked_at = self._now()
        try:
            answer = self._meanings.ask(dict(self._machine.topics))
        except EnsignTimeoutError as error:
            if not self._closed:
                self._liveness.dead(asked_at, str(error))
            return True
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


def _nothing() -> None:
    """Cancel nothing: no read is under way."""
