"""A call driven on grpcio's completion queue; every private name of grpcio that the client uses is in this file.

The thread in ``messages`` is the only one that asks the queue what has happened; it may be another each time. One
message is being sent at a time; its completion starts the next one, and while more are waiting each carries the hint
that another follows, so that gRPC writes many at once. That is what makes it several times as fast as the public stub,
which needs some 24 system calls and 14 thread switches for each message.
"""

import contextlib
import gc
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Generator, Iterator, List, NamedTuple, Optional, Tuple

import grpc

from ..exceptions import EnsignError
from ..handover.clock import Deadline
from ..handover.locking import Signal, holding
from ..settings import Settings
from ..wire.codec import Message, joined
from ..wire.methods import Method
from .call import Call, Metadata
from .channel import to_exception

#: Seconds after which a pause looks whether it was ended.
_GLANCE = 0.1

_NO_FLAGS = 0
_MORE_FOLLOWS = 1  # only while another message is sure to follow: gRPC keeps this one back for it

#: The tags of the operations. At most one of each is under way.
_OPENED, _METADATA, _ENDED, _RECEIVED, _SENT, _HALF_CLOSED = "opened", "metadata", "ended", "received", "sent", "closed"

_CODES: Dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_NAMES = (
    "PropagationConstants",
    "ReceiveInitialMetadataOperation",
    "ReceiveMessageOperation",
    "ReceiveStatusOnClientOperation",
    "SendCloseFromClientOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "StatusCode",
)


def _load() -> Any:
    """Return the private module, or None if it is not as we know it."""
    try:
        from grpc._cython import cygrpc
    except ImportError:
        return None
    return cygrpc if all(hasattr(cygrpc, name) for name in _NAMES) else None


_cygrpc: Any = _load()

available: bool = _cygrpc is not None
"""Whether this grpcio has the names that a direct call needs."""


class _Status(NamedTuple):
    """How a call ended, as ``to_exception`` wants it."""

    number: int
    text: str

    def code(self) -> Optional[grpc.StatusCode]:
        return _CODES.get(self.number)

    def details(self) -> str:
        return self.text


def pause(channel: Any, seconds: float, woken: Signal) -> None:
    """Wait so many seconds, at most until the event is set, and let the channel connect meanwhile.

    Calls that fail at once for want of a connection do not bring it about: grpcio 1.70 then never connects, however
    often it is asked, because nothing drives its attempts in between. (The public way to watch a channel has a thread
    of its own, which cannot be stopped before the channel is closed, and then fails.)
    """
    until = time.monotonic() + seconds
    try:
        inner = channel._channel
        while time.monotonic() < until and not woken.is_set():
            state = inner.check_connectivity_state(True)
            inner.watch_connectivity_state(state, time.time() + min(_GLANCE, until - time.monotonic()))
    except (AttributeError, TypeError, ValueError):  # another grpcio, or closed meanwhile
        woken.wait(max(0.0, until - time.monotonic()))


def let_go(holder: Any) -> None:
    """Unlock what an interrupt of grpcio has left locked; ``holder`` is one of its channels, or what is behind one.

    grpcio works with a Condition held whose exit is a function of Python's, and at the beginning of that an interrupt
    strikes which came while it worked: then this thread keeps the lock, and nothing that uses the channel ever goes on.
    """
    holder = getattr(holder, "_channel", holder)
    for state in gc.get_referents(holder):
        for condition in gc.get_referents(state):
            if isinstance(condition, threading.Condition):
                with contextlib.suppress(RuntimeError):  # it is not locked, or by another thread
                    while True:
                        condition.release()


@contextlib.contextmanager
def letting_go(holder: Any) -> Iterator[None]:
    """Do so if an error ends the block; a signal may have raised it, of whatever type it is."""
    try:
        yield
    except BaseException:
        let_go(holder)
        raise


