"""A gRPC server on grpcio's completion queue: one thread for all calls, and none for a stream.

grpcio's public server has a thread for each call, hands each message over between threads, and writes each message out
by itself. The same calls driven from one loop carry several times as much, and hundreds of streams cost no thread.
Everything about grpcio's private names on the server's side stands in this file; where one is missing, ``make`` raises
and the caller takes the public server.
"""

import logging
import threading
import time
from collections import deque
from typing import Any, Deque, List, Optional, Set, Tuple

import grpc
from grpc._cython import cygrpc

from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn
from .rpc import (
    MOST_REQUEST_BYTES,
    Call,
    Handler,
    Open,
    Refused,
    Server,
    Settings,
    too_large,
    unknown_method,
)
from .rpc import options as channel_options

logger = logging.getLogger("ensign_sync.node")

_NO_FLAGS = 0
_MORE_FOLLOWS = 1  # the hint that another write is sure to come
#: What grpcio must have; some of it is used only when a call ends, which is late to find that it is missing.
_NEEDED = (
    "CompletionQueue CompletionType Server ReceiveCloseOnServerOperation ReceiveMessageOperation"
    " SendInitialMetadataOperation SendMessageOperation SendStatusFromServerOperation"
).split()
_CODES = {code.name: code.value[0] for code in grpc.StatusCode}


def make(settings: Settings, open_call: Open) -> Server:
    """Listen and serve.

    Raises:
        OSError, RuntimeError: The address cannot be listened on.
        AttributeError, TypeError: This grpcio does not have what is needed.
    """
    for name in _NEEDED:
        getattr(cygrpc, name)
    return _DirectServer(settings, open_call)


class _DirectServer(Server):
    """The loop, and the calls that are open."""

    def __init__(self, settings: Settings, open_call: Open) -> None:
        self._settings = settings
        self._open_call = open_call
        self._announce = tuple(settings.announce)
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(tuple(channel_options(settings)), False)
        self._server.register_completion_queue(self._queue)
        self.port = self._listen(settings)
        if self.port == 0:
            raise OSError("the port is taken")
        # Guards the two below: calls come and go on the loop, who stops the server looks at them.
        self._lock = threading.Lock()
        self._calls: Set[_DirectCall] = set()
        self._stopping = False
        self._waiting_for_call = False
        self._shut_down = False
        self._freed = False
        self._server.start()
        self._request_call()
        self._thread = spawn("node-loop", self._run)

    @property
    def calls(self) -> int:
        """How many calls are open."""
        return len(self._calls)

    def stop(self, grace: float, deadline: Deadline) -> None:
        """Take no new calls, give open ones ``grace`` seconds, then end them."""
        # In both blocks: the loop waits for the lock before it frees the server, which must not be touched then.
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._server.shutdown(self._queue, self._on_shutdown)
        gather([self._thread], Deadline(grace))
        with self._lock:
            if not self._freed:
                self._server.cancel_all_calls()
        gather([self._thread], deadline)

    def _listen(self, settings: Settings) -> int:
        address = settings.address.encode("ascii")
        if settings.tls is None:
            return int(self._server.add_http2_port(address))
        credentials = grpc.ssl_server_credentials([settings.tls])
        return int(self._server.add_http2_port(address, credentials._credentials))

    # the loop

    def _run(self) -> None:
        while not (self._shut_down and not self._calls and not self._waiting_for_call):
            event = self._queue.poll(time.time() + 5.0)
            if event.completion_type == cygrpc.CompletionType.queue_timeout:
                continue
            try:
                event.tag(event)
            except Exception:
                logger.exception("a call of the node failed; the others go on")
            event = None  # it may hold the last reference to a call, which must be gone before the next wait
        with self._lock:
            self._freed = True
            self._server.destroy()
        self._queue.shutdown()
        while self._queue.poll().completion_type != cygrpc.CompletionType.queue_shutdown:
            continue

    def _on_shutdown(self, event: Any) -> None:
        self._shut_down = True

    def _request_call(self) -> None:
        self._server.request_call(self._queue, self._queue, self._on_call)
        self._waiting_for_call = True

    def _on_call(self, event: Any) -> None:
        self._waiting_for_call = False
        with self._lock:
            if not self._stopping:
                self._request_call()
        if not event.success:
            return
        call = _DirectCall(self, event, self._announce)
        excess = len(self._calls) >= self._settings.most_calls
        with self._lock:
            self._calls.add(call)
        call.begin(self._open_call, Refused("RESOURCE_EXHAUSTED", self._settings.too_many) if excess else None)

    def forget(self, call: "_DirectCall") -> None:
        """A call has ended, and nothing of it is outstanding."""
        with self._lock:
            self._calls.discard(call)


