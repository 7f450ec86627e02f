"""A node in a process of its own, for programs that fork: a gRPC server in a process forbids forking it.

The other process listens on a local socket. Each call of a method is one connection to it, so any thread, and any
forked child, may call. It ends with the process that started it.
"""

import base64
import contextlib
import json
import os
import pickle
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Client, Listener
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from ..events import Event
from ..exceptions import NodeError
from ..ids import RLID
from ..settings import Credentials
from .faults import Faults
from .server import Node

#: Seconds that the other process may take to start, and to end.
_START, _END = 60.0, 10.0

_PROGRAM = """
import pickle, sys
order = pickle.load(sys.stdin.buffer)
sys.path = order["path"]
from ensign_sync.node.process import main
main(order)
"""


class ProcessNode(Node):
    """A node in another process; see ``Node``, whose methods it has."""

    def __init__(self, path: str = ":memory:", *args: Any, process: bool = True, **options: Any) -> None:
        """Start the process and wait until the node is ready; the arguments are those of ``Node``."""
        self._folder = tempfile.mkdtemp(prefix="ensign-node-")
        try:
            names = ("host", "port", "auth_port", "topics", "strict", "faults", "access_duration", "refresh_duration")
            self._options: Dict[str, Any] = {**dict(zip(names, args)), **options}
            self._options["topics"] = tuple(self._options.get("topics", ()))
            if path == ":memory:":
                # In a file after all, so that it outlives a kill as the data of any node do; not in its whole length.
                path = os.path.join(self._folder, "data.db")
                self._options["durable"] = False
            self._options["path"] = os.fspath(path)
            self._lock = threading.Lock()
            self._child: Optional[subprocess.Popen[bytes]] = None
            self._done = False
            self.faults = _RemoteFaults(self)
            self.token_clock = _RemoteClock(self)  # type: ignore[assignment]
            self._spawn()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _spawn(self) -> None:
        self._key = secrets.token_bytes(32)
        self._address = os.path.join(self._folder, secrets.token_hex(4))
        order = {"options": self._options, "address": self._address, "key": self._key, "path": sys.path}
        child = subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            ready = self._first_word(child, pickle.dumps(order))
        except BaseException:
            _end(child, 0.0)
            raise
        self._child = child
        self.pid, self.strict = child.pid, ready["strict"]
        self.endpoint, self.auth_url, self._url = ready["endpoint"], ready["auth_url"], ready["page_url"]
        self.client_id, self.client_secret = ready["client_id"], ready["client_secret"]
        self._tls = self._options.get("tls")
        # A restart takes the same ports.
        self._options["port"] = int(self.endpoint.rpartition(":")[2])
        self._options["auth_port"] = int(self.auth_url.rpartition(":")[2])

    def _first_word(self, child: "subprocess.Popen[bytes]", order: bytes) -> Dict[str, Any]:
        """Return what the other process says when it is ready, or raise what kept it from that."""
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(order)
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], _START)
        line = child.stdout.readline() if ready else b""
        child.stdout.close()
        if not line:
            raise NodeError(f"the process of the node did not start within {_START:g} seconds; its stderr says why")
        said: Dict[str, Any] = json.loads(line)
        if "error" in said:
            raise pickle.loads(base64.b64decode(said["error"]))
        return said

    def ask(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the node in the other process, or read an attribute; what it raises is raised here."""
        if self._child is None:
            raise NodeError("the node is stopped" if self._done else "the node was killed; restart() starts it again")
        try:
            with Client(self._address, authkey=self._key) as connection:
                connection.send((name, args, options))
                good, value = connection.recv()
        except (OSError, EOFError) as error:
            raise NodeError(f"the process of the node is gone ({error}); restart() starts it again") from error
        if not good:
            raise value
        return value

    # what is there as on any node

    @property
    def page_url(self) -> str:
        """The address of the page."""
        return str(self._url)

    def ensure_topics(self, names: Iterable[str]) -> None:
        """Make topics unless they exist."""
        self.ask("ensure_topics", tuple(names))

    def create_project(self) -> str:
        """Make a project; returns its id."""
        return str(self.ask("create_project"))

    def create_api_key(self, *args: Any, **options: Any) -> Credentials:
        """Make an API key."""
        key: Credentials = self.ask("create_api_key", *args, **options)
        return key

    def events(self, topic: str) -> List[Event]:
        """Return the events of a topic as they are stored."""
        found: List[Event] = self.ask("events", topic)
        return found

    def wait_for(self, topic: str, n: int, timeout: float = 10.0) -> List[Event]:
        """Wait until a topic has at least n events, and return them."""
        found: List[Event] = self.ask("wait_for", topic, n, timeout)
        return found

    def topic_names(self) -> List[str]:
        """Return the names of the topics."""
        return list(self.ask("topic_names"))

    @property
    def acks(self) -> List[RLID]:
        """The ids of the events that subscribers acknowledged."""
        return list(self.ask("acks"))

    @property
    def nacks(self) -> List[Tuple[RLID, int]]:
        """The ids of the events that subscribers refused, with the codes."""
        return list(self.ask("nacks"))

    @property
    def acks_sent(self) -> int:
        """How many acks and nacks publishers were sent."""
        return int(self.ask("acks_sent"))

    @property
    def connections(self) -> int:
        """How many connections to the gRPC port are open."""
        return int(self.ask("connections"))

    @property
    def streams(self) -> int:
        """How many publish and subscribe streams are open."""
        return int(self.ask("streams"))

    @property
    def tokens_issued(self) -> int:
        """How many pairs of tokens were issued."""
        return int(self.ask("tokens_issued"))

    def reset(self) -> None:
        """Be as new."""
        self.ask("reset")

    def backup(self, path: str) -> None:
        """Write a copy of the data as of now to a new file."""
        self.ask("backup", os.path.abspath(path))

    # life

    def restart(self, grace: float = 0.0) -> None:
        """Stop the process, if it still lives, and start another on the same ports with the same data."""
        with self._lock:
            if self._done:
                raise NodeError("the node is stopped; make another one")
            child, self._child = self._child, None
            if child is not None:
                _end(child, _END + grace)
            self._spawn()

    def die(self) -> None:
        """Kill the process."""
        with self._lock:
            child, self._child = self._child, None
            if child is None:
                raise NodeError("the node is not running")
            _end(child, 0.0)

    def stop(self, grace: float = 0.0) -> None:
        """Stop the process."""
        with self._lock:
            child, self._child = self._child, None
            self._done = True
            if child is not None:
                _end(child, _END + grace)
            shutil.rmtree(self._folder, ignore_errors=True)

    def __repr__(self) -> str:
        return f"Node(endpoint={self.endpoint!r}, auth_url={self.auth_url!r}, pid={self.pid})"


def _end(child: "subprocess.Popen[bytes]", patience: float) -> None:
    """End a process: the end of its input tells it to, and after so many seconds it is killed."""
    assert child.stdin is not None
    if patience <= 0:
        child.kill()
    try:
        child.stdin.close()
    except OSError:  # it did not read what it was sent
        child.kill()
    try:
        child.wait(patience or None)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _remote(name: str) -> Callable[..., Any]:
    def forward(self: Any, *args: Any, **options: Any) -> Any:
        return self.node.ask(name, *args, **options)

    forward.__name__ = name.rpartition(".")[2]
    forward.__doc__ = getattr(Faults, forward.__name__, forward).__doc__
    return forward


class _RemoteFaults(Faults):
    """The faults of a node in another process."""

    def __init__(self, node: ProcessNode) -> None:
        self.node = node

    @property
    def struck(self) -> Dict[str, int]:
        """How often each fault struck so far; a kill forgets it."""
        return dict(self.node.ask("faults.struck"))

    def kill(self) -> None:
        """Kill the process of the node with SIGKILL."""
        self.node.die()


for _name in [name for name in vars(Faults) if not name.startswith("_") and name not in ("struck", "kill")]:
    setattr(_RemoteFaults, _name, _remote(f"faults.{_name}"))


class _RemoteClock:
    """The clock of the tokens of a node in another process."""

    def __init__(self, node: ProcessNode) -> None:
        self.node = node

    now = _remote("token_clock.now")
    advance = _remote("token_clock.advance")


# the other process


def main(order: Dict[str, Any]) -> None:
    """Run a node until the input ends."""
    words = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not be taken for a word
    try:
        node = Node(**order["options"])
        listener = Listener(order["address"], authkey=order["key"])
    except BaseException as error:
        words.write(json.dumps({"error": base64.b64encode(_pickled(error)).decode("ascii")}).encode("ascii") + b"\n")
        words.close()
        return
    names = ("endpoint", "auth_url", "client_id", "client_secret", "page_url", "strict")
    words.write(json.dumps({name: getattr(node, name) for name in names}).encode("ascii") + b"\n")
    words.close()
    threading.Thread(target=_serve, args=(node, listener), daemon=True).start()
    while sys.stdin.buffer.read(1):
        continue
    node.stop()


def _serve(node: Node, listener: Listener) -> None:
    while True:
        try:
            connection = listener.accept()
        except (OSError, EOFError):  # somebody who is not who started us, or gave up
            continue
        threading.Thread(target=_answer, args=(node, connection), daemon=True).start()


def _answer(node: Node, connection: Any) -> None:
    with contextlib.suppress(OSError, EOFError), connection:  # who asked may have gone
        connection.send_bytes(_outcome(node, *connection.recv()))


def _outcome(node: Node, name: str, args: Any, options: Any) -> bytes:
    """Return what a call gives, or raises, as bytes."""
    try:
        target: Any = node
        for part in name.split("."):
            target = getattr(target, part)
        return pickle.dumps((True, target(*args, **options) if callable(target) else target))
    except BaseException as error:
        return pickle.dumps((False, pickle.loads(_pickled(error))))


def _pickled(error: BaseException) -> bytes:
    """Return an error as bytes; one that cannot travel becomes one that says the same."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps(NodeError(f"{type(error).__name__}: {error}"))

