"""The acknowledgement of an event (docs/protocol.rst, "Acks and nacks")."""

from typing import Optional

from .times import Instant, Kept, instant_of


class Ack:
    """The server's word that an event is stored.

    Attributes:
        id: The local id under which the event was sent (the server does not tell the stored id).
        committed: When the server stored it.
    """

    __slots__ = ("id", "_committed")

    def __init__(self, id: bytes, committed: Kept = None) -> None:
        self.id = id
        self._committed = committed

    @property
    def committed(self) -> Optional[Instant]:
        """When the server stored the event, or None if it did not say."""
        return instant_of(self._committed)

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
