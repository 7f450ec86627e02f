"""The thread that reads the log of a subscription, and what may go wrong with a read.

It is started when there is something to read, and ends when there is nothing.
"""

import contextlib
import logging
import threading
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

from ..exceptions import EnsignError
from ..handover.clock import Clock, Deadline
from ..handover.inbox import Inbox
from ..handover.locking import Signal
from ..handover.spawn import gather, spawn_kept
from ..handover.watchdog import Watchdog, Watched
from ..protocol import retry
from ..protocol.catchup_values import Read
from ..protocol.frames import Delivery
from ..settings import Reconnect
from ..transport.liveness import Liveness
from ..transport.unary import Rows
from .log import NEVER, Log
from .turns import Turns

logger = logging.getLogger("ensign_sync")

#: How long a read of the log may give no row, and how long other questions to the server may take, in seconds.
PATIENCE = 30.0

#: The pauses between reads that fail.
_PAUSES = Reconnect(initial=0.05, maximum=5.0)

#: A query that the server calls invalid is asked so often again, since the topic may be about to come or to go.
_MOST_REFUSALS = 3

#: After so many failures of reads in a row somebody should know.
_WORTH_A_WARNING = 5

#: What the thread is to do; returns whether it went well, and then the next follows at once.
Work = Callable[[], bool]


class Owner(NamedTuple):
    """Whom the thread works for. These take the lock of the owner.

    Attributes:
        next_work: What to do next; None if nothing is, and then ``Healer.leave`` was called.
        take: Takes a row; returns False if the read is of no use any more.
        ended: A read is over, well or not.
        give_up: The log of a topic cannot be read, for this reason.
        name: The name of a topic.
        looks_back: Whether who published the rows of a topic is of interest.
        may_wait: Whether somebody takes what is in the inbox; before all topics have a beginning nobody does, and
            nothing is put in.
        names_may_have_changed: To be found out next.
    """

    next_work: Callable[[], Optional[Work]]
    take: Callable[[Read, Delivery], bool]
    ended: Callable[[Read, bool], None]
    give_up: Callable[[bytes, str], None]
    name: Callable[[bytes], str]
    looks_back: Callable[[bytes], bool]
    may_wait: Callable[[], bool]
    names_may_have_changed: Callable[[], None]


