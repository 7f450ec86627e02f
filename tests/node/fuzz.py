"""Fuzz a node, and see to it that it stands: ``python -m tests.node.fuzz SECONDS`` prints a seed and what came of it.

A stranger with a key of another project, some REST tokens and the token of the page sends whatever ``hostile`` makes.
The node must answer each call within its time and in its own words; afterwards it must work as ever for its own
project, whose events nobody else has touched; no stream, call or thread may be left, nothing may be logged as an error.
"""

import argparse
import collections
import contextlib
import io
import logging
import os
import queue
import random
import socket
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, Callable, Counter, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

import grpc

from ensign_sync.api.v1beta1 import ensign_pb2, event_pb2
from ensign_sync.ids import ULID
from ensign_sync.node import Node
from ensign_sync.protocol import frames
from ensign_sync.wire import codec, messages, methods
from tests.node.hostile import REQUESTS, Hostile, Known, bodies
from tests.node.raw import Raw, RawStream, event, opening, subscription
from tests.waiting import eventually

#: Seconds within which anything has to be over, on a machine that is busy.
LIMIT = 30.0

STREAMS = (methods.PUBLISH, methods.SUBSCRIBE)
SINGLE = [method for method in REQUESTS if method not in STREAMS]
SERVER_STREAMS = (methods.ENSQL, methods.HEALTH_WATCH)
STRANGE_PATHS = (
    "/", "/x", "//", "/ensign.v1beta1.Ensign/", "/ensign.v1beta1.Ensign/publish", "/grpc.health.v1.Health/x"
)  # fmt: skip

#: How a call may end, whatever was sent. INTERNAL only in the words with which the real server refuses bad requests.
ENDINGS = set(
    "OK CANCELLED INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED UNAUTHENTICATED FAILED_PRECONDITION"
    " ABORTED UNIMPLEMENTED RESOURCE_EXHAUSTED".split()
)
INTERNAL = (
    "grpc: error unmarshalling request",
    "unable to process list topics request",
    "unable to process list topic names request",
    "unable to process topic exists request",
    "could not process create topic request",
    "the call carried no request",
)


#: The size of the largest request.
MOST = 4 * 2**20

#: What a strict node says when it does as the real server does.
ALLOWED = "a topic stays PENDING: the real server cannot compare events by their fields\n"


def padded(request: bytes, size: int) -> bytes:
    """Return a request with a field that nobody knows behind it, so that it has some size."""
    left = size - len(request) - 2  # the tag of field 1000 has two bytes
    for digits in range(1, 6):
        if left - digits >= 0 and len(codec.varint(left - digits)) == digits:
            return request + codec.varint(1000 << 3 | 2) + codec.varint(left - digits) + bytes(left - digits)
    return request


class Trouble(AssertionError):
    """The node did what it must not do."""


class Watch:
    """Notes whatever is logged as an error, raised where nobody catches it, or written to stderr, in this process."""

    def __init__(self) -> None:
        self._stderr = io.StringIO()
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "Watch":
        handler = logging.StreamHandler(self._stderr)
        handler.setLevel(logging.ERROR)
        logging.getLogger().addHandler(handler)
        self._undo.callback(logging.getLogger().removeHandler, handler)
        self._undo.enter_context(contextlib.redirect_stderr(self._stderr))
        for module, name in ((threading, "excepthook"), (sys, "unraisablehook")):  # from Python 3.8 on
            if hasattr(module, name):
                self._undo.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, self._raised)
        return self

    def __exit__(self, *_: Any) -> None:
        self._undo.close()

    def _raised(self, args: Any) -> None:
        kind, error, where = args[:3]
        self._stderr.write("".join(traceback.format_exception(kind, error, where)))

    @property
    def noted(self) -> str:
        """All that was noted."""
        return self._stderr.getvalue()


@contextlib.contextmanager
def stderr_in(path: str) -> Iterator[None]:
    """Have processes that start now write their stderr to a file; gRPC, which complains of bad bytes, must not."""
    kept, before = os.dup(2), os.environ.get("GRPC_VERBOSITY")
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(file)
        os.environ.pop("GRPC_VERBOSITY")
        if before is not None:
            os.environ["GRPC_VERBOSITY"] = before


