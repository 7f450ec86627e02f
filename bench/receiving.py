"""What the processes of a benchmark of subscriptions do; see ``tasks.py`` for what a task is.

A raw loop does what a client has to do: parse each message, make an event of it, hand it to another thread within a
bound, and acknowledge it. It drives grpcio's completion queue, and parses with protobuf, as anybody would.
"""

import json
import os
import queue
import resource
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List

from grpc._cython import cygrpc
from raw import _check, _open_call, open_channel, read_rows

from ensign_sync import Ensign
from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2
from ensign_sync.events import Event
from ensign_sync.wire import messages, methods

Task = Iterator[Dict[str, Any]]

#: How many events wait for the program at most, as a subscription has it by default.
BUFFER = 1000


def _event(wrapper: Any, topic: str) -> Event:
    """Make an event of a message, as a client does."""
    proto = event_pb2.Event.FromString(wrapper.event)
    kind = proto.type
    version = f"{kind.major_version}.{kind.minor_version}.{kind.patch_version}"
    event = Event(proto.data, proto.mimetype, kind.name or "Unknown", version, dict(proto.metadata))
    event.id, event.topic = wrapper.id, topic
    return event


class HandOver:
    """A bounded queue as cheap as can be: its ends meet only when it is full or empty."""

    def __init__(self, bound: int) -> None:
        self._items: Any = queue.SimpleQueue()
        self._bound, self._room = bound, threading.Event()
        self._room.set()
        self.get: Callable[[], Any] = self._items.get

    def put(self, item: Any) -> None:
        """Put, and wait where there is no room."""
        if self._items.qsize() >= self._bound:
            self._room.clear()
            if self._items.qsize() >= self._bound:
                self._room.wait()
        self._items.put(item)

    def took(self) -> None:
        """Say that one was taken."""
        if not self._room.is_set() and self._items.qsize() <= self._bound // 2:
            self._room.set()


class RawSubscriber:
    """A subscribe stream on the completion queue, which one thread drives; acks go out on it one at a time."""

    def __init__(self, endpoint: str, token: str, topic: str) -> None:
        self._channel = open_channel(endpoint)
        self._call = _open_call(self._channel._channel.segregated_call, methods.SUBSCRIBE.path, token)
        opening = ensign_pb2.SubscribeRequest(subscription=ensign_pb2.Subscription(client_id="raw", topics=[topic]))
        self.acks: Deque[bytes] = deque()
        self._sending = False
        self._send(opening.SerializeToString())
        for _ in self.messages(1):
            pass  # Ready

    def messages(self, number: int) -> Iterator[bytes]:
        """Yield so many messages, and send what is in ``acks`` meanwhile."""
        self._receive()
        while number:
            event = self._call.next_event()
            kind = event.tag[0]
            if kind == "received":
                message = event.batch_operations[0].message()
                if message is None:
                    continue
                number -= 1
                if number:
                    self._receive()
                yield message
            elif kind == "sent":
                self._sending = False
            elif kind == "ended":
                _check(event)
            if self.acks and not self._sending:
                self._send(self.acks.popleft())

    def send_the_rest(self) -> None:
        """Send what is still in ``acks``."""
        while self.acks or self._sending:
            if not self._sending:
                self._send(self.acks.popleft())
            if self._call.next_event().tag[0] == "sent":
                self._sending = False

    def close(self) -> None:
        """End the stream."""
        self._call.cancel(cygrpc.StatusCode.cancelled, "done")
        self._channel.close()

    def _receive(self) -> None:
        self._call.operate((cygrpc.ReceiveMessageOperation(0),), ("received", 0))

    def _send(self, data: bytes) -> None:
        self._sending = True
        self._call.operate((cygrpc.SendMessageOperation(data, 1 if self.acks else 0),), ("sent", 0))


def _ack(id: bytes) -> bytes:
    return bytes(ensign_pb2.SubscribeRequest(ack=ensign_pb2.Ack(id=id)).SerializeToString())


def receive_raw(endpoint: str, login: str, topic: str, number: int, ack: bool) -> Task:
    """Receive so many events behind a thread."""
    stream, handed = RawSubscriber(endpoint, login, topic), HandOver(BUFFER)
    yield {}

    def read() -> None:
        for data in stream.messages(number):
            handed.put(_event(ensign_pb2.SubscribeReply.FromString(data).event, topic))
        acked.wait()
        stream.send_the_rest()

    acked = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()

    def take() -> Iterator[Event]:
        while True:
            event = handed.get()
            handed.took()
            yield event
            if ack:
                stream.acks.append(_ack(event.id))

    marks = _Marks(number)
    marks.of(take())
    acked.set()
    reader.join()
    yield marks.answer()
    stream.close()


def receive_library(endpoint: str, login: str, topic: str, number: int, ack: bool, transport: str = "") -> Task:
    """Receive so many events with a subscription of this library."""
    client = _client(endpoint, login, transport)
    events = client.subscribe(topic, auto_ack=ack)
    yield {}
    marks = _Marks(number)
    marks.of(events)
    yield marks.answer()
    events.close()
    client.close()


