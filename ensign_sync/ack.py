"""The acknowledgement of an event (docs/protocol.rst, "Acks and nacks")."""

from datetime import datetime
from typing import Optional, Union

from .times import Instant


class Ack:
    """The server's word that an event is stored.

    Attributes:
        id: The local id under which the event was sent (the server does not tell the stored id).
        committed: When the server stored it.
    """

    __slots__ = ("id", "_committed")

    def __init__(self, id: bytes, committed: Union[Instant, datetime, int, None] = None) -> None:
        self.id = id
        # An int is nanoseconds since 1970: the instant is made when somebody looks, not for every ack.
        self._committed = committed

    @property
    def committed(self) -> Optional[Instant]:
        """When the server stored the event, or None if it did not say."""
        committed = self._committed
        if isinstance(committed, int):
            return Instant.from_ns(committed)
        if committed is None or isinstance(committed, Instant):
            return committed
        return Instant.from_datetime(committed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ack):
            return NotImplemented
        return self.id == other.id and self.committed == other.committed

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Ack(id={self.id!r}, committed={self.committed!r})"

    def __str__(self) -> str:
        return f"id: {self.id!r}\ncommitted: {self.committed}"