class Size(NamedTuple):
    """What a process takes: resident memory in MiB, threads, open files."""

    memory: float
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Size":
        """Measure a process."""
        with open(f"/proc/{pid}/statm") as file:
            pages = int(file.read().split()[1])
        parts = [len(os.listdir(f"/proc/{pid}/{name}")) for name in ("task", "fd")]
        return cls(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, *parts)


class Target:
    """A node that is fuzzed: what the stranger knows of it, and how it does."""

    def __init__(self, strict: bool, process: bool = False) -> None:
        self.strict = strict
        self._folder = tempfile.TemporaryDirectory(prefix="ensign-fuzz-")
        self._stderr = os.path.join(self._folder.name, "stderr")
        self._watch = Watch()
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._folder)
            if process:
                with stderr_in(self._stderr):
                    self.node = Node(topics=["weather"], strict=strict, registration=True, page=True, process=True)
            else:
                undo.enter_context(self._watch)
                self.node = Node(topics=["weather"], strict=strict, registration=True, page=True)
            undo.callback(self.node.stop)
            self._process = process
            self.published = 0
            self.provide()
            self._undo = undo.pop_all()

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: Any) -> None:
        self.own.channel.close()
        self.stranger.channel.close()
        self._undo.close()

    def provide(self) -> None:
        """Make the stranger's project, with some topics and events in it, and look up what a stranger may know."""
        node, known = self.node, Known()
        self.own = Raw(node)
        project = node.create_project()
        key = node.create_api_key(project=project)
        self.stranger = Raw(node, key)
        for name in ("weather", "a", "orders", "a.b"):
            self.stranger(methods.CREATE_TOPIC, messages.create_topic_request(name, ULID.new()))
        known.names = ["weather", "a", "orders", "a.b"]
        known.topic_ids = [self.stranger.topic_id(name) for name in known.names]
        known.project = ULID(project).bytes
        known.page_tokens = [messages.topics_page_reply(self.stranger(methods.LIST_TOPICS, b"\x08\x01")).next_token]
        payload = _made(1)
        self.stranger.publish([opening(), *(event(known.topic_ids[0], bytes([n]), payload) for n in range(5))])
        known.event_ids = [row.id for row in self.stranger.rows("SELECT * FROM weather")]
        said = self.stranger.post("/v1/authenticate", **key._asdict())[2]
        known.bodies = bodies(key.client_id, key.client_secret, said["refresh_token"], str(ULID.new()))
        user = known.bodies["/v1/register"]
        assert self.stranger.post("/v1/register", **user)[0] == 201
        login = self.stranger.post("/v1/login", **known.bodies["/v1/login"])[2]
        known.tokens = [said["access_token"], login["access_token"], node.page_url.rpartition("=")[2], self.own.token]
        known.host = node.auth_url.rpartition("/")[2]
        self.known = known

    def check(self) -> None:
        """See whether the node works as ever for who means it well, and whether it kept to itself what is its own."""
        listener = self.own.subscriber("weather")
        local_id = self.published.to_bytes(16, "big")
        payload = _made(self.published)
        replies, end = self.own.publish([opening(), event(self.own.topic_id(), local_id, payload)])
        self.published += 1
        assert end == ("OK", "")
        assert [type(reply) for reply in replies] == [frames.Ready, frames.Ack, frames.CloseStream]
        assert replies[1].id == local_id
        heard = listener.take(LIMIT)
        assert heard.payload == payload
        listener.cancel()
        stored = [row.payload for row in self.own.rows("SELECT * FROM weather")]
        assert stored == [_made(n) for n in range(self.published)], "somebody else was there"
        assert messages.status_reply(self.own(methods.STATUS)).status == 1
        assert self.own.http("GET", "/v1/status")[0] == 200

    def settle(self) -> None:
        """Wait until nothing is left of what was opened."""
        eventually(lambda: self.node.streams == 0, LIMIT)
        if not self._process:
            eventually(lambda: self.node._life.calls == 0, LIMIT)

    def renew(self) -> None:
        """Make the node as new, and provide it again."""
        self.node.reset()
        self.own.channel.close()
        self.stranger.channel.close()
        self.published = 0
        self.provide()

    @property
    def noted(self) -> str:
        """What the node wrote or raised, and should not have."""
        if not self._process:
            return self._watch.noted
        with open(self._stderr, errors="replace") as file:
            lines = file.read().replace(ALLOWED, "").splitlines(keepends=True)
        # Old versions of protobuf complain themselves of a text that is none; newer ones only fail.
        return "".join(line for line in lines if not line.startswith("[libprotobuf ERROR "))


