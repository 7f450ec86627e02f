"""Looking after a stream: silence that should not be is looked into."""

import logging
import threading
from typing import Callable, NamedTuple, Optional

from ..exceptions import EnsignError, EnsignTimeoutError
from ..handover.clock import Clock
from ..handover.spawn import spawn
from ..handover.watchdog import Watchdog, Watched
from ..transport.liveness import Liveness

logger = logging.getLogger("ensign_sync")

#: A stream is looked at so often in the time of silence that is believed.
_LOOKS = 4

#: Silence of so many seconds is believed at least, however short the heartbeat.
_SHORTEST = 0.1

#: A stream that should be heard and is silent for so many times of that, while the server answers, is opened anew; the
#: number doubles each time nothing is heard on the new one either.
_SILENCES = 3


class Heard(NamedTuple):
    """How many messages of use a stream has had, and how many connections."""

    messages: int
    connections: int


class Heartbeat:
    """Has the connection checked when a stream is silent that should not be.

    Attributes:
        thread: That which asks, or did last.
    """

    def __init__(
        self,
        liveness: Liveness,
        watchdog: Watchdog,
        seconds: float,
        owes: Callable[[], bool],
        heard: Callable[[], Heard],
        give_up: Optional[Callable[[EnsignError], None]],
        clock: Clock,
    ) -> None:
        """Make one that is not started.

        Args:
            liveness: What checks the connection.
            watchdog: What looks at the time.
            seconds: How much silence is believed.
            owes: Tells whether something should be heard, quickly.
            heard: Returns how much was heard so far, quickly.
            give_up: Opens the stream anew, which is silent although the server answers; None if it may be.
            clock: The time.
        """
        self.thread: Optional[threading.Thread] = None
        self._liveness, self._watchdog, self._give_up = liveness, watchdog, give_up
        self._seconds, self._owes, self._heard, self._now = max(seconds, _SHORTEST), owes, heard, clock.now
        self._watched = Watched(self._until_due, self._due, again=True)
        self._last = Heard(-1, -1)
        self._since: Optional[float] = None  # it is silent, and should not be
        self._answers, self._most_answers = 0, _SILENCES  # of the server meanwhile
        self._checking = self._stopped = False

    def start(self) -> None:
        """Look after the stream from now on."""
        self._watchdog.add(self._watched)

    def stop(self) -> None:
        """Look no more; does not wait for the thread."""
        self._stopped = True
        self._watchdog.remove(self._watched)

    # the watchdog's thread

    def _until_due(self) -> Optional[float]:
        now, look = self._now(), self._seconds / _LOOKS
        if self._checking or self._stopped:
            return look
        if not self._owes():
            self._since = None
            return look
        heard, last = self._heard(), self._last
        if heard.messages != last.messages:
            self._most_answers = _SILENCES
        if self._since is None or heard != last:
            self._last, self._since, self._answers = heard, now, 0
        due = self._since + self._seconds * (self._answers + 1)
        return min(max(0.0, due - now), look)

    def _due(self) -> None:
        try:
            self._checking = True
            self.thread = spawn("asking", self._check)
        except RuntimeError:  # the program is about to end, and takes no more threads
            self._since, self._checking = None, False

    # the thread that asks

    def _check(self) -> None:
        try:
            if self._liveness.check(self._now() - self._seconds / _LOOKS):
                self._answers += 1
                if self._give_up is not None and self._answers >= self._most_answers:
                    self._look_again(self._give_up)
            else:
                self._since = None
        except Exception:  # a defect of ours: the next time may do better
            logger.exception("a silent stream could not be looked into")
            self._since = None
        finally:
            self._checking = False

    def _look_again(self, give_up: Callable[[EnsignError], None]) -> None:
        if self._owes() and self._heard() == self._last:
            seconds = self._answers * self._seconds
            self._since, self._most_answers = None, self._most_answers * 2
            give_up(EnsignTimeoutError(f"nothing came on the stream for {seconds:.3g} s; the server answers else"))
