"""Keeps the checkpoint of a subscription up to date."""

import logging
import threading
from typing import Any, Callable, Dict, Mapping, Optional

from ..exceptions import CheckpointError
from ..handover.clock import Clock
from ..handover.locking import LockTimeoutError, hold, holding
from ..handover.watchdog import Watchdog, Watched
from ..protocol.position import Positions, Resume, load

logger = logging.getLogger("ensign_sync")

#: How often an object of the program's is saved, in seconds, if it does not say.
INTERVAL = 1.0

#: How long the end of a subscription waits for a save of another thread, in seconds.
_LAST_SAVE = 5.0


class Progress:
    """What was delivered and acknowledged, and where that is saved. Any thread may call any method.

    Attributes:
        keeps: Whether there is a checkpoint.
        closed: Nothing is saved any more.
    """

    def __init__(
        self, checkpoint: Any, watchdog: Watchdog, post: Callable[..., None], clock: Optional[Clock] = None
    ) -> None:
        self.keeps = checkpoint is not None
        self.closed = False
        self._checkpoint = checkpoint
        self._interval = float(getattr(checkpoint, "interval", INTERVAL))
        self._watchdog, self._post, self._clock = watchdog, post, clock or Clock()
        self._lock = threading.Lock()  # guards the positions
        self._positions = Positions()
        self._saving = threading.Lock()  # held by who saves: what is saved last is the latest
        self._saver: Optional[int] = None
        self._saved_at = self._clock.now()
        self._begun = self._changed = False
        self._watched: Optional[Watched] = None

    def load(self) -> Dict[str, Resume]:
        """Return where the topics go on that were saved, by name.

        Raises:
            CheckpointError: What was saved cannot be used.
        """
        if not self.keeps:
            return {}
        saved = self._checkpoint.load()
        if saved is not None and not isinstance(saved, Mapping):
            raise CheckpointError(f"the checkpoint's load() must return a mapping, got {type(saved).__name__}")
        found = load(saved or {})
        self._positions.keep(found)  # also of topics that this subscription is not about
        return found

    def start(self) -> None:
        """All topics have begun: save where, and from now on what changes."""
        if self.keeps and not self.closed:
            self._begun = True
            self.save()
            if self._interval > 0:
                self._watch()

    @holding("_lock")
    def begin(self, name: str, at: Resume) -> None:
        """A topic begins."""
        self._positions.begin(name, at)
        self._changed = True

    @holding("_lock")
    def delivered(self, name: str, id: bytes, row: int) -> None:
        """An event goes to the program."""
        self._positions.delivered(name, id, row)

    @holding("_lock")
    def passed_over(self, name: str, id: bytes, row: int) -> None:
        """An event does not concern the program."""
        self._positions.passed_over(name, id, row)

    def done(self, name: str, id: bytes) -> None:
        """The program is done with an event; where that is to be saved at once, it is when this returns.

        Raises:
            Whatever saving raises.
        """
        if not self.keeps:
            return
        is_news = self._acknowledged(name, id)
        # Of what is no news the saving may have been interrupted.
        if self._interval <= 0 and (is_news or self._changed):
            self.save()

    @holding("_lock")
    def _acknowledged(self, name: str, id: bytes) -> bool:
        is_news = self._positions.acknowledged(name, id)
        self._changed = self._changed or is_news
        return is_news

    def save(self) -> None:
        """Save what has changed. From within a save of the same thread it does nothing: that one sees to it."""
        if self._saver != threading.get_ident():
            self._save()

    @holding("_saving")
    def _save(self) -> None:
        self._saver = threading.get_ident()
        try:
            while self._begun and self._changed:
                self._save_once()
        finally:
            self._saver = None
            if self.closed:
                self._let_go()

    def _save_once(self) -> None:
        try:
            self._checkpoint.save(self._snapshot())
        except BaseException:
            self._changed = True
            raise
        self._saved_at = self._clock.now()

    @holding("_lock")
    def _snapshot(self) -> Dict[str, Any]:
        self._changed = False
        return self._positions.save()

    def close(self) -> None:
        """Save for the last time, and let go of the checkpoint. Nothing is saved afterwards."""
        if not self.keeps or self.closed:
            return
        if self._watched is not None:
            self._watchdog.remove(self._watched)
        if self._saver == threading.get_ident():
            self.closed = True  # a save() that ends the subscription: the end of it does the rest
            return
        try:
            hold(self._saving, _LAST_SAVE, self._save_and_let_go)
        except LockTimeoutError:
            self.closed = True  # the save that is under way does the rest
            logger.warning("a save of the checkpoint takes long: events may be delivered again")

    def _save_and_let_go(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            if self._begun and self._changed:
                self._save_once()
        except Exception:
            logger.exception("the checkpoint could not be saved: events will be delivered again")
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._begun = False
        release = getattr(self._checkpoint, "release", None)
        if release is not None:
            release()

    def _watch(self) -> None:
        if not self.closed:
            self._watched = Watched(lambda: max(0.0, self._saved_at + self._interval - self._clock.now()), self._due)
            self._watchdog.add(self._watched)

    def _due(self) -> None:
        # On the thread for callbacks: what saves may be the program's own, and slow.
        self._saved_at = self._clock.now()
        if self._changed:
            self._post(self._save_and_tell)
        self._watch()

    def _save_and_tell(self) -> None:
        try:
            self.save()
        except Exception:
            logger.exception("the checkpoint could not be saved now, and is saved again later")
