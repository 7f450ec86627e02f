"""What the processes of a benchmark do: each task gets ready, says so, waits for the word, and answers.

A task is a generator. Its first value says that it is ready; it goes on once all tasks of a measurement are; its second
value is the answer. Times are of the monotonic clock, which all processes of a machine share.
"""

import itertools
import json
import os
import queue
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Tuple

import grpc
from raw import Publisher, Subscribers, open_channel, read_rows
from receiving import TASKS as RECEIVING
from receiving import credentials

from ensign_sync import Ensign
from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2
from ensign_sync.events import Event
from ensign_sync.handover.clock import Deadline
from ensign_sync.ids import ULID
from ensign_sync.node import direct_server
from ensign_sync.node.rpc import Call, Handler, Settings
from ensign_sync.node.storage import Log, StoredEvent, StoredTopic
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods

Task = Iterator[Dict[str, Any]]

#: The stream of the server that does nothing.
ECHO = "/bench.Nothing/Stream"

#: Before the number of an event in its data, so that a subscriber finds it without decoding.
_MARK = b"@number:"
WARM_UP = 500

_REPLY = codec.encode_publisher_reply(frames.Ack(bytes(16), time.time_ns()))


def _frame(frame: Any) -> bytes:
    return codec.joined(codec.encode_publisher_frame(frame))


def _number(n: int) -> bytes:
    return _MARK + n.to_bytes(8, "big")


def _payload(n: int, size: int) -> bytes:
    """Return an encoded event with so many bytes of data."""
    data = _number(n).ljust(size, b".")
    return bytes(codec.encode_event(Event(data, "application/octet-stream")))


def publish(endpoint: str, token: str, topic: str, size: int, number: int, window: int, warm_up: int = WARM_UP) -> Task:
    """Publish events; without a topic, to the server that does nothing, which answers as many messages."""
    path = methods.PUBLISH.path if topic else ECHO
    stream = Publisher(endpoint, path, token, _frame(frames.OpenStream("bench", ())))
    topic_id = codec.decode_publisher_reply(stream.ready).topics[topic] if topic else bytes(16)
    ids = [ULID.new().bytes for _ in range(number)]
    # All but the local id and the number is the same in every frame: three parts are joined for each, no more.
    whole = _frame(frames.Publication(topic_id, ids[0], _payload(0, size)))
    before, _, after = whole.partition(_number(0))
    after = after[: -len(ids[0])]
    prepared = (before + _number(n) + after + id for n, id in enumerate(ids))
    if warm_up:
        stream.publish(itertools.repeat(whole), warm_up, window)
    yield {}
    begin, cpu = time.monotonic(), time.process_time()
    replies = stream.publish(prepared, number, window)
    end, cpu = time.monotonic(), time.process_time() - cpu
    committed = _check_acks(replies, ids) if topic else []
    stream.close()
    yield {"begin": begin, "end": end, "cpu": cpu, "committed": committed}


# publishing with the work that a client has: build each event, serialise it, match its ack


def _built(topic_id: bytes, data: bytes, id: bytes) -> bytes:
    """Return a request, made of messages as anybody would."""
    event = event_pb2.Event(data=data, mimetype=0, metadata={"source": "bench"})  # type: ignore[arg-type]
    event.type.name, event.type.major_version = "Reading", 1
    now = time.time_ns()
    event.created.seconds, event.created.nanos = divmod(now, 10**9)
    wrapper = event_pb2.EventWrapper(topic_id=topic_id, local_id=id, event=event.SerializeToString())
    return ensign_pb2.PublisherRequest(event=wrapper).SerializeToString()


def _acked_id(reply: bytes) -> bytes:
    return bytes(ensign_pb2.PublisherReply.FromString(reply).ack.id)


def _own(data: bytes) -> Event:
    """Return the same event as an object of the library."""
    return Event(data, "application/octet-stream", "Reading", "1.0.0", {"source": "bench"})


def work_raw(endpoint: str, token: str, size: int, number: int, window: int) -> Task:
    """Publish on the completion queue, driven by one thread."""
    stream = Publisher(endpoint, methods.PUBLISH.path, token, _frame(frames.OpenStream("bench")))
    topic_id, data = codec.decode_publisher_reply(stream.ready).topics["bench"], bytes(size)
    waiting: Dict[bytes, int] = {}

    def requests(first: int, count: int) -> Iterator[bytes]:
        for n in range(first, first + count):
            id = n.to_bytes(16, "big")
            waiting[id] = n
            yield _built(topic_id, data, id)

    def run(first: int, count: int) -> None:
        for reply in stream.publish(requests(first, count), count, window):
            del waiting[_acked_id(reply)]
        assert not waiting

    run(0, WARM_UP)
    yield {}
    yield _timed(lambda: run(WARM_UP, number))
    stream.close()


