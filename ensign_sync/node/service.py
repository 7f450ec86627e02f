"""The gRPC service of a node: who may call, the two streams, and queries (docs/protocol.rst)."""

import contextlib
import logging
import queue
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

import grpc

from .. import ensql
from ..exceptions import InvalidQueryError
from ..handover.spawn import spawn
from ..ids import ULID
from ..nack import INTERNAL, TOPIC_DELETED
from ..status import Duration, ServerStatus
from ..times import Instant
from ..version import __version__
from ..wire import codec, methods, records
from .auth import AuthService
from .broker import Broker, Incoming, Mailbox
from .claims import InvalidToken
from .gather import Gatherer
from .sessions import End, Listen, PublisherSession, Reply, Store, SubscriberSession
from .storage import Log, StoredTopic

logger = logging.getLogger("ensign_sync.node")

VERSION = f"{__version__} (ensign-sync node)"
DENIED = "not authorized to perform this action"
HEALTHY, SERVING, SERVICE_UNKNOWN = 1, 1, 3

#: How long a publish stream that the client half-closed is kept for the commits that are due, in seconds.
_LAST_COMMITS = 30.0


class Caller(NamedTuple):
    """Who makes a call: the claims of the token, and the project in them."""

    subject: str
    permissions: Sequence[str]
    project: bytes