def _made(n: int) -> bytes:
    """Return an event that a query can find something in."""
    return event_pb2.Event(data=b'{"n": %d, "k": "x", "a": {"b": 1}}' % n, metadata={"k": "v"}).SerializeToString()


class Fuzzer:
    """Sends what is hostile to a target. Raises Trouble if the node does what it must not."""

    def __init__(self, target: Target, rnd: Any) -> None:
        self.target = target
        self.raw = target.stranger
        self.hostile = Hostile(rnd, target.known)
        self.endings: Counter[str] = collections.Counter()
        self.trace: Deque[str] = collections.deque(maxlen=12)
        self._streams: List[RawStream] = []

    def __enter__(self) -> "Fuzzer":
        return self

    def __exit__(self, *_: Any) -> None:
        for stream in self._streams:  # not all have ended if something was wrong
            stream.cancel()

    def _open(self, method: methods.Method, metadata: Any = None) -> RawStream:
        publishes = method == methods.PUBLISH
        decode = codec.decode_publisher_reply if publishes else codec.decode_subscribe_reply
        self._streams = [stream for stream in self._streams if stream.status is None]
        self._streams.append(RawStream(self.raw, method, decode, metadata))
        return self._streams[-1]

    def step(self) -> None:
        """Do one of all things."""
        actions: List[Tuple[int, Callable[[], None]]] = [
            (100, self.call), (60, self.stream), (60, self.http), (30, self.query), (10, self.storm),
            (10, self.several), (10, self.http2), (5, self.strange), (5, self.group), (3, self.crowd), (1, self.large),
        ]  # fmt: skip
        at = self.hostile.rnd.randrange(sum(weight for weight, _ in actions))
        for weight, action in actions:
            at -= weight
            if at < 0:
                action()
                return

    # calls

    def call(self) -> None:
        """Make a single call."""
        method = self.hostile.one(SINGLE)
        self._single(method, self.hostile.request(method))

    def query(self) -> None:
        """Send a query, good or bad."""
        method = self.hostile.one([methods.ENSQL, methods.ENSQL, methods.EXPLAIN])
        params = {"p": self.hostile.one([1, 1.5, "x", True, b"\xff", float("inf"), float("nan"), 2**62]), "q": ""}
        self._single(method, messages.query_request(self.hostile.query(), params, self.hostile.chance(2)))

    def _single(self, method: methods.Method, request: bytes) -> None:
        self._note(method.name, request)
        if method in SERVER_STREAMS:
            call = self.raw.channel.unary_stream(method.path)
            most = self.hostile.one([1, 3, 10_000]) if method == methods.ENSQL else 1
            found = self._read(call(request, metadata=self._metadata(), timeout=LIMIT), most)
        else:
            found = self._status(self.raw.channel.unary_unary(method.path), request)
        self._judge(method.name, found)

    def several(self) -> None:
        """Make a single call with no request, or more than one, or leave before the answer."""
        method = self.hostile.one(SINGLE)
        requests = [self.hostile.request(method) for _ in range(self.hostile.rnd.randrange(4))]
        self._note(f"{method.name} {len(requests)} times", *requests)
        call = self.raw.channel.stream_stream(method.path)(iter(requests), metadata=self._metadata(), timeout=LIMIT)
        if self.hostile.chance(3):
            call.cancel()
        self._judge(method.name, self._read(call, 1))

    def storm(self) -> None:
        """Make many calls at once."""
        chosen = [self.hostile.one([m for m in SINGLE if m not in SERVER_STREAMS]) for _ in range(10)]
        requests = [(method, self.hostile.request(method)) for method in chosen]
        self._note("at once " + " ".join(method.name for method in chosen), *(request for _, request in requests))
        metadata = self.raw.metadata(None)
        futures = [
            self.raw.channel.unary_unary(method.path).future(request, metadata=metadata, timeout=LIMIT)
            for method, request in requests
        ]
        for method, future in zip(chosen, futures):
            self._judge(method.name, self._status(future.result))

    def strange(self) -> None:
        """Call what does not exist."""
        path = self.hostile.one(STRANGE_PATHS)
        self._note(path)
        self._judge(path, self._status(self.raw.channel.unary_unary(path), self.hostile.blob()))

    def _metadata(self) -> List[Tuple[str, Any]]:
        if not self.hostile.chance(6):
            return list(self.raw.metadata(None))
        token = self.raw.token
        cut = token[: self.hostile.rnd.randrange(len(token))]
        values = ["", "Bearer", f"Bearer {cut}", f"Bearer {token}.", "Bearer ...", "x" * 3_000, f"Bearer {token}"]
        odd = [("authorization", self.hostile.one(values)) for _ in range(self.hostile.rnd.randrange(3))]
        more = [("x-bin", b"\xff\x00"), ("user-agent", "x"), ("ensign-features", "groups"), ("a.b_c-d", "~ !")]
        return odd + [self.hostile.one(more)]

    def _status(self, call: Any, *args: Any) -> Tuple[str, str]:
        options = {"metadata": self._metadata(), "timeout": LIMIT} if args else {}
        try:
            call(*args, **options)
        except grpc.FutureTimeoutError:
            return "DEADLINE_EXCEEDED", ""
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def _read(self, call: Any, most: int) -> Tuple[str, str]:
        try:
            for number, _ in enumerate(call):
                if number + 1 >= most:
                    call.cancel()
                    return "CANCELLED", ""
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    # streams

    def stream(self) -> None:
        """Open a stream and say odd things, in an odd order; end it one way or another."""
        method = self.hostile.one(STREAMS)
        publishes = method == methods.PUBLISH
        stream = self._open(method, self._metadata())
        script = [self._first(publishes), *(self._later(method) for _ in range(self.hostile.rnd.randrange(8)))]
        if self.hostile.chance(8):
            script = []
        end = self.hostile.one(["cancel", "half-close", "half-close", "wait"])
        self._note(f"{method.name}, {end}", *script)
        stream.send(*script)
        try:
            if end == "wait":
                stream.take(0.2)
        except queue.Empty:
            end = "cancel"
        if end == "cancel" or not publishes:
            if end == "half-close":
                stream.half_close()
            stream.cancel()
        else:
            stream.half_close()
            self._rest(stream)
        self._judge(method.name, stream.status or ("", "the stream did not end"))

    def _rest(self, stream: RawStream) -> None:
        """Read until the end of a stream."""
        while stream.status is None:
            try:
                if stream.take(LIMIT) is None:
                    return
            except queue.Empty:
                raise self.trouble("a publish stream did not end after its half-close") from None

    def _first(self, publishes: bool) -> bytes:
        names = [self.hostile.text(*self.target.known.names) for _ in range(self.hostile.one([0, 0, 1, 2, 1_000]))]
        if self.hostile.chance(4):
            return self.hostile.request(methods.PUBLISH if publishes else methods.SUBSCRIBE)
        if publishes:
            return opening(*names)
        return subscription(*names, group=self.hostile.one(["", "g", "h", self.hostile.text()]))

    def _later(self, method: methods.Method) -> bytes:
        known = self.target.known
        if method == methods.PUBLISH and not self.hostile.chance(3):
            return event(self.hostile.blob(*known.topic_ids), self.hostile.blob(), self.hostile.payload())
        if method == methods.SUBSCRIBE and not self.hostile.chance(3):
            id = self.hostile.blob(*known.event_ids)
            return codec.encode_subscriber_frame(self.hostile.one([frames.Ack(id), frames.Nack(id, 104)]))
        return self.hostile.request(method)

    def group(self) -> None:
        """Have members of a group ack and nack as they like, and leave."""
        name = self.hostile.text("g")
        members = [self._member(name) for _ in range(self.hostile.rnd.randrange(1, 4))]
        id = self.hostile.one(self.target.known.topic_ids)
        self._note(f"group {name!r} of {len(members)}", id)
        self.raw.publish([opening(), *(event(id, bytes([n])) for n in range(self.hostile.rnd.randrange(6)))])
        for member in members:
            with contextlib.suppress(queue.Empty):
                for _ in range(self.hostile.rnd.randrange(4)):
                    got = member.take(0.02)
                    if got is None:
                        break
                    code = self.hostile.one([0, 102, 104, 105])
                    answer = self.hostile.one([frames.Ack(got.id), frames.Nack(got.id, code)])
                    member.send(codec.encode_subscriber_frame(answer) * self.hostile.one([1, 1, 2]))
        for member in members:
            member.cancel()
            self._judge("a member of a group", member.status or ("", "the stream did not end"))

    def _member(self, name: str) -> RawStream:
        request = ensign_pb2.SubscribeRequest()
        group = request.subscription.group
        self.hostile.message(group)
        group.name, group.id = name, self.hostile.one([b"", b"", self.hostile.blob()])
        stream = self._open(methods.SUBSCRIBE)
        stream.send(request.SerializeToString())
        stream.take(LIMIT)
        return stream

    def crowd(self) -> None:
        """Open many streams, and leave all at once."""
        streams = []
        for _ in range(self.hostile.rnd.randrange(2, 20)):
            method = self.hostile.one(STREAMS)
            streams.append(self._open(method))
            streams[-1].send(self._first(method == methods.PUBLISH))
        self._note(f"crowd of {len(streams)}")
        for stream in streams:
            stream.call.cancel()
        for stream in streams:
            stream.cancel()
            self._judge("a stream of a crowd", stream.status or ("", "the stream did not end"))

    def large(self) -> None:
        """Send a request of about the size that is the largest, or beyond."""
        size = self.hostile.one([MOST - 1, MOST, MOST + 1, MOST * 2, MOST * 2 + 1])
        method = self.hostile.one([method for method in SINGLE if method not in SERVER_STREAMS])
        self._note(f"{method.name} of {size} bytes")
        found = self._status(self.raw.channel.unary_unary(method.path), padded(self.hostile.request(method), size))
        if (size > MOST) != (found[0] == "RESOURCE_EXHAUSTED") and found[0] != "UNAUTHENTICATED":
            raise self.trouble(f"a request of {size} bytes ended with {found}")
        self._judge(method.name, found)

    # HTTP

    def http(self) -> None:
        """Make an HTTP request, in one piece or in two with another request between them; perhaps leave half-way."""
        request = self.hostile.http()
        data = request.head + request.body
        self._note("HTTP", data)
        cut = self.hostile.rnd.randrange(len(data)) if self.hostile.chance(4) else len(data)
        with self._connection(self.target.known.host) as sock:
            leaves = self.hostile.chance(10)
            try:
                sock.sendall(data[:cut])
                if cut < len(data):
                    with self._connection(self.target.known.host) as other:
                        other.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
                        self._judge_http(self._answer(other), True)
                    if leaves:
                        return
                    sock.sendall(data[cut:])
                if not request.whole:
                    sock.shutdown(socket.SHUT_WR)
            except OSError:  # it was refused before its end, as it may be
                if request.whole and len(data) < 10_000:
                    raise self.trouble("the node closed the connection in the middle of a good request") from None
            self._judge_http(self._answer(sock), request.whole)

    def http2(self) -> None:
        """Send to the gRPC port what is not gRPC."""
        data = self.hostile.http2()
        self._note("HTTP/2", data)
        with self._connection(self.target.node.endpoint) as sock, contextlib.suppress(OSError):
            sock.sendall(data)
            if self.hostile.chance(2):
                sock.recv(100)

    def _connection(self, address: str) -> Any:
        host, _, port = address.rpartition(":")
        return contextlib.closing(socket.create_connection((host, int(port)), LIMIT))

    def _answer(self, sock: socket.socket) -> bytes:
        """Return the answer, or what there is of it."""
        data = b""
        try:
            for piece in iter(lambda: sock.recv(1 << 16), b""):
                data += piece
        except socket.timeout:
            raise self.trouble("an HTTP request was not answered") from None
        except OSError:  # reset, since something of the request was not read
            pass
        return data

    def _judge_http(self, answer: bytes, whole: bool) -> None:
        status = answer.split(b" ", 2)[1].decode("ascii", "replace") if answer.startswith(b"HTTP/1.") else ""
        self.endings[f"HTTP {status or 'closed'}"] += 1
        if (whole and not status) or status == "500":
            raise self.trouble(f"the answer to an HTTP request is {answer[:200]!r}")

    # judgement

    def _note(self, what: str, *requests: bytes) -> None:
        shown = [f"{request[:150]!r} of {len(request)} bytes" for request in requests[:10]]
        self.trace.append(f"{what}: {' | '.join(shown)}")

    def _judge(self, what: str, status: Tuple[str, str]) -> None:
        code, details = status
        self.endings[code] += 1
        if code in ENDINGS or (code == "INTERNAL" and details in INTERNAL):
            return
        raise self.trouble(f"{what} ended with {code} {details[:300]}")

    def trouble(self, text: str) -> Trouble:
        """Return the error that tells what was sent and what the node wrote."""
        last = "\n".join(self.trace)
        return Trouble(f"{text}\nthe node wrote: {self.target.noted[-3000:]}\nlast sent, the latest last:\n{last}")