class _DirectCall(Call):
    """One call: its outbox, and the operations that are outstanding."""

    def __init__(self, server: _DirectServer, event: Any, announce: Tuple[Tuple[str, str], ...]) -> None:
        self._server = server
        self._call = event.call
        self.method = event.call_details.method.decode("latin-1")
        self.metadata = [(key, _text(value)) for key, value in event.invocation_metadata]
        self.peer = event.call.peer().decode("latin-1")
        self._announce: Optional[Tuple[Tuple[str, str], ...]] = announce
        self._handler = Handler()
        # Guards the outbox and the flags: whoever sets ``_sending`` is the one who writes, until nothing is left.
        self._lock = threading.Lock()
        self._outbox: Deque[bytes] = deque()
        self._bytes = 0
        self._sending = False
        self._status: Optional[Tuple[str, str]] = None
        self._status_sent = False
        self._over = False
        self._due = 0  # operations outstanding; only the loop counts them down
        self._receiving = False

    # the handler's side

    @property
    def waiting(self) -> int:
        """How many messages wait to be written."""
        return len(self._outbox)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes they have."""
        return self._bytes

    def send(self, *messages: bytes) -> None:
        """Send messages behind those that were sent before."""
        with self._lock:
            if self._over or self._status is not None:
                return
            self._outbox.extend(messages)
            self._bytes += sum(map(len, messages))
            if self._sending:
                return
            self._sending = True
        self._write()

    def finish(self, code: str = "OK", details: str = "") -> None:
        """End the call once everything before was sent."""
        with self._lock:
            if self._over or self._status is not None:
                return
            self._status = (code, details)
            if self._sending:
                return
            self._sending = True
        self._write()

    def receive(self) -> None:
        """Ask for the next message."""
        with self._lock:
            if self._over or self._status is not None or self._receiving:
                return
            self._receiving = True
            self._due += 1
        self._start((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._on_message)

    # the loop's side

    def begin(self, open_call: Open, refusal: Optional[Refused]) -> None:
        """Watch for the end of the call, find its handler and take its first message."""
        self._due += 1
        self._start((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_close)
        try:
            if refusal is not None:
                raise refusal
            handler = open_call(self)
            if handler is None:
                raise unknown_method(self.method)
            self._handler = handler
        except Refused as error:
            self.finish(error.code, error.details)
            return
        except Exception:
            self._failed()
            return
        self.receive()

    def _on_message(self, event: Any) -> None:
        self._receiving = False
        message = event.batch_operations[0].message() if event.success else None
        self._done()
        if self._over:
            return
        try:
            if message is None:
                self._handler.half_closed()
            elif len(message) > MOST_REQUEST_BYTES:
                raise too_large(len(message))
            elif self._handler.received(message):
                self.receive()
        except Refused as error:
            self.finish(error.code, error.details)
        except Exception:
            self._failed()

    def _failed(self) -> None:
        logger.exception("a call of %s failed", self.method)
        self.finish("INTERNAL", "an unhandled exception occurred")

    def _on_close(self, event: Any) -> None:
        with self._lock:
            self._over = True
            self._outbox.clear()
            self._bytes = 0
        try:
            self._handler.ended()
        finally:
            self._done()

    def _on_sent(self, event: Any) -> None:
        try:
            if not self._over and self.is_low:
                self._handler.drained()
        except Exception:
            self._failed()
        self._write()
        self._done()

    def _on_status_sent(self, event: Any) -> None:
        self._done()

    def _done(self) -> None:
        """An operation came back; the call is forgotten with the last one."""
        with self._lock:
            self._due -= 1
            last = self._due == 0 and self._over
        if last:
            self._server.forget(self)

    # writing

    def _write(self) -> None:
        """Start the next write. Whoever calls this is the one who writes."""
        with self._lock:
            operations: List[Any] = []
            if self._over or (not self._outbox and (self._status is None or self._status_sent)):
                self._sending = False
                return
            if self._announce is not None:
                operations.append(cygrpc.SendInitialMetadataOperation(self._announce, _NO_FLAGS))
                self._announce = None
            tag = self._on_sent
            if self._outbox:
                message = self._outbox.popleft()
                self._bytes -= len(message)
                # Never with the metadata: they would wait for a write, and the next write for them.
                more = not operations and (self._outbox or self._status is not None)
                operations.append(cygrpc.SendMessageOperation(message, _MORE_FOLLOWS if more else _NO_FLAGS))
            else:
                code, details = self._status or ("OK", "")
                self._status_sent = True
                tag = self._on_status_sent
                operations.append(
                    cygrpc.SendStatusFromServerOperation(None, _CODES[code], details.encode("utf-8"), _NO_FLAGS)
                )
            self._due += 1
        self._start(tuple(operations), tag)

    def _start(self, operations: Tuple[Any, ...], tag: Any) -> None:
        if self._call.start_server_batch(operations, tag) not in (None, 0):
            self._done()  # refused by gRPC: no event will come for it


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str) else str(value, "latin-1")
