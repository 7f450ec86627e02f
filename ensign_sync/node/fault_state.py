"""What the faults ask of the streams and the writer of a node; see ``faults.py`` for what they mean."""

import threading
from collections import deque
from typing import Deque, Dict, List, Optional


class FaultState:
    """What the faults ask of the streams and the writer. Any thread may call any method.

    Attributes:
        ack_delay: How long every ack is held back, in seconds.
        registration_delay: How long after its Ready a subscription begins, in seconds.
        struck: How often each fault struck.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """End all faults that are still to strike."""
        with self._lock:
            self.ack_delay = 0.0
            self.registration_delay = 0.0
            self.struck: Dict[str, int] = {}
            self._acks_to_drop = 0
            self._events_to_hide = 0
            self._refusals: Deque[List[int]] = deque()

    @property
    def touches_acks(self) -> bool:
        """Whether any ack is to be held back or dropped."""
        return self._acks_to_drop > 0 or self.ack_delay > 0

    def count(self, name: str, times: int = 1) -> None:
        """Note that a fault struck."""
        with self._lock:
            self.struck[name] = self.struck.get(name, 0) + times

    def add(self, name: str, number: int, code: int = 0) -> None:
        """Have the next so many events or acks struck."""
        with self._lock:
            if name == "nack_next":
                self._refusals.append([number, code])
            elif name == "drop_acks":
                self._acks_to_drop += number
            else:
                self._events_to_hide += number

    def drops_ack(self) -> bool:
        """Tell whether this ack is one to be dropped."""
        with self._lock:
            if not self._acks_to_drop:
                return False
            self._acks_to_drop -= 1
        self.count("drop_acks")
        return True

    def hides_event(self) -> bool:
        """Tell whether this event is one not to be delivered."""
        if not self._events_to_hide:  # the way of every event
            return False
        with self._lock:
            if not self._events_to_hide:
                return False
            self._events_to_hide -= 1
        self.count("drop_events")
        return True

    def refusal(self) -> Optional[int]:
        """Return the code with which this event is to be refused, if it is."""
        if not self._refusals:  # the way of every event
            return None
        with self._lock:
            if not self._refusals:
                return None
            first = self._refusals[0]
            first[0] -= 1
            if first[0] <= 0:
                self._refusals.popleft()
        self.count("nack_next")
        return first[1]