def work_raw_singly(endpoint: str, token: str, size: int, number: int, window: int) -> Task:
    """The same, one event at a time; answers with the microseconds that each took."""
    stream = Publisher(endpoint, methods.PUBLISH.path, token, _frame(frames.OpenStream("bench")))
    topic_id, data = codec.decode_publisher_reply(stream.ready).topics["bench"], bytes(size)

    def one(n: int) -> None:
        id = n.to_bytes(16, "big")
        (reply,) = stream.publish(iter([_built(topic_id, data, id)]), 1, 1)
        assert _acked_id(reply) == id

    yield from _singly(one, number)
    stream.close()


def work_stub(endpoint: str, token: str, size: int, number: int, window: int) -> Task:
    """Publish on grpcio's public stub, with a queue and a thread that reads: what one writes by hand."""
    channel, outbox = open_channel(endpoint), queue.SimpleQueue()  # type: Any, Any
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    call = channel.stream_stream(methods.PUBLISH.path)(iter(outbox.get, None), metadata=metadata)
    outbox.put(_frame(frames.OpenStream("bench")))
    topic_id, data = codec.decode_publisher_reply(next(call)).topics["bench"], bytes(size)
    waiting: Dict[bytes, int] = {}
    room = threading.Semaphore(window)

    def read(count: int) -> None:
        for _ in range(count):
            del waiting[_acked_id(next(call))]
            room.release()

    def run(first: int, count: int) -> None:
        reader = threading.Thread(target=read, args=(count,))
        reader.start()
        for n in range(first, first + count):
            room.acquire()
            id = n.to_bytes(16, "big")
            waiting[id] = n
            outbox.put(_built(topic_id, data, id))
        reader.join()

    run(0, WARM_UP)
    yield {}
    yield _timed(lambda: run(WARM_UP, number))
    outbox.put(None)
    call.cancel()
    channel.close()