class Service:
    """What every call needs: the log, the broker, and who is who."""

    def __init__(self, log: Log, broker: Broker, auth: AuthService, node_id: str = "") -> None:
        self.log = log
        self.broker = broker
        self.auth = auth
        self.node_id = node_id
        self.gatherer = Gatherer(log)
        self.started = time.monotonic()
        self._ending = threading.Event()
        self._streams: Set[Callable[[], None]] = set()  # what ends each open stream

    def handlers(self) -> List[grpc.GenericRpcHandler]:
        """Return the handlers of all calls, for bytes."""
        from .topics import TopicService

        topics = TopicService(self)
        unary = {
            **topics.handlers(),
            methods.STATUS: self.status,
            methods.EXPLAIN: self.explain,
        }
        ours: Dict[str, Any] = {
            method.name: grpc.unary_unary_rpc_method_handler(_guarded(handler)) for method, handler in unary.items()
        }
        ours[methods.PUBLISH.name] = grpc.stream_stream_rpc_method_handler(self.publish)
        ours[methods.SUBSCRIBE.name] = grpc.stream_stream_rpc_method_handler(self.subscribe)
        ours[methods.ENSQL.name] = grpc.unary_stream_rpc_method_handler(self.query)
        health = {
            methods.HEALTH_CHECK.name: grpc.unary_unary_rpc_method_handler(_guarded(self.health)),
            methods.HEALTH_WATCH.name: grpc.unary_stream_rpc_method_handler(self.watch_health),
        }
        return [
            grpc.method_handlers_generic_handler(methods.SERVICE, ours),
            grpc.method_handlers_generic_handler(methods.HEALTH_SERVICE, health),
        ]

    def end(self) -> None:
        """End the open streams well: what is due to publishers is sent first."""
        self._ending.set()
        for finish in list(self._streams):
            finish()

    @contextlib.contextmanager
    def open_stream(self, finish: Callable[[], None]) -> Iterator[None]:
        """Count a stream among the open ones for as long as a block lasts."""
        self._streams.add(finish)
        try:
            if self._ending.is_set():
                finish()
            yield
        finally:
            self._streams.discard(finish)

    # who may

    def caller(self, context: Any, *any_of: str) -> Caller:
        """Return who calls, or end the call: a token is needed, with one of these permissions and a project."""
        claims = self._claims(context)
        permissions = [str(p) for p in claims.get("permissions") or ()]
        try:
            project = ULID(str(claims.get("project", ""))).bytes
        except ValueError:
            project = b""
        if (any_of and not any(wanted in permissions for wanted in any_of)) or not project.strip(b"\0"):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, DENIED)
        return Caller(str(claims.get("sub", "")), permissions, project)

    def _claims(self, context: Any) -> Dict[str, Any]:
        given = [str(value) for key, value in context.invocation_metadata() if key == "authorization"]
        for value in given:
            if value.startswith("Bearer "):
                try:
                    return self.auth.check(value[len("Bearer ") :])
                except InvalidToken:
                    continue
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid credentials" if given else "missing credentials")
        raise AssertionError("unreachable: abort raises")

    # single calls

    def status(self, _: bytes, context: Any) -> bytes:
        """Answer Status; needs no token."""
        up = time.monotonic() - self.started
        now = time.time_ns()
        uptime = Duration(int(up), int(up % 1 * 1e9))
        soon, later = now + 60_000_000_000, now + 3_600_000_000_000
        return records.status_reply(
            ServerStatus(HEALTHY, VERSION, uptime, Instant.from_ns(soon), Instant.from_ns(later))
        )

    def explain(self, _: bytes, context: Any) -> bytes:
        """Refuse Explain, as the real server does."""
        self.caller(context, "subscriber")
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "explain query is not implemented yet")
        raise AssertionError("unreachable: abort raises")

    def health(self, request: bytes, context: Any) -> bytes:
        """Answer the health check of load balancers; needs no token."""
        return records.health_reply(SERVING if records.health_request(request) == "" else 0)

    def watch_health(self, request: bytes, context: Any) -> Iterator[bytes]:
        """Tell the health now and when it changes, which it does not before the end."""
        yield records.health_reply(SERVING if records.health_request(request) == "" else SERVICE_UNKNOWN)
        gone = threading.Event()
        context.add_callback(gone.set)
        while not gone.is_set() and not self._ending.is_set():
            gone.wait(0.5)

    # queries

    def query(self, request: bytes, context: Any) -> Iterator[bytes]:
        """Answer EnSQL: a slice of a topic's log as it is now, in order."""
        caller = self.caller(context, "subscriber", "topics:read")
        parsed = self._parsed(request, context)
        if parsed is None:
            return
        topic = next((t for t in self.log.topics(caller.project) if t.name == parsed.topic), None)
        if topic is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unknown topic in query")
            return
        for sent, event in enumerate(self.log.read(topic.number, parsed.offset or 0), start=1):
            yield event.wrapper
            # After the row, as the real server does: LIMIT 0 returns one.
            if parsed.limit is not None and sent >= parsed.limit:
                return

    def _parsed(self, request: bytes, context: Any) -> Optional[ensql.Query]:
        """Return the query; None where the real server's parser panics and the call ends OK."""
        text, _ = _decoded(records.query_request, request, context)
        try:
            if not text:
                raise InvalidQueryError("invalid query")
            return ensql.parse(text)
        except ensql.ParserPanic:
            return None
        except InvalidQueryError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.details)
            return None

    # streams

    def publish(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Serve a publish stream: this thread sends the replies, another reads the requests."""
        caller = self.caller(context, "publisher")
        stream = _PublishStream(self, caller, context)
        return stream.replies(requests)

    def subscribe(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Serve a subscribe stream: this thread sends the events, another reads acks and nacks."""
        caller = self.caller(context, "subscriber")
        session = SubscriberSession(self.topic_ids(caller.project), self.node_id)
        _apply_ends(session.opening(), context)
        first = next(requests, None)
        if first is None:
            return
        actions = session.receive(_decoded(codec.decode_subscribe_request, first, context))
        _apply_ends(actions, context)
        topics = next(action.topics for action in actions if isinstance(action, Listen))
        mailbox = Mailbox(topics.values())
        # Registered before Ready goes out, so what is published after Ready arrives.
        self.broker.subscribe(mailbox)
        try:
            if not context.add_callback(mailbox.end):
                return
            spawn("node-reader", _read_answers, requests, session)
            with self.open_stream(mailbox.end):
                yield codec.encode_subscribe_ready(next(a.frame for a in actions if isinstance(a, Reply)))
                while True:
                    event = mailbox.take()
                    if event is None:
                        return
                    yield codec.encode_live(event.wrapper, event.committed_ns)
        finally:
            self.broker.unsubscribe(mailbox)

    def topic_ids(self, project: bytes) -> Dict[str, bytes]:
        """Return the topics of a project, name to id."""
        return {topic.name: topic.id for topic in self.log.topics(project)}

    def topics_by_id(self, project: bytes) -> Dict[bytes, StoredTopic]:
        """Return the topics of a project by id."""
        return {topic.id: topic for topic in self.log.topics(project)}


class _PublishStream:
    """A publish stream in service: its session, and the replies on their way."""

    _END = object()

    def __init__(self, service: Service, caller: Caller, context: Any) -> None:
        self._service = service
        self._context = context
        self._by_id = service.topics_by_id(caller.project)
        self._session = PublisherSession(
            {topic.name: topic.id for topic in self._by_id.values()}, caller.subject, service.node_id
        )
        self._caller = caller
        self._publisher = b""
        self._replies: Any = queue.SimpleQueue()
        # Guards the counts below and the session, which the reading thread and the writer of the log both touch.
        self._lock = threading.Lock()
        self._due = 0
        self._finishing = False
        self._settled = threading.Condition(self._lock)

    def replies(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the replies until the stream ends."""
        _apply_ends(self._session.opening(), self._context)
        if not self._context.add_callback(lambda: self._replies.put(self._END)):
            return
        spawn("node-reader", self._read, requests)
        with self._service.open_stream(self._finish):
            while True:
                reply = self._replies.get()
                if reply is self._END:
                    return
                if isinstance(reply, End):
                    self._context.abort(getattr(grpc.StatusCode, reply.code), reply.details)
                yield codec.encode_publisher_reply(reply)

    def _finish(self) -> None:
        """The node stops: take nothing more in, and end the stream when nothing is due any more."""
        with self._lock:
            self._finishing = True
            if self._due == 0:
                self._say_farewell()

    def _say_farewell(self) -> None:
        """Put the last message and the end behind what is on its way. Needs the lock."""
        if self._session.open:
            self._replies.put(self._session.farewell())
        self._replies.put(self._END)

    def _read(self, requests: Iterator[bytes]) -> None:
        """Take the requests, on a thread of its own, until the client half-closes or is gone."""
        try:
            for data in requests:
                if not self._take(data):
                    return
        except Exception:  # grpcio raises a bare Exception when the client is gone
            self._replies.put(self._END)
            return
        with self._settled:
            self._settled.wait_for(lambda: self._due == 0, _LAST_COMMITS)
            self._say_farewell()

    def _take(self, data: bytes) -> bool:
        try:
            frame = codec.decode_publisher_request(data)
        except Exception:
            self._replies.put(End("INTERNAL", "grpc: error unmarshalling request"))
            return False
        with self._lock:
            if self._finishing:
                return False
            actions = self._session.receive(frame)
        if self._session.open and not self._publisher:
            self._publisher = self._who()
        for action in actions:
            if isinstance(action, Store):
                self._store(action.wrapper)
            elif isinstance(action, End):
                self._replies.put(action)
                return False
            else:
                self._replies.put(action.frame)
        return True

    def _who(self) -> bytes:
        agents = [str(value) for key, value in self._context.invocation_metadata() if key == "user-agent"]
        peer = str(self._context.peer()).partition(":")[2]
        return codec.encode_publisher(self._caller.subject, peer, self._session.client_id, ",".join(agents))

    def _store(self, wrapper: codec.Wrapper) -> None:
        local_id = wrapper.local_id
        topic = self._by_id[wrapper.topic_id]
        with self._lock:
            self._due += 1
        publisher = self._publisher
        self._service.broker.publish(
            Incoming(
                topic.number,
                topic.id,
                len(wrapper.payload),
                lambda id: wrapper.stored(id, publisher),
                lambda outcome: self._done(local_id, outcome),
            )
        )

    def _done(self, local_id: bytes, outcome: Any) -> None:
        with self._settled:
            self._due -= 1
            if isinstance(outcome, int):
                reply = self._session.committed(local_id, outcome)
            elif isinstance(outcome, KeyError):
                reply = self._session.refused(local_id, TOPIC_DELETED)
            else:
                logger.error("an event could not be stored: %s", outcome)
                reply = self._session.refused(local_id, INTERNAL)
            self._replies.put(reply.frame)
            if self._due == 0:
                self._settled.notify_all()
                if self._finishing:
                    self._say_farewell()


def _read_answers(requests: Iterator[bytes], session: SubscriberSession) -> None:
    try:
        for data in requests:
            session.receive(codec.decode_subscribe_request(data))
    except Exception:  # the client is gone, or sends what is no message: the events go on, as on the real server
        return


def _apply_ends(actions: Sequence[Any], context: Any) -> None:
    for action in actions:
        if isinstance(action, End):
            context.abort(getattr(grpc.StatusCode, action.code), action.details)


def _decoded(decode: Callable[[bytes], Any], data: bytes, context: Any) -> Any:
    try:
        return decode(data)
    except Exception:
        context.abort(grpc.StatusCode.INTERNAL, "grpc: error unmarshalling request")
        raise AssertionError("unreachable: abort raises") from None


def _guarded(handler: Callable[[bytes, Any], bytes]) -> Callable[[bytes, Any], bytes]:
    """Answer a request that is no message as a gRPC server does, wherever its decoding stands."""

    def call(request: bytes, context: Any) -> bytes:
        try:
            return handler(request, context)
        except records.BadMessage:
            context.abort(grpc.StatusCode.INTERNAL, "grpc: error unmarshalling request")
            raise AssertionError("unreachable: abort raises") from None

    return call
