"""What publish streams and subscribe streams have in common."""

import threading
from typing import Any, List, Mapping, Optional

from ..handover.clock import Deadline
from ..handover.spawn import gather
from .driver import StreamDriver
from .heartbeat import Heard, Heartbeat


class Stream:
    """What every stream tells of its driver. Any thread may call any method.

    Attributes:
        machine: The protocol machine, for who wants to read what it says of itself.
        lose: See ``StreamDriver``.
    """

    def __init__(self, driver: StreamDriver) -> None:
        self._driver = driver
        self.machine = driver.machine
        self.lose = driver.lose
        self._heartbeat: Optional[Heartbeat] = None

    def look_after(self, heartbeat: Heartbeat) -> None:
        """Have the connection checked while the stream is silent and should not be."""
        self._heartbeat = heartbeat
        heartbeat.start()

    def owes(self) -> bool:
        """Tell whether something should be heard. Quick."""
        raise NotImplementedError

    def heard(self) -> Heard:
        """Return how much was heard so far. Quick."""
        raise NotImplementedError

    def signs(self) -> Any:
        """Return something else whenever anything was received. Quick."""
        return self.heard_at, self.heard().messages

    def forsake(self) -> None:
        """Have nobody look after it any more."""
        if self._heartbeat is not None:
            self._heartbeat.stop()

    @property
    def over(self) -> bool:
        """True once the stream was closed or failed for good."""
        return bool(self.machine.over)

    @property
    def state(self) -> str:
        """The state of the machine."""
        return str(self.machine.state.name)

    @property
    def topics(self) -> Mapping[str, bytes]:
        """The topics of the last connection, name to id."""
        topics: Mapping[str, bytes] = self.machine.topics
        return topics

    @property
    def heard_at(self) -> float:
        """When something was last received, by the clock."""
        return self._driver.heard_at

    @property
    def reconnects(self) -> int:
        """How often the stream came back."""
        return self._driver.reconnects

    @property
    def last_error(self) -> Optional[Exception]:
        """Why the last connection was lost."""
        return self._driver.last_error

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the threads; returns the names of those that did not stop."""
        asking = self._heartbeat.thread if self._heartbeat is not None else None
        return [*self._driver.join(deadline), *gather([asking] if asking else [], deadline)]

    def channel_threads(self) -> List[threading.Thread]:
        """Return the transport's threads that end with the channel."""
        return self._driver.channel_threads()
