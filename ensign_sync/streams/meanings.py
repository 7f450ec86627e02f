"""Whether the names of the topics of a subscription mean what they meant when it opened.

A stream does not tell: the server goes on with the topics that it had (docs/protocol.rst, "Subscribe stream").
"""

import logging
from typing import Dict, Mapping, NamedTuple, Optional, Set

from ..exceptions import AuthenticationError, EnsignConnectionError, EnsignError, EnsignTimeoutError
from ..handover.clock import Clock
from .log import NEVER, Log

logger = logging.getLogger("ensign_sync")

#: How long questions may take, in seconds; more if a list of topics takes longer, up to the other.
PATIENCE, _MOST_PATIENCE = 30.0, 600.0


class Answer(NamedTuple):
    """What the server says: the ids of all topics by name, and which of those that were asked for are no more."""

    ids: Dict[str, bytes]
    destroyed: Set[str]


class Meanings:
    """Asks, every so many seconds. Needs the lock of its owner, but for ``ask`` and ``until_due``.

    Attributes:
        due: It is to be asked.
        gone: The names of topics that were destroyed, and are not there again.
    """

    def __init__(self, log: Log, heartbeat: float, all_topics: bool, clock: Clock) -> None:
        self.due = False
        self.gone: Set[str] = set()
        self._log, self._all_topics, self._now = log, all_topics, clock.now
        self._heartbeat, self._patience = heartbeat, PATIENCE
        self._known: Set[str] = set()
        self._may_ask = True
        self._asked_at = clock.now()

    def until_due(self) -> float:
        """Return how long until it is to be asked."""
        return max(0.0, self._asked_at + self._heartbeat - self._now())

    def look_at_the_time(self) -> None:
        """See whether it is to be asked."""
        now = self._now()
        if now >= self._asked_at + self._heartbeat:
            self._asked_at, self.due = now, True

    def ask(self, topics: Mapping[str, bytes]) -> Optional[Answer]:
        """Ask; None if the key may not ask, or the server does not say, or not in time.

        Raises:
            EnsignConnectionError: There is no server.
        """
        self.due = False
        if not self._may_ask:
            return None
        try:
            ids = self._log.ids(self._patience)
        except EnsignTimeoutError as error:
            self._patience = min(self._patience * 2, _MOST_PATIENCE)
            logger.info("the topics of a subscription could not be compared with those of the server: %s", error)
            return None
        except AuthenticationError:
            return None  # which says nothing of the server
        except EnsignConnectionError:
            raise
        except EnsignError as error:
            self._may_ask = error.code not in NEVER
            return None
        # A list of pages that is read while topics change may leave one out.
        absent = [(name, id) for name, id in topics.items() if name not in ids]
        return Answer(ids, {name for name, id in absent if not self._log.is_there(id, PATIENCE)})

    def differ(self, answer: Answer, topics: Mapping[str, bytes]) -> bool:
        """Tell whether a stream that is opened now would have other topics than these."""
        ids = answer.ids
        self.gone |= answer.destroyed
        new = set(ids) - self._known if self._all_topics else set()
        self._known |= new
        anew = any(ids.get(name, id) != id for name, id in topics.items())
        return anew or bool(self.gone & set(ids)) or bool(new - set(topics))
