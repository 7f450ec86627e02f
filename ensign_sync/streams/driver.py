"""Keeps a protocol machine connected: one reader thread, and a loop that reconnects."""

import contextlib
import logging
import random
import threading
from typing import Any, Callable, List, Optional, Tuple, TypeVar

from ..exceptions import EnsignError, EnsignTimeoutError
from ..handover.clock import Clock, Deadline
from ..handover.locking import Signal, holding
from ..handover.spawn import gather, spawn_kept
from ..handover.watchdog import Watched
from ..protocol import retry
from ..protocol.frames import HalfClose
from ..protocol.machine import State, stream_ended
from ..protocol.retry import History
from ..settings import Reconnect
from ..transport.call import Call
from .line import Hooks, Line, Outage
from .turn import Turn

logger = logging.getLogger("ensign_sync")

_T = TypeVar("_T")

#: A connection that was open this long counts as progress, even if nothing was said on it.
STABLE_SECONDS = 60.0


#: A stream that is not answered within so many seconds is opened anew, with more patience each time up to the other.
OPENING_SECONDS, LONGEST_OPENING = 10.0, 60.0


class StreamDriver:
    """One machine, its mutex, and the reader thread that feeds it.

    The mutex is the lock of ``changed``; it guards the machine and everything said to be guarded by it. Waiters on
    ``changed`` are woken whenever the machine has told something. No user code runs under it.

    Attributes:
        aside: The reader thread lets others read: who changes something has to call it back.
        heard_at: When the machine last received something, by the clock.
        connections: How many calls were opened.
    """

    def __init__(
        self,
        machine: Any,
        line: Line,
        handle: Callable[[List[Any]], None],
        policy: Reconnect,
        hooks: Hooks,
        clock: Optional[Clock] = None,
        take: Optional[Callable[[Any], bool]] = None,
    ) -> None:
        """Make a driver that is not started; ``handle`` gets the machine's events on the reader thread.

        What ``take`` takes of the frames, on the same thread, does not go to the machine.
        """
        self.machine = machine
        self.mutex = threading.Lock()
        self.changed = threading.Condition(self.mutex)
        self.last_error: Optional[Exception] = None
        self.reconnects = 0
        self.heard_at = 0.0
        self.connections = 0
        self._line = line
        self._encode, self._decode = line.encode, line.decode
        self._handle = handle
        self._take_straight = take
        self._policy = policy
        self._hooks = hooks
        self._clock = clock or Clock()
        self._call: Optional[Call] = None
        self._calls: List[Call] = []  # the latest, for their threads
        self._thread: Optional[threading.Thread] = None
        self._wake = Signal()
        self._stopping = False
        self._told_of_outage = False
        self._deliberate = False  # the connection is being given up by ourselves
        self._conditions: List[Callable[[], bool]] = []
        self.aside = False
        self._asked = False  # somebody would have read for themselves
        self._called_back = Signal()
        self._turn: Optional[Turn] = None  # of the present call
        self._progressed = False  # on this connection, by other means than its messages
        self._given_up: Optional[EnsignError] = None  # why the call was, not deliberately

    # for any thread

    def change(self, alter: Callable[..., _T], *args: Any) -> _T:
        """Alter the machine by ``alter(machine, *args)`` under the mutex; what it emits goes out at once.

        If that is interrupted half way, the stream starts over with all that is pending, and reports anew what was
        to be told.
        """
        result = self.change_alone(alter, *args)
        if self.aside:
            self.call_back()
        return result

    def change_alone(self, alter: Callable[..., _T], *args: Any) -> _T:
        """Do the same for who calls ``read_own`` or ``call_back`` next."""
        try:
            with self.mutex: result, events = self._changed_by(alter, args)  # noqa: E701 - see handover/locking.py
            if events:
                self._handle(events)
            return result
        except EnsignError:
            raise
        except BaseException:
            self.reconnect()
            raise

    def call_back(self) -> None:
        """Have the reader thread read again, if it has stepped aside."""
        turn = self._turn
        if turn is not None and turn.reader == threading.get_ident():
            # A signal handler, in the middle of a read of its own thread: that goes on when the handler has ended,
            # which may wait for what only a new connection brings.
            turn.stuck = True
            self._give_up_deliberately()
        self._called_back.set()

    def read_own(self, own: Callable[[bytes], bool], remaining: Callable[[], Optional[float]]) -> None:
        """Read a message on the calling thread, if the reader thread has stepped aside; at most while time remains.

        That spares who says one thing at a time two changes of threads for each. A message that is not ``own`` is left
        to the reader thread, which comes back for it as for everything else. Nothing is promised: who waits for the
        message has to look whether it came.
        """
        turn = self._turn
        if not self.aside or turn is None:
            self._asked = True  # the reader thread steps aside after the answer, for the next time
            return
        try:
            # An interrupt that strikes between these lines leaves the wheel locked: the reader thread finds out.
            if turn.wheel.acquire(False):
                try:
                    if self.aside:
                        turn.read(own, remaining, self._take)
                finally:
                    turn.wheel.release()
        except BaseException:
            self.reconnect()
            raise
        finally:
            if self.machine.unsettled or turn.left:
                self.call_back()

    def _changed_by(self, alter: Callable[..., _T], args: Tuple[Any, ...]) -> Tuple[_T, List[Any]]:
        machine = self.machine
        try:
            result = alter(machine, *args)
        finally:
            if machine.outgoing:
                self._send(machine.frames_to_send())
        events = machine.events()
        if self._conditions:
            self._wake_waiters()
        return result, events

    @holding("mutex")
    def wait(self, condition: Callable[[], bool], remaining: Callable[[], Optional[float]]) -> bool:
        """Take the mutex and do as ``wait_until``."""
        return self.wait_until(condition, remaining)

    @holding("mutex")
    def started_wait(self, condition: Callable[[], bool], remaining: Callable[[], Optional[float]]) -> bool:
        """Start the stream if it is not, and do as ``wait``."""
        self.start()
        return self.wait_until(condition, remaining)

    def flush(self) -> None:
        """Send what the machine wants to say. Needs the mutex."""
        machine = self.machine
        frames = machine.outgoing
        if frames:
            machine.outgoing = []
            self._send(frames)

    def wait_until(self, condition: Callable[[], bool], remaining: Callable[[], Optional[float]]) -> bool:
        """Block until the condition holds or no time remains; returns whether it holds. Needs the mutex.

        The reader evaluates the condition after each message, so it must be quick, and a waiter is only woken
        when it is worth it.
        """
        try:
            self._conditions.append(condition)
            return self.sleep_until(condition, remaining)
        finally:
            if condition in self._conditions:
                self._conditions.remove(condition)

    def sleep_until(self, condition: Callable[[], bool], remaining: Callable[[], Optional[float]]) -> bool:
        """Do as ``wait_until``, but leave it to others to ``wake`` who waits when the condition may hold."""
        while not condition():
            seconds = remaining()
            if seconds is not None and seconds <= 0.0:
                return False
            self.changed.wait(seconds)
        return True

    @holding("mutex")
    def wake(self) -> None:
        """Have everybody who waits look again."""
        self.changed.notify_all()

    def start(self) -> None:
        """Start the reader thread, once. Call it with the mutex held."""
        if self._thread is None:
            spawn_kept(self, self.machine.role, self._run)

    def reconnect(self) -> None:
        """Give the present connection up and make a new one; that is no outage, and nobody is told of one."""
        self._give_up_deliberately()
        self._wake.set()
        self.call_back()

    def progress(self) -> None:
        """Note that the connection was of use, though nothing may have been said on it."""
        self._progressed = True

    @holding("mutex")
    def lose(self, error: EnsignError) -> None:
        """Lose the present connection for this reason, and make a new one, at once if there is none."""
        self._give_up(error)
        if self._call is None:
            self._wake.set()

    @holding("mutex")
    def _give_up_deliberately(self) -> None:
        self._deliberate = self._call is not None
        if self._call is not None:
            self._call.cancel()

    def stop(self) -> None:
        """End the connection and the loop; does not wait for the thread."""
        self._stop()
        self._wake.set()
        self.call_back()

    @holding("mutex")
    def _stop(self) -> None:
        # No call is opened after this, and the one that is open is ended.
        self._stopping = True
        self.changed.notify_all()
        if self._call is not None:
            self._call.cancel()

    def join(self, deadline: Deadline) -> List[str]:
        """Wait for the reader thread and for the transport's; returns the names of threads that did not stop."""
        stubborn = gather([self._thread] if self._thread else [], deadline)
        for call in self._calls:
            call.join(deadline)
        return stubborn

    def channel_threads(self) -> List[threading.Thread]:
        """Return the transport's threads that end with the channel."""
        return [thread for call in self._calls for thread in call.channel_threads()]

    @property
    def connected(self) -> bool:
        """Tell whether a call is open, ready or not."""
        return self._call is not None

    # the reader thread

    def _run(self) -> None:
        with self.changed:
            if self._thread is not threading.current_thread():
                return  # started by a call that was interrupted, and given up
        history = History()
        lost_at: Optional[float] = None
        while True:
            error, progressed = self._one_connection(lost_at, history.attempts)
            now = self._clock.now()
            if progressed or lost_at is None:
                lost_at = now
            if progressed:
                history = History()
            history = history._replace(seconds=now - lost_at)
            pause = retry.decide(error, history, random.random(), self._policy)
            over = self._after_loss(error, pause)
            if over or pause is None:
                return
            deliberate, self._deliberate = self._deliberate, False
            if not (self._told_of_outage or deliberate):
                self._told_of_outage = True
                self._hooks.on_disconnect(self._outage(error, history.attempts, now - lost_at))
            log = logger.info if history.attempts or deliberate else logger.warning
            log("%s stream lost, next try in %.2f s: %s", self.machine.role, pause, error)
            refusals = history.refusals + 1 if retry.is_token_refused(error) else 0
            history = history._replace(attempts=history.attempts + 1, refusals=refusals)
            self._line.pause(pause, self._wake)
            self._wake.clear()

    def _one_connection(self, lost_at: Optional[float], attempts: int) -> Any:
        """Open a call and read it to its end; returns the error that ended it and whether it got anywhere."""
        progressed = False
        opened_at: Optional[float] = None
        token_refused: Callable[[], None] = _nothing
        watched: Optional[Watched] = None
        began = self._clock.now()
        self._given_up, self._progressed = None, False  # of the call before
        try:
            if self._stopping:
                return stream_ended(), False
            call, token_refused = self._line.open()
            self._begin(call)
            watched = self._watch_opening(call, attempts)
            with Turn(call) as turn:
                self._turn, self._asked = turn, False
                decode = self._decode
                receive, take = self._receive, self._take_straight
                for data in turn.messages:
                    frame = decode(data)
                    if take is not None and take(frame):
                        progressed = True
                        continue
                    receive(frame)
                    # Ready alone is no progress: a server may accept and then drop every stream.
                    progressed = opened_at is not None
                    if opened_at is None and self.machine.state is not State.OPENING:
                        opened_at = self._clock.now()
                        self._line.watchdog.remove(watched)
                        self._came_back(lost_at, attempts)
                    if self._asked and call.threads_may_take_turns:
                        self._step_aside(turn)
            return stream_ended(), progressed or self._was_of_use(opened_at)
        except EnsignError as error:
            if retry.is_token_refused(error):
                token_refused()
            given_up = self._given_up
            if given_up is not None and opened_at is None:
                self._line.suspect(began)
            return given_up or error, progressed or self._was_of_use(opened_at)
        except Exception as error:  # a defect of ours or of the server's: it must reach the user, not this thread's end
            logger.exception("the %s stream failed", self.machine.role)
            failure: EnsignError = EnsignError(f"the {self.machine.role} stream failed: {error!r}")
            failure.__cause__ = error
            return failure, progressed
        finally:
            if watched is not None and opened_at is None:
                self._line.watchdog.remove(watched)

    def _watch_opening(self, call: Call, attempts: int) -> Watched:
        """Have a call given up that is not answered: a connection may swallow everything, and never say so."""
        deadline = Deadline(min(OPENING_SECONDS * (attempts + 1), LONGEST_OPENING), self._clock)
        watched = Watched(
            lambda: deadline.remaining() if self.machine.state is State.OPENING else None,
            lambda: self._give_up_unanswered(call),
        )
        with contextlib.suppress(RuntimeError):  # the program is about to end, and takes no more threads
            self._line.watchdog.add(watched)
        return watched

    @holding("mutex")
    def _give_up_unanswered(self, call: Call) -> None:
        if self._call is call and self.machine.state is State.OPENING:
            self._give_up(EnsignTimeoutError("the server did not answer when the stream was opened"))

    def _give_up(self, error: EnsignError) -> None:
        """Lose the present connection for this reason. Needs the mutex."""
        if self._call is not None:
            self._given_up = error
            self._call.cancel()

    def _came_back(self, lost_at: Optional[float], attempts: int) -> None:
        if lost_at is not None and self._told_of_outage:
            self.reconnects += 1
            self._told_of_outage = False
            self._hooks.on_reconnect(self._outage(None, attempts, self._clock.now() - lost_at))

    def _was_of_use(self, opened_at: Optional[float]) -> bool:
        return self._progressed or opened_at is not None and self._clock.now() - opened_at >= STABLE_SECONDS

    def _begin(self, call: Call) -> None:
        with self.changed:
            self._calls = [*self._calls[-3:], call]
            if self._stopping:
                call.cancel()
                return
            self._call = call
            self.connections += 1
            self.machine.connected()
            self._send(self.machine.frames_to_send())

    def _step_aside(self, turn: Turn) -> None:
        """Let other threads read while they do so; returns when this one is needed. Needs the wheel, and gives it back.

        Raises:
            EnsignError: What the reading of another thread ended with.
        """
        self._asked = False
        self._called_back.clear()
        self.aside = True
        try:
            # Who hands something over looks at aside afterwards, so one of the two sees the other.
            if not self.machine.unsettled:
                turn.leave(self._called_back, self.reconnect)
        except EnsignError:
            self._give_up_deliberately()
            raise
        finally:
            self.aside = False
        while turn.left:
            left = turn.left.popleft()
            if isinstance(left, EnsignError):
                raise left
            if left is not None:
                self._receive(self._decode(left))

    def _take(self, data: bytes) -> bool:
        """Take a message that another thread read; returns whether it is of use."""
        if self.machine.over:
            return False
        self._receive(self._decode(data))
        return True

    def _receive(self, frame: Any) -> None:
        with self.mutex: events = self._received(frame)  # noqa: E701 - see handover/locking.py
        if events:
            self._handle(events)

    def _received(self, frame: Any) -> List[Any]:
        machine = self.machine
        self.heard_at = self._clock.now()
        machine.receive(frame)
        if machine.outgoing:
            self._send(machine.frames_to_send())
        if self._conditions:
            self._wake_waiters()
        events: List[Any] = machine.news
        if events:
            machine.news = []
        return events

    def _after_loss(self, error: Exception, pause: Optional[float]) -> bool:
        with self.changed:
            if self._call is not None:
                self._call.cancel()
            self._call = None
            self.last_error = error
            if pause is None or self._stopping:
                if not self.machine.over:
                    self.machine.fail(error)
            else:
                self.machine.lost(error)
            over = bool(self.machine.over)
            events = self.machine.events()
            self.changed.notify_all()
        if events:
            self._handle(events)
        return over

    def _wake_waiters(self) -> None:
        """Wake whoever waits for what has come true. Needs the mutex."""
        for condition in self._conditions:
            if condition():
                self.changed.notify_all()
                return

    def _send(self, frames: List[Any]) -> None:
        """Hand what the machine wants to say to the call. Needs the mutex."""
        call = self._call
        if call is None:
            return
        if type(frames[-1]) is not HalfClose:
            call.write(list(map(self._encode, frames)))
            return
        if len(frames) > 1:
            call.write(list(map(self._encode, frames[:-1])))
        call.half_close()

    def _outage(self, error: Optional[BaseException], attempts: int, seconds: float) -> Outage:
        return Outage(self.machine.role, sorted(self.machine.topics), error, attempts, seconds)


def _nothing() -> None:
    """What to do about a token that no call carried."""