def run_round(target: Target, seed: str, steps: int) -> Counter[str]:
    """Fuzz a node that is as new for so many steps, then see how it is; returns how often a call ended how.

    Raises:
        Trouble: It was not as it should be.
    """
    try:
        with Fuzzer(target, random.Random(seed)) as fuzzer:
            for _ in range(steps):
                fuzzer.step()
                if target.noted:
                    raise fuzzer.trouble("the node complained")
        target.check()
        target.settle()
        target.renew()
        target.settle()
        if target.noted:
            raise fuzzer.trouble("the node complained")
    except Exception as error:
        raise Trouble(f"in the round {seed}: {type(error).__name__}: {error}") from error
    return fuzzer.endings


# the program


class _Worker:
    """Fuzzes one node in a process of its own, round after round."""

    def __init__(self, strict: bool, seed: str, until: float, steps: int, first: int) -> None:
        self.name = "strict" if strict else "friendly"
        self._seed, self._until, self._steps, self._first = seed, until, steps, first
        self._target = Target(strict, process=True)
        self.endings: Counter[str] = collections.Counter()
        self.sizes: List[Size] = []
        self.rounds = 0
        self.trouble: Optional[BaseException] = None

    def run(self) -> None:
        """Go on until the time is over, or something is wrong."""
        try:
            with self._target as target:
                self.sizes.append(Size.of(target.node.pid))
                while time.monotonic() < self._until or not self.rounds:
                    seed = f"{self._seed}-{self.name}-{self._first + self.rounds}"
                    self.endings.update(run_round(target, seed, self._steps))
                    self.sizes.append(Size.of(target.node.pid))
                    self.rounds += 1
        except Exception as error:
            self.trouble = error

    def report(self) -> str:
        """Tell what came of it."""
        endings = dict(self.endings.most_common())
        lines = [f"{self.name}: {self.rounds} rounds, {sum(endings.values())} endings: {endings}"]
        for at in sorted({0, 1, *(len(self.sizes) * part // 8 for part in range(8)), len(self.sizes) - 1}):
            if 0 <= at < len(self.sizes):
                memory, threads, files = self.sizes[at]
                lines.append(f"  after {at:4d} rounds: {memory:7.1f} MiB, {threads} threads, {files} files")
        return "\n".join(lines)


def growth(sizes: List[Size]) -> Tuple[Size, Size]:
    """Return the medians of the second quarter of some sizes, when a node is warm, and of the last quarter."""

    def median(part: List[Size]) -> Size:
        return Size(*(sorted(column)[len(column) // 2] for column in zip(*part)))

    quarter = max(1, len(sizes) // 4)
    return median(sizes[quarter : 2 * quarter] or sizes), median(sizes[-quarter:])


def main(argv: Optional[List[str]] = None) -> int:
    """Fuzz for some seconds; returns 1 if there was trouble."""
    parser = argparse.ArgumentParser(prog="python -m tests.node.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", default=str(random.randrange(10**9)), help="what decides everything that is sent")
    parser.add_argument("--kind", choices=("strict", "friendly", "both"), default="both")
    parser.add_argument("--steps", type=int, default=150, help="what is sent in one round")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round, to repeat one")
    args = parser.parse_args(argv)
    print(f"seed {args.seed}, Python {sys.version.split()[0]}, grpcio {grpc.__version__}", flush=True)
    until = time.monotonic() + args.seconds
    kinds = [kind for kind in ("strict", "friendly") if args.kind in (kind, "both")]
    workers = [_Worker(kind == "strict", args.seed, until, args.steps, args.first) for kind in kinds]
    threads = [threading.Thread(target=worker.run, name=worker.name) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results: Dict[str, bool] = {}
    for worker in workers:
        print(worker.report(), flush=True)
        if worker.trouble is not None:
            print(f"TROUBLE: {worker.trouble}")
        results[worker.name] = worker.trouble is None
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
