"""How long nothing has arrived on a stream."""

from typing import Optional

from ..handover.clock import Clock

#: A stream that nothing arrived on for so many seconds is idle; it is told twice.
IDLE_SECONDS = (1, 10)

#: A thread that comes so much too late was kept from running, and what it sees says nothing.
_LATE = 0.5


class Idleness:
    """Needs the lock of its owner, but for ``until_due``.

    Attributes:
        told: How many of the ages were told since something was heard.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self._heard_at = clock.now()
        self.told = len(IDLE_SECONDS)

    def heard(self) -> None:
        """Something arrived."""
        self._heard_at = self._now()
        self.told = 0

    def until_due(self) -> float:
        """Return how long until the next age is reached."""
        if self.told == len(IDLE_SECONDS):
            return float("inf")
        return max(0.0, self._heard_at + IDLE_SECONDS[self.told] - self._now())

    def grown(self) -> Optional[int]:
        """Return the age that was reached and not told yet, if one was."""
        if self.told == len(IDLE_SECONDS):
            return None
        now, age = self._now(), IDLE_SECONDS[self.told]
        late = now - self._heard_at - age
        if late > _LATE:
            self._heard_at = now - (IDLE_SECONDS[self.told - 1] if self.told else 0)  # wait anew
        elif late >= 0.0:
            self.told += 1
            return age
        return None
