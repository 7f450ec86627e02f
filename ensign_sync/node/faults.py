"""Faults of a node as methods: what a network, a server or an operator does to clients, on live connections."""

import abc
from typing import Any, Dict, Optional

from ..exceptions import NodeError
from ..nack import code_of
from .fault_state import FaultState
from .relay import Relay


class Patient(abc.ABC):
    """What of a node the faults need beyond the state."""

    relay: Optional[Relay]

    @abc.abstractmethod
    def end_streams(self) -> int:
        """End all open streams; returns how many."""

    @abc.abstractmethod
    def expire_tokens(self) -> None:
        """Have every token that was issued so far count as expired."""

    @abc.abstractmethod
    def step_clock(self, seconds: float) -> None:
        """Set the clock of the events."""

    @abc.abstractmethod
    def die(self) -> None:
        """Be gone as by SIGKILL."""


class Faults:
    """The faults of one node. Any thread may call any method; none waits for the fault to pass."""

    def __init__(self, node: Patient, state: FaultState) -> None:
        self._node = node
        self._state = state

    @property
    def struck(self) -> Dict[str, int]:
        """How often each fault struck so far, by the name of its method."""
        return dict(self._state.struck)

    def clear(self) -> None:
        """End all faults, and forget how often they struck."""
        self._state.clear()
        if self._node.relay is not None:
            self._node.relay.heal()

    # the network

    def drop_connections(self) -> int:
        """Cut every connection to the gRPC port without a farewell; returns how many there were."""
        cut = self._relay("drop_connections").cut()
        self._state.count("drop_connections", cut)
        return cut

    def black_hole(self, seconds: float) -> None:
        """Pass no bytes on, in neither direction, for so long; connections stay open, and go on then."""
        self._relay("black_hole").hold(_duration(seconds))
        self._state.count("black_hole")

    def refuse(self, seconds: float) -> None:
        """Refuse new connections to the gRPC port for so long; open ones go on."""
        self._relay("refuse").refuse(_duration(seconds))
        self._state.count("refuse")

    # the server

    def delay_acks(self, seconds: float) -> None:
        """Send every ack and nack so long after its time; 0 ends it."""
        self._state.ack_delay = _duration(seconds)

    def drop_acks(self, n: int) -> None:
        """Never send the next n acks; the events are stored."""
        self._state.add("drop_acks", _count(n))

    def nack_next(self, n: int, code: int = 9) -> None:
        """Refuse the next n events with a code; they are not stored."""
        self._state.add("nack_next", _count(n), int(code_of(int(code))))

    def drop_events(self, n: int) -> None:
        """Deliver the next n stored events to no subscriber, as if its buffer were full; they are in the log."""
        self._state.add("drop_events", _count(n))

    def unregister_window(self, seconds: float) -> None:
        """Begin each new subscription only so long after its Ready; what is stored between passes unseen. 0 ends it."""
        self._state.registration_delay = _duration(seconds)

    def close_streams(self) -> int:
        """End every open stream with status OK; returns how many there were."""
        ended = self._node.end_streams()
        self._state.count("close_streams", ended)
        return ended

    def expire_tokens(self) -> None:
        """Have every token that was issued so far count as expired; open streams are not disturbed."""
        self._node.expire_tokens()
        self._state.count("expire_tokens")

    def step_clock(self, seconds: float) -> None:
        """Set the clock of the events forward, or with a negative number back; ids and commit times follow it."""
        self._node.step_clock(float(seconds))
        self._state.count("step_clock")

    def kill(self) -> None:
        """Die as by SIGKILL: connections break, what was not yet stored is gone. ``Node.restart()`` starts it again."""
        self._state.count("kill")
        self._node.die()

    def _relay(self, name: str) -> Relay:
        relay = self._node.relay
        if relay is None:
            raise NodeError(f"{name} needs a node with a relay before its port: make it with Node(faults=True)")
        return relay


def _duration(seconds: Any) -> float:
    number = float(seconds)
    if not 0 <= number < float("inf"):
        raise ValueError(f"expected a number of seconds from 0 on, got {seconds!r}")
    return number


def _count(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"expected a whole number from 0 on, got {n!r}")
    return n
