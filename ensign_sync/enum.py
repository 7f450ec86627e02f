"""Enumerations of topics and their policies, with the numbers of the wire (docs/protocol.rst, "Topics")."""

from enum import IntEnum
from typing import Dict, Type, TypeVar, Union

_Member = TypeVar("_Member", bound="WireEnum")


class WireEnum(IntEnum):
    """An enumeration whose members can be named in any case and looked up by number."""

    @classmethod
    def _aliases(cls) -> Dict[str, str]:
        return {}

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        # Without it an f-string shows the number up to Python 3.11 and the name after.
        return format(int(self) if spec else self.name, spec)

    @classmethod
    def parse(cls: Type[_Member], name: Union[str, int, "_Member"]) -> _Member:
        """Find a member by its name, in any case; KeyError names what there is.

        Numbers and members are taken as they are.
        """
        if not isinstance(name, str):
            return cls(name)
        key = name.strip().upper()
        key = cls._aliases().get(key, key)
        if key not in cls.__members__:
            raise KeyError(f"{name!r} is none of {', '.join(cls.__members__)}")
        return cls[key]

    @classmethod
    def convert(cls: Type[_Member], number: int) -> _Member:
        """Find a member by its number; one that this version does not know is the member 0."""
        try:
            return cls(number)
        except ValueError:
            return cls(0)


class TopicState(WireEnum):
    """What a topic is doing."""

    UNDEFINED = 0
    READY = 1
    READONLY = 2
    DELETING = 3
    PENDING = 4
    ALLOCATING = 5
    REPAIRING = 6


class DeduplicationStrategy(WireEnum):
    """When two events count as the same."""

    UNKNOWN = 0
    NONE = 1
    STRICT = 2
    DATAGRAM = 3
    KEY_GROUPED = 4
    UNIQUE_KEY = 5
    UNIQUE_FIELD = 6


class OffsetPosition(WireEnum):
    """Which of two duplicates is the original."""

    OFFSET_UNKNOWN = 0
    OFFSET_EARLIEST = 1
    OFFSET_LATEST = 2

    @classmethod
    def _aliases(cls) -> Dict[str, str]:
        return {"EARLIEST": "OFFSET_EARLIEST", "LATEST": "OFFSET_LATEST"}


class ShardingStrategy(WireEnum):
    """How the events of a topic are spread over nodes."""

    UNKNOWN = 0
    NO_SHARDING = 1
    CONSISTENT_KEY_HASH = 2
    RANDOM = 3
    PUBLISHER_ORDERING = 4
