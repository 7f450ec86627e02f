"""A node: the gRPC service and the auth service on loopback, over one log."""

import contextlib
import json
import os
import secrets
import string
import threading
from typing import Any, Callable, Dict, Iterable, List, Optional

import grpc

from ..events import Event
from ..exceptions import NodeError
from ..handover.clock import Deadline
from ..ids import ULID
from ..settings import Credentials
from ..wire.codec import decode_event, decode_row
from . import claims
from .auth import PERMISSIONS, ApiKey, AuthServer, AuthService
from .broker import Broker
from .claims import Holder, Key, Lifetimes, Signer
from .pool import DaemonPool
from .service import Service
from .storage import Log
from .topics import TopicService

#: Calls served at once; a stream is a call for as long as it is open. Beyond it: RESOURCE_EXHAUSTED.
MOST_CALLS = 512

_memory_signer: Optional[Signer] = None
_signer_lock = threading.Lock()


class Node:
    """An Ensign node in this process. Ready when it is made; a context manager that stops it.

    Attributes:
        endpoint: Where clients connect, ``host:port``.
        auth_url: Where they authenticate.
        client_id, client_secret: An API key with every permission.
        pid: The process that it runs in.
    """

    def __init__(
        self,
        path: str = ":memory:",
        host: str = "127.0.0.1",
        port: int = 0,
        auth_port: int = 0,
        topics: Iterable[str] = (),
        strict: bool = True,
        access_duration: float = 3600.0,
        refresh_duration: float = 7200.0,
    ) -> None:
        """Start a node.

        Args:
            path: A data file, made if need be, or ``:memory:``.
            host, port, auth_port: Where to listen; port 0 takes a free one.
            topics: Topics to make unless they exist.
            strict: For the differences between this node and the real server; so far it changes nothing.
            access_duration, refresh_duration: Lifetimes of tokens in seconds.

        Raises:
            NodeStorageError: The data file cannot be used.
            NodeError: A port is taken.
        """
        self.pid = os.getpid()
        self.strict = strict
        self._host = host
        self._stopped = False
        self._stopping = threading.Lock()
        with contextlib.ExitStack() as undo:
            self._log = Log(path)
            undo.callback(self._log.close)
            key = _api_key(self._log)
            self.client_id, self.client_secret = key.client_id, key.client_secret
            self._project = ULID(key.holder.project).bytes
            overlap = min(900.0, access_duration / 4)
            lifetimes = Lifetimes(access_duration, refresh_duration, overlap)
            auth = AuthService(key, lambda: _signer(self._log), lifetimes)
            self._broker = Broker(self._log)
            undo.callback(lambda: self._broker.close(Deadline(1.0)))
            self._service = Service(self._log, self._broker, auth)
            self._topics = TopicService(self._service)
            self.ensure_topics(topics)
            self._auth = _listening(lambda: AuthServer(auth, host, auth_port), host, auth_port)
            undo.callback(lambda: self._auth.close(Deadline(1.0)))
            self._serve(port)
            undo.pop_all()
        self.auth_url = self._auth.url

    def _serve(self, port: int) -> None:
        self._pool = DaemonPool(MOST_CALLS + 8)  # some more, so that what is refused does not wait to be
        options = [("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(
            self._pool, self._service.handlers(), options=options, maximum_concurrent_rpcs=MOST_CALLS
        )
        address = f"[{self._host}]" if ":" in self._host else self._host
        bound = _listening(lambda: self._server.add_insecure_port(f"{address}:{port}"), self._host, port)
        self.endpoint = f"{address}:{bound}"
        self._server.start()

    # what a program needs

    def env(self) -> Dict[str, str]:
        """Return the environment variables that make a client connect here."""
        return {
            "ENSIGN_CLIENT_ID": self.client_id,
            "ENSIGN_CLIENT_SECRET": self.client_secret,
            "ENSIGN_ENDPOINT": self.endpoint,
            "ENSIGN_INSECURE": "true",
            "ENSIGN_AUTH_URL": self.auth_url,
            "ENSIGN_NO_AUTHENTICATION": "false",
        }

    def client(self, **options: Any) -> Any:
        """Return a client of this node; ``options`` are those of ``Ensign``. The caller closes it."""
        from ..client import Ensign

        given = {"endpoint": self.endpoint, "insecure": True, "auth_url": self.auth_url, **options}
        made = Ensign(self.client_id, self.client_secret, **given)
        # Whatever the environment says: this node wants a token.
        made._settings = made._settings._replace(credentials=Credentials(self.client_id, self.client_secret))
        return made

    def ensure_topics(self, names: Iterable[str]) -> None:
        """Make topics unless they exist; ValueError if a name breaks the rules."""
        for name in names:
            self._topics.add(name, self._project)

    def events(self, topic: str) -> List[Event]:
        """Return the events of a topic as they are stored."""
        stored = next((t for t in self._log.topics(self._project) if t.name == topic), None)
        if stored is None:
            raise KeyError(f"the node has no topic {topic!r}")
        return [decode_event(decode_row(row.wrapper), topic) for row in self._log.read(stored.number)]

    def topic_names(self) -> List[str]:
        """Return the names of the topics."""
        return sorted(topic.name for topic in self._log.topics(self._project))

    @property
    def tokens_issued(self) -> int:
        """How many pairs of tokens were issued."""
        return self._service.auth.issued

    def stop(self, grace: float = 0.0) -> None:
        """Stop: streams get ``grace`` seconds to end by themselves. From any thread, any number of times."""
        # Held to the end: who comes second waits until the node has stopped. Who was interrupted can try again.
        with self._stopping:
            if self._stopped:
                return
            deadline = Deadline(5.0 + grace)
            self._service.end()
            try:
                # The calls end by themselves in a moment; cutting them short would make gRPC's clients write to stderr.
                ended = self._server.stop(max(grace, 0.5))
            except RuntimeError:  # it starts a thread, which Python 3.12.0 to 3.12.2 refuse at the end of a program
                ended = self._server.stop(None)
            ended.wait(deadline.remaining())
            self._auth.close(deadline)
            self._broker.close(deadline)
            self._pool.shutdown()
            self._log.close()
            self._stopped = True

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Node(endpoint={self.endpoint!r}, auth_url={self.auth_url!r}, path={self._log.path!r})"


def _listening(listen: Callable[[], Any], host: str, port: int) -> Any:
    """Listen, or say which address is taken."""
    try:
        bound = listen()
    except (OSError, RuntimeError, OverflowError) as error:
        raise NodeError(f"cannot listen on {host}:{port}: {error}; choose another port, or 0 for a free one") from error
    if bound == 0:  # what older grpcio returns instead of raising
        raise NodeError(f"cannot listen on {host}:{port}: the port is taken; choose another, or 0 for a free one")
    return bound


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


def _api_key(log: Log) -> ApiKey:
    """Return the node's own API key, made with the log."""
    kept = log.setting("api key")
    if kept is None:
        letters, digits = string.ascii_letters, string.digits
        made = {
            "client_id": "".join(secrets.choice(letters) for _ in range(32)),
            "client_secret": "".join(secrets.choice(letters + digits) for _ in range(64)),
            **{name: str(ULID.new()) for name in ("key_id", "organization", "project")},
        }
        kept = json.dumps(made).encode("ascii")
        log.keep("api key", kept)
    found = json.loads(kept)
    holder = Holder(found["key_id"], found["organization"], found["project"], PERMISSIONS)
    return ApiKey(found["client_id"], found["client_secret"], holder)
