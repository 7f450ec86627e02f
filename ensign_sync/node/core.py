"""What every call of a node needs: the log, the broker, who is who, and a pool for what takes time."""

import abc
import logging
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..handover.clock import Deadline
from ..ids import RLID, ULID
from ..wire.codec import BadMessage
from .auth import AuthService
from .book import Book
from .broker import Broker
from .claims import InvalidToken
from .clock import NodeClock
from .fault_state import FaultState
from .gather import Gatherer
from .groups import Groups
from .pool import DaemonPool
from .rpc import Call, Handler, Refused
from .storage import Log
from .timer import Timer

logger = logging.getLogger("ensign_sync.node")

NO_REQUEST = "the call carried no request"
DENIED = "not authorized to perform this action"

#: Threads for what takes time: single calls, and queries while they have something to read and somebody who takes it.
MOST_WORKERS = 16

#: Answers of subscribers that are remembered for tests.
_REMEMBERED = 100_000

#: A single call: takes the request and the call, returns the reply; raises Refused.
Answer = Callable[[bytes, Call], bytes]


class Caller(NamedTuple):
    """Who makes a call: the claims of the token, and the project in them."""

    subject: str
    permissions: Sequence[str]
    project: bytes


class StreamInfo(NamedTuple):
    """An open stream, for who looks at the node."""

    kind: str
    peer: str
    client_id: str
    user_agent: str
    opened: float
    topics: Sequence[str]


class OpenStream(Handler):
    """A call that stays open until somebody ends it.

    Attributes:
        kind: ``publish`` or ``subscribe``; empty for one that carries no events.
    """

    kind = ""

    @abc.abstractmethod
    def finish(self) -> None:
        """End well, since the node stops or was told to."""

    def info(self) -> StreamInfo:
        """Describe the stream."""
        return StreamInfo(self.kind, "", "", "", 0.0, ())


class Core:
    """What every call needs.

    Attributes:
        acks_sent: How many acks and nacks were sent to publishers.
        answers: What subscribers answered lately: ids of events, with the code of a nack or None for an ack.
        in_maintenance: Refuses everything but Status and health checks while it is set.
    """

    def __init__(
        self,
        log: Log,
        auth: AuthService,
        clock: NodeClock,
        faults: FaultState,
        strict: bool,
        on_stored: Callable[[], None],
        node_id: str = "",
    ) -> None:
        """Start; ``on_stored`` is called after each transaction."""
        self.log, self.auth, self.clock, self.faults = log, auth, clock, faults
        self.strict, self.node_id = strict, node_id
        self.book = Book(log)
        self.groups = Groups(log)
        self.timer = Timer()
        self._on_stored = on_stored
        self.broker = Broker(log, self.book, clock, faults, strict, self._stored)
        self.gatherer = Gatherer(log)
        self.pool = DaemonPool(MOST_WORKERS)
        self.started = time.monotonic()
        self.acks_sent = 0
        self.answers: Deque[Tuple[RLID, Optional[int]]] = deque(maxlen=_REMEMBERED)
        self.in_maintenance = False
        self._lock = threading.Lock()
        self._streams: Set[OpenStream] = set()
        self._ending = False

    def topic_ids(self, project: bytes) -> Dict[str, bytes]:
        """Return the topics of a project, name to id."""
        return {topic.name: topic.id for topic in self.log.topics(project)}

    # streams

    def add_stream(self, stream: OpenStream) -> None:
        """Count a stream among the open ones."""
        with self._lock:
            if self._ending:
                raise Refused("UNAVAILABLE", "the node is about to stop")
            self._streams.add(stream)

    def remove_stream(self, stream: OpenStream) -> None:
        """A stream has ended."""
        with self._lock:
            self._streams.discard(stream)

    def streams(self) -> List[StreamInfo]:
        """Describe the open publish and subscribe streams."""
        with self._lock:
            return [stream.info() for stream in self._streams if stream.kind]

    def end_streams(self) -> int:
        """End the open publish and subscribe streams well: what is due is sent first. Returns how many there were."""
        with self._lock:
            streams = [stream for stream in self._streams if stream.kind]
        for stream in streams:
            stream.finish()
        return len(streams)

    def end(self) -> None:
        """End the open streams, and take no new ones."""
        with self._lock:
            self._ending = True
            streams = list(self._streams)
        for stream in streams:
            stream.finish()

    def note_answer(self, id: bytes, code: Optional[int]) -> None:
        """A subscriber acknowledged an event, or with a code refused it."""
        if len(id) == RLID.size:
            self.answers.append((RLID(id), code))

    def close(self, deadline: Deadline) -> None:
        """Store what was handed in, and end all threads; the server must have stopped."""
        self.broker.close(deadline)
        self.groups.close(deadline)
        self.timer.close(deadline)
        self.pool.shutdown()

    def _stored(self, topics: Set[int]) -> None:
        self.groups.wake()
        self._on_stored()

    # who may

    def caller(self, call: Call, *any_of: str, needs_project: bool = True) -> Caller:
        """Return who calls: a token is needed, with one of these permissions and a project; else raises Refused."""
        claims = self.claims(call)
        permissions = [str(p) for p in claims.get("permissions") or ()]
        try:
            project = ULID(str(claims.get("project", ""))).bytes
        except ValueError:
            project = b""
        nowhere = needs_project and not project.strip(b"\0")
        if (any_of and not any(wanted in permissions for wanted in any_of)) or nowhere:
            raise Refused("PERMISSION_DENIED", DENIED)
        return Caller(str(claims.get("sub", "")), permissions, project)

    def claims(self, call: Call) -> Dict[str, Any]:
        """Return the claims of the first good token of a call; else raises Refused."""
        given = [value for key, value in call.metadata if key == "authorization"]
        for value in given:
            if value.startswith("Bearer "):
                try:
                    return self.auth.check(value[len("Bearer ") :])
                except InvalidToken:
                    continue
        raise Refused("UNAUTHENTICATED", "invalid credentials" if given else "missing credentials")

    def unreadable(self) -> Refused:
        """Return the answer to a request that is no message: a gRPC server calls it its own fault."""
        return self.fault("grpc: error unmarshalling request")

    def fault(self, details: str) -> Refused:
        """Return the answer where the real server says INTERNAL to a bad request."""
        return Refused("INTERNAL" if self.strict else "INVALID_ARGUMENT", details)


class SingleCall(Handler):
    """A call of one request and one reply, answered by a thread of the pool."""

    def __init__(self, core: Core, call: Call, answer: Answer) -> None:
        self._core = core
        self._call = call
        self._answer = answer

    def received(self, data: bytes) -> bool:
        """Have the request answered."""
        self._core.pool.submit(guarded, self._core, self._call, lambda: self._run(data))
        return False

    def half_closed(self) -> None:
        """There was no request at all."""
        self._call.finish("INTERNAL", NO_REQUEST)

    def _run(self, data: bytes) -> None:
        self._call.send(self._answer(data, self._call))
        self._call.finish()


def guarded(core: Core, call: Call, work: Callable[[], None]) -> None:
    """Do the work of a call on a thread of the pool; whatever it raises ends the call."""
    try:
        work()
    except Refused as error:
        call.finish(error.code, error.details)
    except BadMessage:
        refusal = core.unreadable()
        call.finish(refusal.code, refusal.details)
    except Exception:
        logger.exception("a call of %s failed", call.method)
        call.finish("INTERNAL", "an unhandled exception occurred")
