"""What a publish stream has to ask the server before it goes on: topics that it does not know, and what is stored.

That takes a while, and the reader must go on reading the acks that are due, so it is done on threads of its own.
"""

import logging
import threading
from typing import Any, Callable, FrozenSet, List, Mapping, Set

from ..exceptions import EnsignError, UnknownTopicError
from ..handover.clock import Clock, Deadline
from ..handover.locking import holding
from ..handover.spawn import spawn
from ..protocol.machine import State
from ..protocol.publish_stream import InDoubt, PublishProtocol
from ..times import Kept
from .doubt import Doubts, Question
from .driver import StreamDriver

logger = logging.getLogger("ensign_sync")

#: How long a connection that does not know a new topic is kept for the answers that it owes.
DRAIN_SECONDS = 5.0

#: How long it takes until what failed by a defect is tried again.
_DEFECT_SECONDS = 1.0

#: How long asking for a topic may take.
_PATIENCE = 30.0


class Resolver:
    """Asks, and tells the machine. Any thread may call any method.

    Attributes:
        threads: Those that may not have ended yet.
    """

    def __init__(
        self,
        driver: StreamDriver,
        machine: PublishProtocol,
        topic_exists: Callable[[str, float], bool],
        doubts: Doubts,
        clock: Clock,
    ) -> None:
        self.threads: List[threading.Thread] = []
        self._driver, self._machine, self._clock = driver, machine, clock
        self._topic_exists, self._doubts = topic_exists, doubts
        self._lock = threading.Lock()

    def start(self, ask: Callable[..., None], *args: Any) -> None:
        """Call one of the methods below on a thread."""
        try:
            self._remember(spawn("asking", ask, *args))
        except RuntimeError:  # the program is about to end, and takes no more threads
            ask(*args)

    @holding("_lock")
    def _remember(self, thread: threading.Thread) -> None:
        self.threads = [*(one for one in self.threads if one.is_alive()), thread]

    def ask_for_stored(self, asked: InDoubt) -> None:
        """Have the log searched for what an earlier connection may have stored."""
        machine = self._machine

        def is_over() -> bool:
            return not machine.is_asking(asked.connection)

        def wait(seconds: float) -> None:
            self._driver.wait(is_over, Deadline(seconds, self._clock).remaining)

        def tell(error: EnsignError) -> None:
            self._driver.last_error = error

        def found(ids: Mapping[bytes, Kept]) -> None:
            self._driver.change(PublishProtocol.found_stored, ids)

        question = Question(
            asked.doubts, dict(machine.topics), lambda: not is_over(), wait, tell, found, self._driver.progress
        )
        ids = None
        try:
            ids = self._doubts.stored(question)
        except Exception:  # a defect of ours: the next connection may do better
            logger.exception("the log could not be searched for events in doubt, which is tried again")
            wait(_DEFECT_SECONDS)
        if ids is not None:
            self._driver.change(_note_stored, ids, asked.connection)
        elif not is_over():
            self._driver.reconnect()

    def ask_for_topics(self, names: FrozenSet[str]) -> None:
        """Ask for topics that the connection does not know."""
        exists: Set[str] = set()
        gone: Set[str] = set()
        for name in names:
            try:
                (exists if self._topic_exists(name, _PATIENCE) else gone).add(name)
            except EnsignError as error:
                # Unknown either way: reopening asks again, and whoever waits has a deadline of their own.
                logger.warning("could not ask for topic %s: %s", name, error)
                exists.add(name)
        for name in gone:
            self._driver.change(_refuse, name)
        for name in exists:
            self.reopen(name)

    def reopen(self, topic: str, patience: float = DRAIN_SECONDS) -> None:
        """Make a new connection, which knows the topics of now, after the answers that the present one owes."""
        machine = self._machine
        checked = Deadline(patience, self._clock)  # or each new topic would have the log searched anew
        self._driver.wait(lambda: machine.state is not State.CHECKING, checked.remaining)
        self._driver.change(_drain, topic)  # when nothing is owed any more, Drained reconnects
        deadline = Deadline(patience, self._clock)
        if not self._driver.wait(lambda: machine.state is not State.DRAINING, deadline.remaining):
            self._driver.reconnect()


def _refuse(machine: PublishProtocol, name: str) -> None:
    if not machine.over and machine.state is not State.CLOSING:
        machine.refuse([name], UnknownTopicError(name))


def _note_stored(machine: PublishProtocol, ids: Mapping[bytes, Kept], connection: int) -> None:
    if machine.is_asking(connection):
        machine.stored(ids)


def _drain(machine: PublishProtocol, topic: str) -> None:
    if machine.state in (State.OPEN, State.CHECKING) and not machine.knows(topic):
        machine.drain()