class Healer:
    """Any thread may call any method, but for those that are the thread's work.

    Attributes:
        reads: How many reads were begun.
        last_error: Why the last read broke off that did.
        spelled: How queries name the topics, None for those that they cannot.
        row_at: When the last row came; None while none is waited for.
    """

    def __init__(
        self, owner: Owner, inbox: Inbox, log: Log, liveness: Liveness, watchdog: Watchdog, clock: Clock
    ) -> None:
        self.reads = 0
        self.last_error: Optional[Exception] = None
        self.spelled: Dict[bytes, Optional[str]] = {}
        self.row_at: Optional[float] = None
        self._owner, self._inbox, self._log = owner, inbox, log
        self._liveness, self._watchdog, self._now = liveness, watchdog, clock.now
        self._thread: Optional[threading.Thread] = None
        self._leaving: Optional[threading.Thread] = None  # the last one, which may not have ended yet
        self._wake = Signal()
        self._closed = False
        self._cancel: Callable[[], None] = _nothing
        self._failures = 0  # of reads, in a row
        self._refused: Dict[bytes, int] = {}
        self._turns = Turns()
        self._told_full = False

    def start(self) -> None:
        """Start the thread if there is none. Needs the lock of the owner."""
        if self._thread is None and not self._closed:
            try:
                spawn_kept(self, "healer", self._run)
            except RuntimeError:  # the program is about to end, and takes no more threads
                self._thread = None

    def leave(self) -> None:
        """Note that the thread ends, for want of work. Needs the lock of the owner."""
        self._leaving, self._thread = self._thread, None

    def wake(self) -> None:
        """Have it look for work before a pause is over."""
        self._wake.set()

    def close(self) -> None:
        """End what is under way; does not wait for the thread."""
        self._closed = True
        self._cancel()
        self._wake.set()

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the thread; returns its name if it did not stop."""
        return gather([thread for thread in (self._thread, self._leaving) if thread is not None], deadline)

    def one_live(self) -> None:
        """Note an event of the stream, on its reader thread; that pauses now and then while the log is read."""
        if self.row_at is not None:
            self._turns.one_live()

    def spell(self, name: str, id: bytes, seconds: float) -> Optional[str]:
        """Find out how queries name a topic; blocks for at most so many seconds."""
        if id not in self.spelled:
            self.spelled[id] = self._log.way(name, id, seconds)
        return self.spelled[id]

    # the thread

    def _run(self) -> None:
        while True:
            work = self._owner.next_work()
            if work is None:
                return
            if not self._went_well(work):
                self._wake.wait(retry.interval(self._failures, _PAUSES))
                self._failures += 1
            self._wake.clear()

    def _went_well(self, work: Work) -> bool:
        try:
            return work()
        except Exception as error:  # a defect of ours, or no thread to be had: the next round may do better
            logger.exception("the log could not be read, which is tried again")
            self.last_error = error
        return False

    # its work

    def wait_for_room(self) -> bool:
        """Wait until the program has taken about all that it was given."""
        self._tell_full()
        self._inbox.wait_for_room(0, low=True)
        return True

    def read(self, read: Read) -> bool:
        """Read from the log; returns whether that went well."""
        self.reads += 1
        try:
            return self._read(read)
        except BaseException:
            self._owner.ended(read, False)
            raise

    def _read(self, read: Read) -> bool:
        owner, topic = self._owner, read.topic_id
        name = owner.name(topic)
        spelled = self.spell(name, topic, PATIENCE)
        if spelled is None:
            owner.give_up(topic, f"no query can name the topic {name}")
            return True
        wanted = True
        try:
            rows = self._log.rows(spelled, read.offset, read.alone, read.duplicates, None, owner.looks_back(topic))
            with self._watching(rows):
                inbox, turns, take, now = self._inbox, self._turns, owner.take, self._now
                for row in rows:
                    size = len(row.payload)
                    if not inbox.has_room(size) and owner.may_wait():
                        self.row_at = None
                        self._tell_full()
                        inbox.wait_for_room(size, low=True)
                    self.row_at = now()
                    turns.one_row()
                    if self._failures:
                        self._got_on(topic)
                    wanted = take(read, row)
                    if not wanted:
                        break
        except EnsignError as error:
            return self._failed(read, name, error)
        self._got_on(topic)
        if wanted:
            owner.ended(read, not self._closed)
        return True

    @contextlib.contextmanager
    def _watching(self, rows: Rows) -> Iterator[None]:
        """Have a read ended, and the connection checked, when a row does not come; and at the end in any case."""
        self.row_at = self._now()
        watched = Watched(self._until_row_is_late, rows.expire)
        self._watchdog.add(watched)
        self._cancel = rows.cancel
        try:
            if self._closed:
                rows.cancel()
            with self._liveness.waiting_since(lambda: self.row_at):
                yield
        finally:
            self._watchdog.remove(watched)
            self.row_at, self._cancel = None, _nothing
            rows.cancel()

    def _until_row_is_late(self) -> Optional[float]:
        """Return how long the server still may take until the next row; None while that waits for us."""
        at = self.row_at
        return None if at is None else max(0.0, at + PATIENCE - self._now())

    def _failed(self, read: Read, name: str, error: EnsignError) -> bool:
        """See to a read that broke off; returns whether there is something else to do at once."""
        owner, topic = self._owner, read.topic_id
        if error.code in NEVER:
            owner.give_up(topic, f"the log of the topic {name} cannot be read: {error}")
            return True
        owner.ended(read, False)
        self.last_error = error
        if not self._closed:
            log = logger.warning if self._failures == _WORTH_A_WARNING else logger.info
            log("a read of the log of %s broke off, and is made again (try %d): %s", name, self._failures + 1, error)
        if error.code == "INVALID_ARGUMENT":
            owner.names_may_have_changed()  # it may be gone
            self._refused[topic] = self._refused.get(topic, 0) + 1
            if self._refused[topic] > _MOST_REFUSALS:
                owner.give_up(topic, f"the server does not take queries of the topic {name}: {error}")
        return False

    def _got_on(self, topic: bytes) -> None:
        """A read has given what it was to give, or some of it."""
        self._failures = 0
        self._refused.pop(topic, None)

    def _tell_full(self) -> None:
        if not self._told_full and len(self._inbox) > 1:
            self._told_full = True
            logger.info(
                "the buffer of a subscription is full (%d events): the program is slower than its publishers, and what"
                " does not fit is read from the log when it has gone on",
                len(self._inbox),
            )


def _nothing() -> None:
    """Cancel nothing: no read is under way."""
