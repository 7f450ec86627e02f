"""What a server says of itself (docs/protocol.rst, "Info and status")."""

from datetime import timedelta
from typing import NamedTuple, Optional

from .times import Instant


class Duration(NamedTuple):
    """A length of time, laid out as the wire has it."""

    seconds: int = 0
    nanos: int = 0

    def total_seconds(self) -> float:
        """Return the whole length in seconds."""
        return self.seconds + self.nanos / 1e9

    def to_timedelta(self) -> timedelta:
        """Return a timedelta, cut to microseconds."""
        return timedelta(seconds=self.seconds, microseconds=self.nanos // 1000)

    def __str__(self) -> str:
        return f"seconds: {self.seconds}\nnanos: {self.nanos}"


class ServerStatus(NamedTuple):
    """The answer to a status call.

    Attributes:
        status: 1 is healthy, 5 in maintenance.
        version: The server's version.
        uptime: How long it has been listening.
        not_before, not_after: When it wants to be asked again.
    """

    status: int
    version: str
    uptime: Duration
    not_before: Optional[Instant] = None
    not_after: Optional[Instant] = None

    def __str__(self) -> str:
        return f"status: {self.status}\nversion: {self.version}\nuptime: {self.uptime}"


Status = ServerStatus