def work_library(
    endpoint: str, token: str, size: int, number: int, window: int, how: str, threads: int = 1, transport: str = ""
) -> Task:
    """Publish with this library: lists, single events, futures, or an iterator."""
    os.environ.update(ENSIGN_NO_AUTHENTICATION="" if token else "1", ENSIGN_SYNC_TRANSPORT=transport)
    data = bytes(size)
    client = Ensign(endpoint=endpoint, insecure=True, max_in_flight=window, **credentials(token))

    def lists(count: int) -> None:
        for first in range(0, count, window):
            client.publish("bench", [_own(data) for _ in range(min(window, count - first))])

    def submit(count: int) -> None:
        for future in [client.submit("bench", _own(data)) for _ in range(count)]:
            future.result()

    def iterate(count: int) -> None:
        assert client.publish_from("bench", (_own(data) for _ in range(count))) == count

    if how == "singly":
        yield from _singly(lambda n: client.publish("bench", _own(data)), number)
    else:
        run = {"lists": lists, "submit": submit, "iterate": iterate}[how]
        run(WARM_UP)
        yield {}
        with ThreadPoolExecutor(threads) as pool:
            yield _timed(lambda: list(pool.map(run, [number // threads] * threads)))
    client.close()


def _timed(work: Callable[[], Any]) -> Dict[str, Any]:
    begin, cpu = time.monotonic(), time.process_time()
    work()
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"begin": begin, "end": time.monotonic(), "cpu": time.process_time() - cpu, "rss": usage}


def _singly(one: Callable[[int], Any], number: int) -> Task:
    for n in range(WARM_UP):
        one(n)
    yield {}
    took = []
    for n in range(number):
        begin = time.perf_counter()
        one(n)
        took.append((time.perf_counter() - begin) * 1e6)
    took.sort()
    yield {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}


def _check_acks(replies: List[bytes], ids: List[bytes]) -> List[int]:
    """Make sure that every event was acknowledged, in order; returns the different times at which they were stored."""
    acks = [codec.decode_publisher_reply(reply) for reply in replies]
    for ack, id in zip(acks, ids):
        if not isinstance(ack, frames.Ack) or ack.id != id:
            raise RuntimeError(f"an ack of {id.hex()} was expected, and this came: {ack}")
    return sorted({ack.committed.ns for ack in acks})


def subscribe(endpoint: str, token: str, topic: str, streams: int, number: int) -> Task:
    """Receive so many events on each stream, every one of them, in order."""
    opening = codec.encode_subscriber_frame(frames.Subscription("bench", (topic,)))
    subscribers = Subscribers(endpoint, methods.SUBSCRIBE.path, token, opening, streams)
    expected = [_number(n) for n in range(number)]

    def check(stream: int, at: int, message: bytes) -> None:
        if expected[at] not in message:
            raise RuntimeError(f"subscriber {stream} missed event {at}")

    yield {}
    subscribers.receive(number, check)
    end = time.monotonic()
    subscribers.close()
    yield {"end": end}


def query(endpoint: str, token: str, text: str, number: int) -> Task:
    """Read the rows of a query; their number is known."""
    request = messages.query_request(text, None, False)
    yield {}
    begin = time.monotonic()
    rows = sum(1 for _ in read_rows(endpoint, methods.ENSQL.path, token, request))
    end = time.monotonic()
    if rows != number:
        raise RuntimeError(f"{text} has {number} rows, and {rows} came")
    yield {"begin": begin, "end": end}


def lookups(endpoint: str, token: str, texts: List[str], number: int) -> Task:
    """Make queries of one row in turn, so many of each; answers with the seconds that the median one took."""
    requests = [messages.query_request(text, None, False) for text in texts]
    metadata = (("authorization", f"Bearer {token}"),)
    channel = open_channel(endpoint)
    call = channel.unary_stream(methods.ENSQL.path)
    took: List[List[float]] = [[] for _ in texts]
    yield {}
    for _ in range(number):
        for request, seconds in zip(requests, took):
            begin = time.monotonic()
            rows = list(call(request, metadata=metadata, timeout=30))
            seconds.append(time.monotonic() - begin)
            if len(rows) != 1:
                raise RuntimeError(f"one row was expected, and {len(rows)} came")
    channel.close()
    yield {"seconds": [sorted(seconds)[len(seconds) // 2] for seconds in took]}


def append(path: str, size: int, number: int, batch: int) -> Task:
    """Store events in a new log, with nothing around it, in transactions of so many."""
    log = Log(path)
    topic = log.add_topic(ULID.new().bytes, bytes(16), "alone", b"")
    batches = list(_batches(topic, size, number, batch))
    yield {}
    begin = time.monotonic()
    for events in batches:
        log.append(events)
    end = time.monotonic()
    log.close()
    yield {"begin": begin, "end": end}


def fill(path: str, sizes: Dict[str, int]) -> Task:
    """Put so many events of 100 bytes into the topics of a node that does not run."""
    log = Log(path)
    yield {}
    for topic in log.all_topics():
        for events in _batches(topic, 100, sizes.get(topic.name, 0), 5_000):
            log.append(events)
    log.close()
    yield {}


def _batches(topic: StoredTopic, size: int, number: int, batch: int) -> Iterator[List[StoredEvent]]:
    """Yield events as a broker hands them to its log."""
    publisher = codec.encode_publisher("bench", "127.0.0.1", "bench", "bench")
    request = _frame(frames.Publication(topic.id, bytes(16), _payload(0, size)))
    now = time.time_ns()
    wrapper = codec.decode_publisher_request(request).stored(_id(now, 0), publisher)
    for first in range(0, number, batch):
        numbers = range(first, min(number, first + batch))
        yield [StoredEvent(topic.number, _id(now, n), wrapper, now) for n in numbers]


def _id(now: int, n: int) -> bytes:
    return (now // 1_000_000).to_bytes(6, "big") + n.to_bytes(4, "big")


class _Nothing(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers each message of any stream with the same one, of the size of an ack."""

    def service(self, handler_call_details: Any) -> Any:
        """Serve any method; grpcio looks for this name."""
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: (_REPLY for _ in requests))


def serve_nothing() -> Task:
    """Serve with grpcio's public server and a handler that does nothing, until the word comes."""
    server = grpc.server(ThreadPoolExecutor(16), [_Nothing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield {"endpoint": f"127.0.0.1:{port}"}
    server.stop(None).wait()
    yield {}


class _NothingBehind(Handler):
    """The same behind a gRPC server of a node."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def received(self, data: bytes) -> bool:
        """Answer."""
        self._call.send(_REPLY)
        return True


def serve_nothing_directly() -> Task:
    """Serve with the node's fast server and a handler that does nothing, until the word comes."""
    server = direct_server.make(Settings("127.0.0.1:0"), _NothingBehind)
    yield {"endpoint": f"127.0.0.1:{server.port}"}
    server.stop(0.0, Deadline(5.0))
    yield {}


TASKS: Dict[str, Callable[..., Task]] = {
    "publish": publish,
    "work_raw": work_raw,
    "work_raw_singly": work_raw_singly,
    "work_stub": work_stub,
    "work_library": work_library,
    "subscribe": subscribe,
    "query": query,
    "lookups": lookups,
    "append": append,
    "fill": fill,
    "serve_nothing": serve_nothing,
    "serve_nothing_directly": serve_nothing_directly,
    **RECEIVING,
}


def _say(word: Dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do the tasks that are ordered, one line each, until the input ends."""
    for line in iter(sys.stdin.readline, ""):
        order: Tuple[str, Dict[str, Any]] = json.loads(line)
        try:
            task = TASKS[order[0]](**order[1])
            _say(next(task))
            sys.stdin.readline()
            _say(next(task))
        except Exception as error:
            _say({"error": f"{order[0]}: {type(error).__name__}: {error}"})
            return


if __name__ == "__main__":
    main()
