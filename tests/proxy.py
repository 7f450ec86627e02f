"""A TCP proxy whose connections can be cut, stalled and refused: the network of the tests, on one thread."""

import contextlib
import selectors
import socket
import threading
from typing import Any, Dict, Optional, Set

from ensign_sync import Ensign

_CHUNK = 65_536
_MOST_WAITING = 1 << 20


class Proxy:
    """Passes bytes between clients and one server. Any thread may call any method.

    Attributes:
        endpoint: Where clients connect.
        accepted: How many connections were made.
        cut: How many were cut.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._pairs: Dict[socket.socket, socket.socket] = {}
        self._waiting: Dict[socket.socket, bytearray] = {}
        self._clients: Set[socket.socket] = set()
        self._dead: Set[socket.socket] = set()
        self._black_hole = False
        self._closed = False
        self.accepted = 0
        self.cut = 0
        self._listener: Optional[socket.socket] = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._on_wake)
        self._address = ("127.0.0.1", 0)
        self._listen()
        self.endpoint = f"127.0.0.1:{self._address[1]}"
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """How many connections of clients are open."""
        return len(self._clients)

    def cut_connections(self) -> int:
        """Cut every connection, without a farewell; returns how many there were."""
        with self._lock:
            there = list(self._clients)
            for client in there:
                self._drop(client)
            self.cut += len(there)
        self._wake()
        return len(there)

    def black_hole(self, on: bool = True) -> None:
        """Swallow all bytes while connections stay open; those swallowed are lost, so cut before going on."""
        with self._lock:
            self._black_hole = on

    def deaden(self) -> int:
        """Swallow for ever what the present connections carry, which stay open; returns how many there are."""
        with self._lock:
            self._dead = set(self._pairs)
            return len(self._clients)

    def refuse(self, on: bool = True) -> None:
        """Do not listen any more, or listen again on the same port."""
        with self._lock:
            if on and self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            elif not on and self._listener is None:
                self._listen()
        self._wake()

    def close(self) -> None:
        """End the proxy and all its connections."""
        self._closed = True
        self._wake()
        self._thread.join(10.0)
        for end in [*self._pairs, self._wake_in, self._wake_out]:
            end.close()
        if self._listener is not None:
            self._listener.close()
        self._selector.close()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # inside

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._address)
        listener.listen(128)
        listener.setblocking(False)
        self._address = listener.getsockname()
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._on_accept)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.send(b"x")

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(1.0):
                with self._lock:
                    if key.fileobj.fileno() >= 0:
                        key.data(key.fileobj)
                    self._send_all()

    def _on_wake(self, end: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            end.recv(4096)

    def _on_accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.socket()
        try:
            server.connect(self._target)
        except OSError:
            client.close()
            server.close()
            return
        self.accepted += 1
        self._clients.add(client)
        for end, other in ((client, server), (server, client)):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[end] = other
            self._waiting[end] = bytearray()
            self._selector.register(end, selectors.EVENT_READ, self._on_data)

    def _on_data(self, end: socket.socket) -> None:
        other = self._pairs.get(end)
        if other is None:
            return
        try:
            data = end.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(end)
        elif not self._black_hole and end not in self._dead:
            self._waiting[other] += data

    def _send_all(self) -> None:
        for end, data in list(self._waiting.items()):
            if data:
                try:
                    del data[: end.send(data)]
                except BlockingIOError:
                    pass
                except OSError:
                    self._drop(end)
                    continue
            self._watch(end)

    def _watch(self, end: socket.socket) -> None:
        """Read from an end while the other takes what was read; write to it while something waits."""
        other = self._pairs.get(end)
        if other is None:
            return
        wanted = selectors.EVENT_WRITE if self._waiting[end] else 0
        if len(self._waiting[other]) < _MOST_WAITING:
            wanted |= selectors.EVENT_READ
        with contextlib.suppress(KeyError, ValueError):
            if wanted:
                try:
                    self._selector.modify(end, wanted, self._on_data)
                except KeyError:
                    self._selector.register(end, wanted, self._on_data)
            else:
                self._selector.unregister(end)

    def _drop(self, end: socket.socket) -> None:
        for gone in (end, self._pairs.get(end)):
            if gone is None:
                continue
            self._pairs.pop(gone, None)
            self._waiting.pop(gone, None)
            self._clients.discard(gone)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(gone)
            with contextlib.suppress(OSError):
                # A reset and not a regular end: this is how a line dies.
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            gone.close()


def far(node, proxy, **options):
    """Return a client of a node that is behind a network."""
    return Ensign(
        node.client_id, node.client_secret, endpoint=proxy.endpoint, insecure=True, auth_url=node.auth_url, **options
    )
