"""A project: the topics that one API key reaches (docs/protocol.rst, "Info and status")."""

from typing import List, Optional

from .ids import ULID
from .topics import Topic


class Project:
    """The counts of a project and of its topics, as the server last gathered them (they may lag by minutes)."""

    def __init__(self, id: Optional[ULID] = None) -> None:
        self.id = ULID(id) if id is not None else None
        self.num_topics = 0
        self.num_readonly_topics = 0
        self.events = 0
        self.duplicates = 0
        self.data_size_bytes = 0
        self.topics: List[Topic] = []

    def __repr__(self) -> str:
        return f"Project(id={self.id})"

    def __str__(self) -> str:
        rows = ["Project"]
        for name in ("id", "num_topics", "num_readonly_topics", "events", "duplicates", "data_size_bytes"):
            rows.append(f"{name}={getattr(self, name)}")
        rows.extend(str(topic).replace("\t", "\t\t") for topic in self.topics)
        return "\n\t".join(rows)
