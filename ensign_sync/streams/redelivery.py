"""Delivers an event again that was refused with a wish for it, after a pause that grows."""

import threading
from typing import Callable, List, NamedTuple, Optional, Tuple

from ..handover.clock import Clock
from ..handover.locking import holding
from ..handover.watchdog import Watchdog, Watched
from ..nack import DELIVER_AGAIN_ANY, DELIVER_AGAIN_NOT_ME
from ..protocol.frames import Delivery
from ..settings import Redeliver

_AGAIN = frozenset([int(DELIVER_AGAIN_ANY), int(DELIVER_AGAIN_NOT_ME)])


class _Waiting(NamedTuple):
    at: float
    delivery: Delivery
    topic: str
    refused: int


class Redelivery:
    """The events of one subscription that wait to be delivered again. Any thread may call any method.

    Attributes:
        redelivered: How many were delivered again.
        dead: How many were given up.
    """

    def __init__(
        self,
        policy: Redeliver,
        put: Callable[[Tuple[Delivery, str, int]], None],
        give_up: Callable[[Delivery, str], None],
        watchdog: Watchdog,
        clock: Optional[Clock] = None,
    ) -> None:
        self.redelivered = self.dead = 0
        self._policy, self._put, self._give_up, self._watchdog = policy, put, give_up, watchdog
        self._clock = clock or Clock()
        self._lock = threading.Lock()  # guards what waits
        self._waiting: List[_Waiting] = []
        self._watched: Optional[Watched] = None
        self._closed = False

    def takes(
        self, delivery: Delivery, topic: str, code: int, refused: int, policy: Optional[Redeliver] = None
    ) -> bool:
        """Take an event that was refused; returns False if it will not be delivered again."""
        if int(code) not in _AGAIN:
            return False
        policy = policy or self._policy
        if refused + 1 >= policy.attempts:
            self.dead += 1
            self._give_up(delivery, topic)
            return False
        self._add(_Waiting(self._clock.now() + policy.pause(refused), delivery, topic, refused + 1))
        return True

    @holding("_lock")
    def _add(self, waiting: _Waiting) -> None:
        if self._closed:
            return
        self._waiting.append(waiting)
        if self._watched is None:
            self._watched = Watched(self._until_due, self._due)
            self._watchdog.add(self._watched)

    def close(self) -> None:
        """Forget what waits: it was not acknowledged."""
        watched = self._close()
        if watched is not None:
            self._watchdog.remove(watched)

    @holding("_lock")
    def _close(self) -> Optional[Watched]:
        self._closed = True
        self._waiting.clear()
        return self._watched

    def _until_due(self) -> Optional[float]:
        soonest = min((waiting.at for waiting in list(self._waiting)), default=None)
        return None if soonest is None else max(0.0, soonest - self._clock.now())

    @holding("_lock")
    def _due(self) -> None:
        now = self._clock.now()
        due = [waiting for waiting in self._waiting if waiting.at <= now]
        self._waiting = [waiting for waiting in self._waiting if waiting.at > now]
        for waiting in sorted(due, key=lambda waiting: waiting.at):
            self.redelivered += 1
            self._put((waiting.delivery, waiting.topic, waiting.refused))
        self._watched = Watched(self._until_due, self._due) if self._waiting else None
        if self._watched is not None:
            self._watchdog.add(self._watched)
