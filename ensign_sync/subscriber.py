"""A small program that subscribes: a client whose ``on_event`` is called for each event."""

from typing import Any, Optional

from .client import Ensign
from .events import Event
from .settings import Redeliver


class Subscriber(Ensign):
    """A client that handles the events of some topics. Make a class below it with an ``on_event`` of your own.

    Args:
        topics: Their names or ids.
        client_args: Those of ``Ensign``.

    Raises:
        ValueError: No topics; else what ``Ensign`` raises.
    """

    def __init__(self, *topics: str, **client_args: Any) -> None:
        super().__init__(**client_args)
        if not topics:
            raise ValueError("no topics provided")
        for topic in topics:
            self._check_topic(topic)
        self.subscribed_topics = topics

    def on_event(self, event: Event) -> Any:
        """Handle an event; the default acknowledges it, as does returning from here.

        What it raises is logged and refuses the event; the next one follows.
        """
        event.ack()

    def run(self, **subscribe_args: Any) -> None:
        """Do as ``consume`` and close the client at the end."""
        with self:
            self.consume(**subscribe_args)

    def consume(self, workers: int = 1, retry: Optional[Redeliver] = None, **subscribe_args: Any) -> None:
        """Call ``on_event`` for each event; blocks until another thread closes the client.

        Args:
            workers, retry: See ``Subscription.run``.
            subscribe_args: Those of ``Ensign.subscribe``.

        Raises:
            EnsignError: What ended the subscription for good.
        """
        with self.subscribe(*self.subscribed_topics, **subscribe_args) as subscription:
            subscription.run(self.on_event, workers=workers, retry=retry)
