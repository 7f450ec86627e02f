"""A gRPC server on grpcio's public names: two threads for each call, and the fallback of ``direct_server.py``."""

import logging
import threading
from collections import deque
from typing import Any, Callable, Deque, Iterator, Optional, Tuple

import grpc

from ..handover.clock import Deadline
from ..handover.spawn import spawn
from .pool import DaemonPool
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


def make(settings: Settings, open_call: Open) -> Server:
    """Listen and serve; OSError or RuntimeError if the address cannot be listened on."""
    return _PublicServer(settings, open_call)


class _PublicServer(Server, grpc.GenericRpcHandler):  # type: ignore[misc]
    """grpcio's server with one handler for whatever is called."""

    def __init__(self, settings: Settings, open_call: Open) -> None:
        self._settings = settings
        self._open_call = open_call
        self._open = 0
        self._lock = threading.Lock()
        self._pool = DaemonPool(settings.most_calls + 8)  # some more, so that what is refused does not wait to be
        options = channel_options(settings)
        self._server = grpc.server(self._pool, [self], options=options, maximum_concurrent_rpcs=settings.most_calls + 8)
        if settings.tls is None:
            self.port = int(self._server.add_insecure_port(settings.address))
        else:
            credentials = grpc.ssl_server_credentials([settings.tls])
            self.port = int(self._server.add_secure_port(settings.address, credentials))
        if self.port == 0:
            raise OSError("the port is taken")
        self._server.start()

    @property
    def calls(self) -> int:
        """How many calls are open."""
        return self._open

    def stop(self, grace: float, deadline: Deadline) -> None:
        """Take no new calls, give open ones ``grace`` seconds, then end them."""
        try:
            ended = self._server.stop(grace)
        except RuntimeError:  # it starts a thread, which Python 3.12.0 to 3.12.2 refuse at the end of a program
            ended = self._server.stop(None)
        ended.wait(deadline.remaining())
        self._pool.shutdown()

    def service(self, handler_call_details: Any) -> Any:
        """Serve any method as a stream of bytes both ways; grpcio looks for this name."""
        method = str(handler_call_details.method)
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: self._serve(method, requests, context))

    def _serve(self, method: str, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        if self._settings.announce:
            context.send_initial_metadata(tuple(self._settings.announce))
        with self._lock:
            excess = self._open >= self._settings.most_calls
            self._open += 1
        call = _PublicCall(method, requests, context)
        try:
            if excess:
                call.finish("RESOURCE_EXHAUSTED", self._settings.too_many)
            else:
                call.begin(self._open_call)
            yield from call.replies()
            code, details = call.status
            if code != "OK":
                context.abort(getattr(grpc.StatusCode, code), details)
        finally:
            with self._lock:
                self._open -= 1


class _PublicCall(Call):
    """One call: a thread of the pool sends what is in the outbox, another reads."""

    def __init__(self, method: str, requests: Iterator[bytes], context: Any) -> None:
        self.method = method
        self.metadata = [(str(key), str(value)) for key, value in context.invocation_metadata()]
        self.peer = str(context.peer())
        self._requests = requests
        self._context = context
        self._handler = Handler()
        self._outbox: Deque[bytes] = deque()
        self._bytes = 0
        self._status: Optional[Tuple[str, str]] = None
        self._over = False
        self._changed = threading.Condition(threading.Lock())
        self._wanted = threading.Semaphore(0)  # one for each message that the handler asked for
        self._turn = threading.RLock()  # the handler is told one thing at a time

    @property
    def waiting(self) -> int:
        """How many messages wait to be written."""
        return len(self._outbox)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes they have."""
        return self._bytes

    @property
    def status(self) -> Tuple[str, str]:
        """How the call ends."""
        return self._status or ("OK", "")

    def send(self, *messages: bytes) -> None:
        """Send messages behind those that were sent before."""
        with self._changed:
            if not self._over and self._status is None:
                self._outbox.extend(messages)
                self._bytes += sum(map(len, messages))
                self._changed.notify_all()

    def finish(self, code: str = "OK", details: str = "") -> None:
        """End the call once everything before was sent."""
        with self._changed:
            if self._status is None:
                self._status = (code, details)
                self._changed.notify_all()

    def receive(self) -> None:
        """Ask for the next message."""
        self._wanted.release()

    def begin(self, open_call: Open) -> None:
        """Find the handler and start to read."""
        if not self._context.add_callback(self._gone):
            self._gone()
            return
        try:
            handler = open_call(self)
            if handler is None:
                raise unknown_method(self.method)
        except Refused as error:
            self.finish(error.code, error.details)
            return
        except Exception:
            self._failed()
            return
        self._handler = handler
        self.receive()
        spawn("node-reader", self._read)

    def replies(self) -> Iterator[bytes]:
        """Yield what is sent, until the call is finished or the client gone; then the handler is told."""
        try:
            while True:
                with self._changed:
                    while not self._outbox and self._status is None and not self._over:
                        self._changed.wait()
                    if self._over or not self._outbox:
                        return
                    message = self._outbox.popleft()
                    self._bytes -= len(message)
                    low = self.is_low
                yield message
                if low:
                    self._tell(self._handler.drained)
        finally:
            self._gone()
            self._wanted.release()
            with self._turn:
                self._handler.ended()

    def _gone(self) -> None:
        with self._changed:
            self._over = True
            self._outbox.clear()
            self._bytes = 0
            self._changed.notify_all()

    def _read(self) -> None:
        while True:
            self._wanted.acquire()
            if self._over or self._status is not None:
                return
            try:
                message = next(self._requests, None)
            except Exception:  # grpcio raises a bare Exception when the client is gone
                return
            if message is None:
                self._tell(self._handler.half_closed)
                return
            self._tell(lambda data=message: self._take(data))  # type: ignore[misc]

    def _take(self, data: bytes) -> None:
        if len(data) > MOST_REQUEST_BYTES:
            raise too_large(len(data))
        if self._handler.received(data):
            self.receive()

    def _tell(self, what: Callable[[], None]) -> None:
        with self._turn:
            if self._over:
                return
            try:
                what()
            except Refused as error:
                self.finish(error.code, error.details)
            except Exception:
                self._failed()

    def _failed(self) -> None:
        logger.exception("a call of %s failed", self.method)
        self.finish("INTERNAL", "an unhandled exception occurred")
