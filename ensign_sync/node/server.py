"""A node: the gRPC service and the auth service over one log, for programs and tests."""

import contextlib
import json
import logging
import os
import secrets
import threading
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple, Union

from ..events import Event
from ..exceptions import EnsignTimeoutError, NodeError
from ..handover.clock import Deadline
from ..ids import RLID, ULID
from ..settings import TLS, Credentials
from ..wire.codec import decode_event, decode_row
from . import claims
from .auth import AuthService
from .claims import Key, Lifetimes, Signer
from .clock import NodeClock
from .fault_state import FaultState
from .faults import Faults, Patient
from .keys import PERMISSIONS, KeyBook
from .life import Life, Plan
from .look import is_loopback, look_at, own_names, reachable
from .page import Page
from .relay import Relay
from .rest import RateLimit
from .retention import Retention
from .storage import Log, StoredTopic

logger = logging.getLogger("ensign_sync.node")

#: Calls served at once; a stream is a call for as long as it is open. Beyond it: RESOURCE_EXHAUSTED.
MOST_CALLS = 1000

_memory_signer: Optional[Signer] = None
_signer_lock = threading.Lock()


class Node(Patient):
    """An Ensign node in this process. Ready when it is made; a context manager that stops it. Any thread may call it.

    Attributes:
        endpoint: Where clients connect, ``host:port``.
        auth_url: Where they authenticate.
        client_id, client_secret: An API key with every permission.
        faults: What can be done to clients, see ``Faults``.
        token_clock: The clock by which tokens expire; ``token_clock.advance(3600)`` makes an hour pass for them.
        pid: The process that it runs in.
    """

    def __new__(cls, *args: Any, process: bool = False, **options: Any) -> "Node":
        """Make a node; with ``process`` one that runs in a process of its own."""
        if process and cls is Node:
            from .process import ProcessNode

            cls = ProcessNode
        made: Node = super().__new__(cls)
        return made

    def __init__(
        self,
        path: str = ":memory:",
        host: str = "127.0.0.1",
        port: int = 0,
        auth_port: int = 0,
        topics: Iterable[str] = (),
        strict: bool = True,
        faults: Optional[bool] = None,
        access_duration: float = 3600.0,
        refresh_duration: float = 7200.0,
        *,
        process: bool = False,
        tls: Optional[Tuple[str, str]] = None,
        retain: Union[str, Retention, None] = None,
        rate_limit: Union[bool, RateLimit] = False,
        registration: Optional[bool] = None,
        keep_ports: bool = False,
        page: bool = False,
        durable: bool = True,
    ) -> None:
        """Start a node.

        Args:
            path: A data file, made if need be, or ``:memory:``.
            host, port, auth_port: Where to listen; port 0 takes a free one.
            topics: Topics to make unless they exist.
            strict: Behave as the real server does, quirks included; else friendlier, see docs/node.rst.
            faults: Whether a relay stands before the gRPC port, which the faults of the network need; None means with
                ``strict``. It costs some speed.
            access_duration, refresh_duration: Lifetimes of tokens in seconds.
            process: Run in a process of its own, for programs that fork; everything here works on it too.
            tls: The files of a certificate and its key (PEM); both ports then speak TLS.
            retain: How much is kept, as ``"7d"`` or ``"500MB"``; None keeps everything.
            rate_limit: Refuse who asks for tokens too often, as the real auth service does, or by a limit of its own.
            registration: Whether strangers may register as users by REST; None means with ``strict``.
            keep_ports: With port 0, take the ports that the data file remembers.
            page: Serve the page that shows what the node holds, at ``page_url``.
            durable: Whether an ack waits until the disk has the event; without, it survives the process only.

        Raises:
            NodeStorageError: The data file cannot be used.
            NodeError: A port is taken, or a TLS file cannot be read.
            ValueError: A topic's name breaks the rules, or ``retain`` is no age or size.
        """
        self.pid = os.getpid()
        self.strict = strict
        self._topics = tuple(topics)
        self._host = host
        self._tls = tls
        retention = Retention.parse(retain) if isinstance(retain, str) else retain
        limit = (RateLimit() if rate_limit else None) if isinstance(rate_limit, bool) else rate_limit
        self._plan = Plan(
            host, strict, tls, retention, limit, strict if registration is None else registration, MOST_CALLS
        )
        self._clock = NodeClock()
        self._fault_state = FaultState()
        self.faults = Faults(self, self._fault_state)
        self._changed = threading.Condition(threading.Lock())
        self._switching = threading.RLock()  # one at a time starts, kills or stops
        self._life: Optional[Life] = None
        self._stopped = False
        self.relay: Optional[Relay] = None
        with contextlib.ExitStack() as undo:
            self._log = Log(path, durable)
            undo.callback(self._log.close)
            self._keys = KeyBook(self._log)
            self.client_id, self.client_secret = self._keys.own.client_id, self._keys.own_secret
            self._project = ULID(self._keys.own.project).bytes
            lifetimes = Lifetimes(access_duration, refresh_duration, min(900.0, access_duration / 4))
            self._auth = AuthService(self._keys, lambda: _signer(self._log), lifetimes)
            self._page_token = secrets.token_urlsafe(24) if page else ""
            look = look_at(lambda: self._living.service, self._project, path)
            self._page = Page(look, self._page_token, self._hosts) if page else None
            kept = self._kept_ports() if keep_ports else (0, 0)
            try:
                self._start((port or kept[0], auth_port or kept[1]), strict if faults is None else faults, undo)
            except NodeError:
                if (port or kept[0], auth_port or kept[1]) == (port, auth_port):
                    raise
                logger.warning("the ports of the last time (%d and %d) are taken: using others", *kept)
                self._start((port, auth_port), strict if faults is None else faults, undo)
            self.ensure_topics(self._topics)
            undo.pop_all()
        if keep_ports:
            self._log.keep("ports", json.dumps([self._port, self._living.auth_port]).encode("ascii"))
        self.token_clock = self._auth.clock
        if not is_loopback(host) and tls is None:
            logger.warning(
                "the node listens on %s without TLS: whoever can see the traffic reads every event, token and secret."
                " Give a certificate and its key, or listen on 127.0.0.1",
                host,
            )

    def _start(self, ports: Tuple[int, int], faults: bool, undo: contextlib.ExitStack) -> None:
        if faults:
            self.relay = Relay(self._host, ports[0], ("127.0.0.1", 1))
            undo.callback(self._close_relay)
        try:
            self._life = self._begin(ports)
        except BaseException:
            self._close_relay()
            raise
        undo.callback(lambda: self._living.stop(0.0, Deadline(2.0)))
        self._port = self.relay.port if self.relay is not None else self._life.port
        here = reachable(self._host)
        self.endpoint = f"{here}:{self._port}"
        self.auth_url = f"{'http' if self._tls is None else 'https'}://{here}:{self._life.auth_port}"

    def _begin(self, ports: Tuple[int, int]) -> Life:
        faults = self._fault_state
        return Life(
            self._plan, self._log, self._auth, self._clock, faults, ports, self.relay, self._page, self._notify
        )

    def _close_relay(self) -> None:
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.close(Deadline(2.0))

    @property
    def _living(self) -> Life:
        if self._life is None:
            raise NodeError("the node is stopped" if self._stopped else "the node was killed: restart() starts it")
        return self._life

    # what a program needs

    def env(self) -> Dict[str, str]:
        """Return the environment variables that make a client connect here."""
        return {
            "ENSIGN_CLIENT_ID": self.client_id,
            "ENSIGN_CLIENT_SECRET": self.client_secret,
            "ENSIGN_ENDPOINT": self.endpoint,
            "ENSIGN_INSECURE": "true" if self._tls is None else "false",
            "ENSIGN_AUTH_URL": self.auth_url,
            "ENSIGN_NO_AUTHENTICATION": "false",
        }

    def client(self, **options: Any) -> Any:
        """Return a client of this node; ``options`` are those of ``Ensign``. The caller closes it."""
        from ..client import Ensign

        given: Dict[str, Any] = {"endpoint": self.endpoint, "insecure": True, "auth_url": self.auth_url}
        if self._tls is not None:
            given.update(insecure=False, tls=TLS(ca_file=self._tls[0]))
        key = Credentials(options.pop("client_id", self.client_id), options.pop("client_secret", self.client_secret))
        made = Ensign(*key, **{**given, **options})
        # Whatever the environment says: this node wants a token.
        made._settings = made._settings._replace(credentials=key)
        return made

    @property
    def page_url(self) -> str:
        """The address of the page, token included; empty if there is none."""
        return f"{self.auth_url}/?token={self._page_token}" if self._page_token else ""

    def ensure_topics(self, names: Iterable[str]) -> None:
        """Make topics unless they exist; ValueError if a name breaks the rules."""
        for name in names:
            self._living.service.topics.add(name, self._project)

    def create_project(self) -> str:
        """Make a project, with topics of its own; returns its id, for ``create_api_key``."""
        return self._keys.add_project(self._keys.own.organization).id

    def create_api_key(
        self, permissions: Iterable[str] = PERMISSIONS, project: str = "", name: str = ""
    ) -> Credentials:
        """Make an API key, in a project or in the node's own; its secret is kept as a hash only.

        Raises:
            ValueError: A permission or the project does not exist.
        """
        wanted = tuple(permissions)
        unknown = [p for p in wanted if p not in PERMISSIONS]
        if unknown:
            raise ValueError(f"unknown permissions {', '.join(map(repr, unknown))}; there are {', '.join(PERMISSIONS)}")
        found = self._keys.project(project or self._keys.own.project)
        if found is None:
            raise ValueError(f"the node has no project {project!r}; create_project() makes one and returns its id")
        key, secret = self._keys.add_key(found.id, found.organization, wanted, name)
        return Credentials(key.client_id, secret)

    # what a test looks at

    def events(self, topic: str) -> List[Event]:
        """Return the events of a topic as they are stored; KeyError if there is no such topic."""
        return [decode_event(decode_row(row.wrapper), topic) for row in self._log.read(self._stored(topic).number)]

    def wait_for(self, topic: str, n: int, timeout: float = 10.0) -> List[Event]:
        """Wait until a topic has at least n events, and return them.

        Raises:
            EnsignTimeoutError: There are fewer after ``timeout`` seconds; it says how many.
        """
        deadline = Deadline(timeout)
        with self._changed:
            while True:
                extent = self._log.extent(self._stored(topic).number)
                if extent.end - extent.first >= n:
                    break
                if deadline.passed:
                    there = extent.end - extent.first
                    raise EnsignTimeoutError(f"topic {topic} has {there} of {n} events after {timeout:g} seconds")
                self._changed.wait(deadline.remaining())
        return self.events(topic)

    def topic_names(self) -> List[str]:
        """Return the names of the topics."""
        return sorted(topic.name for topic in self._log.topics(self._project))

    @property
    def acks(self) -> List[RLID]:
        """The ids of the events that subscribers acknowledged, in their order (the last 100,000 answers count)."""
        return [id for id, code in list(self._living.service.answers) if code is None]

    @property
    def nacks(self) -> List[Tuple[RLID, int]]:
        """The ids of the events that subscribers refused, with the codes."""
        return [(id, code) for id, code in list(self._living.service.answers) if code is not None]

    @property
    def acks_sent(self) -> int:
        """How many acks and nacks publishers were sent."""
        return self._living.service.acks_sent

    @property
    def connections(self) -> int:
        """How many connections to the gRPC port are open; without a relay, how many clients have a stream open."""
        if self.relay is not None:
            return self.relay.connections
        return len({stream.peer for stream in self._living.service.streams()})

    @property
    def streams(self) -> int:
        """How many publish and subscribe streams are open."""
        return len(self._living.service.streams())

    @property
    def tokens_issued(self) -> int:
        """How many pairs of tokens were issued."""
        return self._auth.issued

    @property
    def maintenance(self) -> bool:
        """Whether the node refuses everything but Status and health checks; may be set."""
        return self._living.service.in_maintenance

    @maintenance.setter
    def maintenance(self, on: bool) -> None:
        self._living.service.in_maintenance = on

    # life

    def reset(self) -> None:
        """Be as new: only the topics that the node was made with, no events, no faults, no other keys.

        Open streams end; clients connect again by themselves. For a fixture that shares one node among tests.
        """
        service = self._living.service
        service.end_streams()
        self.faults.clear()
        self._log.clear()
        self._keys.reset()
        service.groups.reset()
        service.gatherer.forget()
        service.book.forget()
        service.answers.clear()
        service.acks_sent = 0
        self._auth.issued = 0
        self.ensure_topics(self._topics)

    def restart(self, grace: float = 0.0) -> None:
        """Stop and start again on the same ports with the same data, also after ``faults.kill()``."""
        with self._switching:
            if self._stopped:
                raise NodeError("the node is stopped; make another one")
            if self._life is not None:
                auth_port = self._life.auth_port
                self._hide()
                self._life.stop(max(grace, 0.5), Deadline(5.0 + grace))
                self._life = None
            else:
                auth_port = self._auth_port
            self._life = self._begin((self._port, auth_port))
            if self.relay is not None:
                self.relay.heal()

    def stop(self, grace: float = 0.0) -> None:
        """Stop: streams get ``grace`` seconds to end by themselves. From any thread, any number of times."""
        # Held to the end: who comes second waits until the node has stopped. Who was interrupted can try again.
        with self._switching:
            if self._stopped:
                return
            if self._life is not None:
                # The calls end by themselves in a moment; cutting them short makes gRPC's clients write to stderr.
                self._life.stop(max(grace, 0.5), Deadline(5.0 + grace))
            self._close_relay()
            self._log.close()
            self._life, self._stopped = None, True

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Node(endpoint={self.endpoint!r}, auth_url={self.auth_url!r}, path={self._log.path!r})"

    # what the faults need

    def end_streams(self) -> int:
        """End all open streams."""
        return self._living.service.end_streams()

    def expire_tokens(self) -> None:
        """Have every token that was issued so far count as expired."""
        self._auth.expire()

    def step_clock(self, seconds: float) -> None:
        """Set the clock of the events."""
        self._clock.advance(seconds)

    def die(self) -> None:
        """Be gone as by SIGKILL."""
        with self._switching:
            life = self._living
            self._auth_port = life.auth_port
            self._hide()
            life.kill(Deadline(5.0))
            self._life = None

    def backup(self, path: str) -> None:
        """Write a copy of the data as of now to a new file; the node goes on meanwhile."""
        self._log.backup(path)

    # inside

    def _hide(self) -> None:
        """Break the connections and let no new ones in, until the node is back."""
        if self.relay is not None:
            self.relay.refuse(float(10**9))
            self.relay.cut()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _stored(self, topic: str) -> StoredTopic:
        found = next((t for t in self._log.topics(self._project) if t.name == topic), None)
        if found is None:
            raise KeyError(f"the node has no topic {topic!r}; it has {', '.join(self.topic_names()) or 'none'}")
        return found

    def _kept_ports(self) -> Tuple[int, int]:
        kept = self._log.setting("ports")
        port, auth_port = json.loads(kept) if kept else (0, 0)
        return int(port), int(auth_port)

    def _hosts(self) -> Set[str]:
        return own_names(self._host, self._living.auth_port)


def _signer(log: Log) -> Signer:
    """Return the signer of a log's tokens: kept in a data file, one for all nodes in memory."""
    global _memory_signer
    if log.path == ":memory:":
        # Decided inside: one key for the process, since making one takes a moment.
        with _signer_lock:
            if _memory_signer is None:
                _memory_signer = Signer(claims.make_key())
            return _memory_signer
    kept = log.setting("signing key")
    if kept is None:
        key = claims.make_key()
        log.keep("signing key", key.dump())
        return Signer(key)
    return Signer(Key.load(kept))
