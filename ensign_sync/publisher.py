"""A small program that publishes: a client with one topic."""

from typing import Any, Iterable

from .client import Ensign


class Publisher(Ensign):
    """A client that publishes the events of an iterable to one topic.

    Args:
        topic: Its name or id.
        client_args: Those of ``Ensign``.

    Raises:
        ValueError: No topic; else what ``Ensign`` raises.
    """

    def __init__(self, topic: str, **client_args: Any) -> None:
        super().__init__(**client_args)
        self._check_topic(topic)
        self.topic = topic

    def run(self, event_iterator: Iterable[Any], **publish_args: Any) -> int:
        """Publish everything and close the client; blocks until all is acknowledged. Returns how many events were."""
        with self:
            return self.publish_from(event_iterator, **publish_args)

    def publish_from(self, event_iterator: Iterable[Any], **publish_args: Any) -> int:  # type: ignore[override]
        """Publish everything; see ``Ensign.publish_from``, which has the topic as its first argument."""
        return super().publish_from(self.topic, event_iterator, **publish_args)
