"""Streams driven on grpcio's completion queue, with as little in them as can be: so the server is what is measured.

They use private names of grpcio. A stream is driven by the thread that made it, and by no other.
"""

import json
import time
import urllib.request
from typing import Any, Callable, Iterator, List, Tuple

import grpc
from grpc._cython import cygrpc
from grpc.experimental import ChannelOptions

Operations = Tuple[Any, ...]

_NO_FLAGS = 0
_MORE_FOLLOWS = 1  # the hint that another write is sure to come: messages then share packets


def _receive() -> Operations:
    # A new one each time: it holds the message, and two streams that share one destroy it twice.
    return (cygrpc.ReceiveMessageOperation(_NO_FLAGS),)


#: No stream lives longer, so that a server that falls silent ends a benchmark.
_LIFETIME = 120.0

_OPENED, _METADATA, _ENDED, _RECEIVED, _SENT = "opened", "metadata", "ended", "received", "sent"


class StreamEndedError(RuntimeError):
    """A stream ended before it was told to."""


def authenticate(auth_url: str, client_id: str, client_secret: str) -> str:
    """Return an access token of a node."""
    body = json.dumps({"client_id": client_id, "client_secret": client_secret}).encode("ascii")
    request = urllib.request.Request(auth_url + "/v1/authenticate", body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
        return str(json.load(reply)["access_token"])


def open_channel(endpoint: str, *options: Tuple[str, Any]) -> Any:
    """Return a channel with a connection of its own."""
    own: List[Tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.insecure_channel(endpoint, [*own, ("grpc.max_receive_message_length", -1), *options])


def _open_call(make: Callable[..., Any], path: str, token: str, number: int = 0) -> Any:
    """Start a call; the tags of its operations are pairs of a kind and the number."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    operations = (
        ((cygrpc.SendInitialMetadataOperation(metadata, _NO_FLAGS),), (_OPENED, number)),
        ((cygrpc.ReceiveInitialMetadataOperation(_NO_FLAGS),), (_METADATA, number)),
        ((cygrpc.ReceiveStatusOnClientOperation(_NO_FLAGS),), (_ENDED, number)),
    )
    defaults = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
    arguments = (defaults, path.encode("ascii"), None, time.time() + _LIFETIME, metadata, None, operations, None)
    try:
        return make(*arguments, None)  # for a registered call, which later versions know
    except TypeError:
        return make(*arguments)


def _check(event: Any) -> None:
    """Raise if an event is the end of its stream."""
    status = event.batch_operations[0]
    raise StreamEndedError(f"the stream ended with {status.code()}: {status.details()}")


class Publisher:
    """A publish stream: frames out, replies in, with a window of so many that were not yet answered."""

    def __init__(self, endpoint: str, path: str, token: str, opening: bytes) -> None:
        """Open the stream and wait for the reply to its first message, which is kept in ``ready``."""
        self._channel = open_channel(endpoint)
        self._call = _open_call(self._channel._channel.segregated_call, path, token)
        self._outstanding = 3
        self.ready = self.publish(iter([opening]), 1, 1)[0]

    def publish(self, frames: Iterator[bytes], number: int, window: int) -> List[bytes]:
        """Send so many frames; returns the replies, of which there must be one for each."""
        operate, next_event, send = self._call.operate, self._call.next_event, cygrpc.SendMessageOperation
        replies: List[bytes] = []
        sent, answered, sending = 0, 0, False
        operate(_receive(), (_RECEIVED, 0))
        while answered < number or sending:
            if not sending and sent < number and sent - answered < window:
                sent += 1
                sending = True
                more = sent < number and sent - answered < window
                operate((send(next(frames), _MORE_FOLLOWS if more else _NO_FLAGS),), (_SENT, 0))
            event = next_event()
            tag = event.tag[0]
            if tag is _RECEIVED:
                message = event.batch_operations[0].message()
                if message is None:
                    continue  # the status comes next
                replies.append(message)
                answered += 1
                if answered < number:
                    operate(_receive(), (_RECEIVED, 0))
            elif tag is _SENT:
                sending = False
            elif tag is _ENDED:
                _check(event)
            else:
                self._outstanding -= 1  # one of those that opened the stream
        return replies

    def close(self) -> None:
        """Cancel the stream and close its connection."""
        self._call.cancel(cygrpc.StatusCode.cancelled, "done")
        while self._outstanding:
            self._call.next_event()
            self._outstanding -= 1
        self._channel.close()


class Subscribers:
    """Subscribe streams over one connection, driven by one thread."""

    def __init__(self, endpoint: str, path: str, token: str, opening: bytes, number: int) -> None:
        """Open so many streams, and wait until each has its first reply."""
        self._channel = open_channel(endpoint)
        self._driver = self._channel._channel
        self._outstanding = 0
        self._calls: List[Any] = []
        for n in range(number):
            call = _open_call(self._driver.integrated_call, path, token, n)
            self._calls.append(call)
            self._operate(n, (cygrpc.SendMessageOperation(opening, _NO_FLAGS),), _SENT)
            self._outstanding += 3
        self.receive(1, lambda stream, at, message: None)

    def receive(self, number: int, check: Callable[[int, int, bytes], None]) -> None:
        """Receive so many messages on each stream; ``check`` gets the stream, how many came before, the message."""
        counts = [0] * len(self._calls)
        left = number * len(counts)
        for n in range(len(counts)):
            self._operate(n, _receive(), _RECEIVED)
        while left:
            event = self._driver.next_call_event()
            self._outstanding -= 1
            kind, n = event.tag
            if kind is _ENDED:
                _check(event)
            if kind is not _RECEIVED:
                continue
            message = event.batch_operations[0].message()
            if message is None:
                continue  # the status comes next
            check(n, counts[n], message)
            left -= 1
            counts[n] += 1
            if counts[n] < number:
                self._operate(n, _receive(), _RECEIVED)

    def close(self) -> None:
        """Cancel the streams and close their connection."""
        for call in self._calls:
            call.cancel(cygrpc.StatusCode.cancelled, "done")
        while self._outstanding:
            self._driver.next_call_event()
            self._outstanding -= 1
        self._channel.close()

    def _operate(self, n: int, operations: Operations, kind: str) -> None:
        self._calls[n].operate(operations, (kind, n))
        self._outstanding += 1


def read_rows(endpoint: str, path: str, token: str, request: bytes) -> Iterator[bytes]:
    """Yield the messages of a unary-stream call, with grpcio's public option for reading on the caller's own thread."""
    channel = open_channel(endpoint, (ChannelOptions.SingleThreadedUnaryStream, 1))
    with channel:
        metadata = (("authorization", f"Bearer {token}"),)
        yield from channel.unary_stream(path)(request, metadata=metadata, timeout=_LIFETIME)