class DirectCall(Call):
    """See ``Call``."""

    threads_may_take_turns = True

    def __init__(
        self,
        channel: grpc.Channel,
        method: Method,
        metadata: Metadata,
        settings: Settings,
        surprised: Callable[[str], None],
        timeout: Optional[float] = None,
    ) -> None:
        """Start the call; ``surprised`` is told, once, if grpcio turns out not to be as this file knows it.

        After ``timeout`` seconds it ends with DEADLINE_EXCEEDED.

        Raises:
            AttributeError, TypeError: It did so at once.
            ValueError: The channel is closed.
        """
        self._name = method.name
        self._settings = settings
        self._surprised = surprised
        self._outbox: Deque[Message] = deque()
        # Guards the start of an operation that sends, and _over. A writer that finds one under way does not take it:
        # whoever takes its completion looks into the outbox after having said that none is under way any more.
        self._lock = threading.Lock()
        self._sending = False  # a writer need not start one
        self._under_way = False  # one was started, and its completion will come
        self._half_close = False  # wanted, and not begun
        self._over = False  # no more is started
        # These belong to the thread in ``messages``.
        self._status: Optional[_Status] = None
        self._opening = 3
        self._receiving = False
        self._call = _start(channel, method.path, tuple(metadata), timeout)

    # any thread

    def write(self, messages: List[Message]) -> None:
        self._outbox.extend(messages)
        if not self._sending:
            self._send_next()

    def half_close(self) -> None:
        self._half_close = True
        if not self._sending:
            self._send_next()

    def cancel(self) -> None:
        try:
            with letting_go(self._call):
                self._call.cancel(_cygrpc.StatusCode.cancelled, "cancelled by the client")
        except (AttributeError, TypeError, ValueError) as error:
            if not _of_grpcio(error):
                raise
            self._surprised(f"a call could not be cancelled: {error!r}")

    @holding("_lock")
    def _send_next(self) -> None:
        if not self._sending:
            self._begin()

    def _begin(self) -> None:
        """Start sending what is next, if anything; what was being sent is. Needs the lock."""
        outbox, tag, self._under_way = self._outbox, _SENT, False
        if self._over:
            self._sending = False
            return
        try:
            if outbox:
                self._sending = True
                message = outbox.popleft()
                if type(message) is not bytes:
                    message = joined(message)
                operation = _cygrpc.SendMessageOperation(message, _MORE_FOLLOWS if outbox else _NO_FLAGS)
            elif self._half_close:
                self._sending, self._half_close, tag = True, False, _HALF_CLOSED
                operation = _cygrpc.SendCloseFromClientOperation(_NO_FLAGS)
            else:
                self._sending = False
                if outbox or self._half_close:  # put there by who saw the last one still under way
                    self._begin()
                return
            started = self._under_way = self._call.operate((operation,), tag)
        except BaseException as error:
            if not isinstance(error, (ValueError, AttributeError, TypeError)) or not _of_grpcio(error):
                let_go(self._call)
                raise
            started = False
            if not isinstance(error, ValueError):  # that says that the call has ended; its status is on the way
                self._surprised(f"a message could not be sent: {error!r}")
        if not started:
            self._sending, self._over = False, True
            self.cancel()

    # the thread that reads

    def messages(self) -> Generator[bytes, None, None]:
        next_event, operate = self._call.next_event, self._call.operate
        receive, flags = _cygrpc.ReceiveMessageOperation, _NO_FLAGS
        try:
            self._receive()
            while self._status is None or self._busy():
                event = next_event()
                tag = event.tag
                if tag is _RECEIVED:
                    message = event.batch_operations[0].message()
                    self._receiving = False
                    if message is None:  # the status comes next
                        continue
                    try:  # as in _receive
                        self._receiving = operate((receive(flags),), _RECEIVED)
                    except ValueError as error:
                        self._receiving = False
                        if not _of_grpcio(error):
                            raise
                    yield message
                else:
                    self._completed(event, tag)
        except GeneratorExit:
            raise
        except BaseException as error:
            # The queue must not be asked any more: an interrupt may have struck between it and here, or grpcio has
            # destroyed it. It is not known what is still to come, so the memory of the call is given up.
            self._opening, self._receiving, self._under_way, self._over = 0, False, False, True
            let_go(self._call)
            if not isinstance(error, (AttributeError, TypeError, KeyError)) or not _of_grpcio(error):
                raise  # a signal handler's
            self.ended = True
            reason = f"the call {self._name} cannot be driven: {error!r}"
            self._surprised(reason)
            failure = EnsignError(reason)
            failure.retriable = True
            raise failure from error
        finally:
            if self._status is None:
                self.cancel()
            while self._busy():  # what was started must come back, or the memory of the call never would
                event = next_event()
                if event.tag is _RECEIVED:
                    self._receiving = False
                else:
                    self._completed(event, event.tag)
        if self._status.code() is not grpc.StatusCode.OK:
            raise to_exception(self._status, self._name, self._settings)

    def _busy(self) -> bool:
        """Tell whether an operation is under way. Without any, the queue must not be asked again: it would crash."""
        return self._receiving or self._under_way or self._opening > 0

    def _completed(self, event: Any, tag: str) -> None:
        """See to what follows from the completion of anything but a message."""
        if tag is _SENT or tag is _HALF_CLOSED:
            with self._lock: self._begin()  # noqa: E701 - see handover/locking.py
            return
        self._opening -= 1
        if tag is _ENDED:
            end = event.batch_operations[0]
            self._status = _Status(end.code(), _text(end.details()))
            self.ended = True
            with self._lock: self._over = True  # noqa: E701 - see handover/locking.py

    def _receive(self) -> None:
        """Ask for the next message; while it is handled, gRPC already fetches the one after it."""
        try:
            # A new operation each time, since it holds the message.
            self._receiving = self._call.operate((_cygrpc.ReceiveMessageOperation(_NO_FLAGS),), _RECEIVED)
        except ValueError as error:  # the call has ended
            self._receiving = False
            if not _of_grpcio(error):
                raise

    def join(self, deadline: Deadline) -> None:
        return None

    def channel_threads(self) -> List[threading.Thread]:
        return []


def _start(channel: Any, path: str, metadata: Tuple[Tuple[str, str], ...], timeout: Optional[float]) -> Any:
    operations = (
        ((_cygrpc.SendInitialMetadataOperation(metadata, _NO_FLAGS),), _OPENED),
        ((_cygrpc.ReceiveInitialMetadataOperation(_NO_FLAGS),), _METADATA),
        ((_cygrpc.ReceiveStatusOnClientOperation(_NO_FLAGS),), _ENDED),
    )
    # flags, method, host, deadline, metadata, credentials, operations, context
    defaults = _cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
    deadline = None if timeout is None else time.time() + timeout
    arguments = (defaults, path.encode("ascii"), None, deadline, metadata, None, operations, None)
    try:
        return channel._channel.segregated_call(*arguments, None)  # a registered call, which later versions want
    except TypeError:
        return channel._channel.segregated_call(*arguments)


def _of_grpcio(error: BaseException) -> bool:
    """Tell whether grpcio raised an error, and not a signal handler that ran in its midst, on the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return True
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    name = at.tb_frame.f_code.co_filename if at is not None else ""
    return name == __file__ or "cygrpc" in name or name.endswith((".pyx", ".pxi"))


def _text(details: Any) -> str:
    return details.decode("utf-8", "replace") if isinstance(details, bytes) else str(details or "")
