"""Topics, their policies and what is known of their events (docs/protocol.rst, "Topics")."""

from typing import List, Optional, Sequence

from .enum import DeduplicationStrategy, OffsetPosition, TopicState
from .events import Type
from .ids import RLID, ULID
from .mimetypes import to_str
from .times import Instant


class Deduplication:
    """How a topic treats events that are the same."""

    def __init__(
        self,
        strategy: DeduplicationStrategy = DeduplicationStrategy.NONE,
        offset: OffsetPosition = OffsetPosition.OFFSET_EARLIEST,
        keys: Optional[Sequence[str]] = None,
        fields: Optional[Sequence[str]] = None,
        overwrite_duplicate: bool = False,
    ) -> None:
        self.strategy = strategy
        self.offset = offset
        self.keys = list(keys or [])
        self.fields = list(fields or [])
        self.overwrite_duplicate = overwrite_duplicate

    def _rows(self) -> List[str]:
        return [f"{name}={value}" for name, value in vars(self).items()]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Deduplication):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.strategy, self.offset, self.overwrite_duplicate))

    def __repr__(self) -> str:
        return f"Deduplication({', '.join(self._rows())})"

    def __str__(self) -> str:
        return "\n\t".join(["Deduplication", *self._rows()])


class EventType:
    """How many events of one schema and mimetype a topic holds."""

    def __init__(self, type: Type, mimetype: int) -> None:
        self.type = type
        self.mimetype = mimetype
        self.events = 0
        self.duplicates = 0
        self.data_size_bytes = 0

    def __repr__(self) -> str:
        return f"EventType(type={self.type}, mimetype={self.mimetype})"

    def __str__(self) -> str:
        try:
            mimetype = to_str(self.mimetype)
        except ValueError:
            mimetype = str(int(self.mimetype))
        return (
            f"EventType\n\ttype={self.type}\n\tmimetype={mimetype}\n\tevents={self.events}"
            f"\n\tduplicates={self.duplicates}\n\tdata_size_bytes={self.data_size_bytes}"
        )


class Topic:
    """A named stream of events. Two topics are equal when their ids are."""

    def __init__(self, id: Optional[ULID] = None, name: str = "", topic_str: str = "") -> None:
        self.id = ULID(id) if id is not None else None
        self.name = name
        self.topic_str = topic_str
        self.project_id: Optional[ULID] = None
        self.event_offset_id: Optional[RLID] = None
        self.events = 0
        self.duplicates = 0
        self.data_size_bytes = 0
        self.offset = 0
        self.readonly = False
        self.status: Optional[TopicState] = None
        self.deduplication: Optional[Deduplication] = None
        self.types: List[EventType] = []
        self.created: Optional[Instant] = None
        self.modified: Optional[Instant] = None

    def __hash__(self) -> int:
        if self.id is None:
            raise ValueError("cannot hash topic with no ID")
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topic):
            return NotImplemented
        return self.id == other.id

    def __repr__(self) -> str:
        return f"Topic(id={self.id}, name={self.name!r})"

    def __str__(self) -> str:
        rows = ["Topic"]
        for name in ("id", "name", "status", "project_id", "event_offset_id", "topic_str"):
            value = getattr(self, name)
            if value:
                rows.append(f"{name}={value.name if isinstance(value, TopicState) else value}")
        for name in ("events", "duplicates", "data_size_bytes", "offset"):
            rows.append(f"{name}={getattr(self, name)}")
        rows.append(f"types:{len(self.types)}")
        rows.extend(str(kind).replace("\t", "\t\t") for kind in self.types)
        for name in ("created", "modified"):
            if getattr(self, name):
                rows.append(f"{name}={getattr(self, name)}")
        return "\n\t".join(rows)