class _Marks:
    """When the first event, the middle one and the last were there."""

    def __init__(self, number: int) -> None:
        self._number, self._middle = number, number // 2
        self._times: List[float] = []
        self._cpu: List[float] = []

    def of(self, events: Iterable[Any]) -> None:
        """Take so many events; raises RuntimeError if there are fewer."""
        n = -1
        for n, _ in enumerate(events):
            if n == 0 or n == self._middle:
                self._note()
            if n == self._number - 1:
                self._note()
                return
        raise RuntimeError(f"{self._number} events were expected, and {n + 1} came")

    def _note(self) -> None:
        self._times.append(time.monotonic())
        self._cpu.append(time.process_time())

    def answer(self) -> Dict[str, Any]:
        """Return events per second, of all and of the second half."""
        first, middle, last = self._times
        return {
            "rate": (self._number - 1) / (last - first),
            "later": (self._number - self._middle) / (last - middle),
            "cpu": (self._cpu[2] - self._cpu[0]) / self._number,
            "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def read_raw(endpoint: str, login: str, topic: str, number: int) -> Task:
    """Read the rows of a query of a whole topic on the calling thread."""
    request = messages.query_request(f"SELECT * FROM {topic}", None, True)
    yield {}
    marks = _Marks(number)
    rows = read_rows(endpoint, methods.ENSQL.path, login, request)
    marks.of(_event(event_pb2.EventWrapper.FromString(data), topic) for data in rows)
    yield marks.answer()


def catch_up(endpoint: str, login: str, topic: str, number: int, transport: str = "") -> Task:
    """Read a whole topic with a subscription; answers also how long it took from the last event until it was live."""
    client = _client(endpoint, login, transport)
    yield {}
    events = client.subscribe(topic, start="earliest", auto_ack=False)
    marks = _Marks(number)
    marks.of(events)
    begin = time.monotonic()
    while events.stats()["behind"]:
        time.sleep(0.0005)
    yield {**marks.answer(), "live": time.monotonic() - begin}
    events.close()
    client.close()


def credentials(login: str) -> Dict[str, str]:
    """Return the settings of a node that wants authentication: its address and its key, in JSON."""
    settings: Dict[str, str] = json.loads(login) if login.startswith("{") else {}
    return settings


def _client(endpoint: str, login: str, transport: str) -> Ensign:
    os.environ.update(ENSIGN_NO_AUTHENTICATION="" if login else "1", ENSIGN_SYNC_TRANSPORT=transport)
    return Ensign(endpoint=endpoint, insecure=True, **credentials(login))


def latency(endpoint: str, login: str, token: str, topic: str, number: int, how: str, pause: float = 0.002) -> Task:
    """Take the time of events from their publishing by another client of this library to the body of the loop."""
    publisher = _client(endpoint, login, "")
    publisher.publish(topic, b"warm up")
    took: List[float] = []

    def publish() -> None:
        for _ in range(number + 20):
            publisher.submit(topic, b"%.9f" % time.perf_counter())
            time.sleep(pause)
        publisher.flush(30.0)

    def note(data: bytes) -> None:
        took.append(time.perf_counter() - float(data))

    sender = threading.Thread(target=publish)
    yield {}
    if how == "raw":
        stream, handed = RawSubscriber(endpoint, token, topic), HandOver(BUFFER)

        def read() -> None:
            for data in stream.messages(number + 20):
                handed.put(_event(ensign_pb2.SubscribeReply.FromString(data).event, topic))

        reader = threading.Thread(target=read)
        reader.start()
        sender.start()
        for _ in range(number + 20):
            note(handed.get().data)
            handed.took()
        reader.join()
        stream.close()
    else:
        client = _client(endpoint, login, "")
        events = client.subscribe(topic, start="latest", auto_ack=False)
        sender.start()
        for event in events:
            note(event.data)
            if len(took) == number + 20:
                break
        events.close()
        client.close()
    sender.join()
    publisher.close()
    took = sorted(took[20:])
    yield {"p50": took[len(took) // 2] * 1e6, "p99": took[len(took) * 99 // 100] * 1e6}


def idle(endpoint: str, login: str, topic: str, seconds: float) -> Task:
    """Answer with the share of a processor that a subscription takes to which nothing comes, after its two looks."""
    client = _client(endpoint, login, "")
    with client.subscribe(topic, start="latest") as events:
        time.sleep(11.0)
        reads = events.stats()["reads"]
        yield {}
        begin, cpu = time.monotonic(), time.process_time()
        time.sleep(seconds)
        share = (time.process_time() - cpu) / (time.monotonic() - begin)
        yield {"share": share, "reads": events.stats()["reads"] - reads}
    client.close()


TASKS: Dict[str, Callable[..., Task]] = {
    "receive_raw": receive_raw,
    "receive_library": receive_library,
    "read_raw": read_raw,
    "catch_up": catch_up,
    "latency": latency,
    "idle": idle,
}
