"""A relay of bytes before the gRPC port of a node, since gRPC does not give its sockets away: faults need them.

One thread for all connections, with selectors. What one side sends while the other takes nothing stays in the kernel's
buffers but for a bounded rest, so the back-pressure of a stalled client reaches the server as it does without a relay.
"""

import contextlib
import selectors
import socket
import struct
import threading
import time
from typing import Any, Dict, Optional, Set, Tuple

from ..exceptions import NodeError
from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn

_CHUNK = 1 << 16
_MOST_WAITING = 1 << 18
#: Selectors take no wait of any length.
_LONGEST_WAIT = 60.0
#: Closing with this option resets the connection instead of ending it: this is how a line dies.
_RESET = struct.pack("ii", 1, 0)


class _End:
    """One side of a connection: its socket, what waits to be written to it, and the other side."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.waiting = bytearray()
        self.other: _End = self
        self.finished = False  # it will send nothing more
        self.told = False  # it was told that nothing more comes
        self.watched = 0


class Relay:
    """Passes bytes between clients and one server. Any thread may call any method.

    Attributes:
        port: Where clients connect.
    """

    def __init__(self, host: str, port: int, target: Tuple[str, int]) -> None:
        """Listen, and pass on to ``target``; NodeError if the address cannot be used."""
        self._target = target
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._ends: Dict[socket.socket, _End] = {}
        self._clients: Dict[socket.socket, _End] = {}
        self._touched: Set[_End] = set()  # whose watching may have to change
        self._was_held = False
        self._held_until = 0.0
        self._refused_until = 0.0
        self._closed = False
        self._listener: Optional[socket.socket] = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._address: Any = (host, port)
        try:
            self._listen()
        except (OSError, OverflowError) as error:
            self._wake_in.close()
            self._wake_out.close()
            self._selector.close()
            text = f"cannot listen on {host}:{port}: {error}; choose another port, or 0 for a free one"
            raise NodeError(text) from error
        self.port: int = self._address[1]
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._thread = spawn("node-relay", self._run)

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._clients)

    def cut(self) -> int:
        """Reset every connection; returns how many there were."""
        with self._lock:
            there = list(self._clients.values())
            for end in there:
                self._drop(end)
        self._wake()
        return len(there)

    def hold(self, seconds: float) -> None:
        """Pass nothing on for so long."""
        with self._lock:
            self._held_until = time.monotonic() + seconds
        self._wake()

    def refuse(self, seconds: float) -> None:
        """Do not listen for so long."""
        with self._lock:
            self._refused_until = time.monotonic() + seconds
            self._stop_listening()
        self._wake()

    def heal(self) -> None:
        """End holding and refusing."""
        with self._lock:
            self._held_until = self._refused_until = 0.0
            if self._listener is None and not self._closed:
                with contextlib.suppress(OSError):  # the thread tries again
                    self._listen()
        self._wake()

    def point_at(self, target: Tuple[str, int]) -> None:
        """Pass new connections on to another address."""
        with self._lock:
            self._target = target

    def close(self, deadline: Deadline) -> None:
        """End all connections and stop listening."""
        with self._lock:
            self._closed = True
        self._wake()
        gather([self._thread], deadline)

    # the thread

    def _run(self) -> None:
        while not self._closed:
            ready = self._selector.select(self._pause())
            with self._lock:
                for key, events in ready:
                    self._handle(key.fileobj, events)
                self._keep_up()
        with self._lock:
            for end in list(self._clients.values()):
                self._drop(end)
            self._stop_listening()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _pause(self) -> Optional[float]:
        """Return how long until a fault ends."""
        now = time.monotonic()
        if self._was_held and now >= self._held_until:
            return 0.0  # it has ended since it was looked at, and nothing else would wake us
        ends = [at - now for at in (self._held_until, self._refused_until) if at > now]
        if self._listener is None and not ends:
            return 0.05  # the port was not free again; try until it is
        return min(_LONGEST_WAIT, min(ends) + 0.001) if ends else None

    def _handle(self, sock: Any, events: int) -> None:
        """Do what a socket is ready for; needs the lock."""
        if sock is self._wake_in:
            with contextlib.suppress(BlockingIOError):
                sock.recv(4096)
        elif sock is self._listener:
            self._accept()
        elif sock in self._ends:
            end = self._ends[sock]
            self._touched.update((end, end.other))
            if events & selectors.EVENT_READ:
                self._read(end)
            if events & selectors.EVENT_WRITE and sock in self._ends:
                self._write(end)

    def _keep_up(self) -> None:
        """Bring what is watched in line with what is held and what waits; needs the lock."""
        now = time.monotonic()
        if self._listener is None and not self._closed and now >= self._refused_until:
            with contextlib.suppress(OSError):
                self._listen()
        held = now < self._held_until
        touched = set(self._ends.values()) if held != self._was_held else self._touched
        self._touched, self._was_held = set(), held
        for end in touched:
            if end.socket in self._ends:
                self._watch(end, held)

    def _watch(self, end: _End, held: bool) -> None:
        wanted = 0
        if not held:
            if end.waiting:
                wanted |= selectors.EVENT_WRITE
            if not end.finished and len(end.other.waiting) < _MOST_WAITING:
                wanted |= selectors.EVENT_READ
        if wanted == end.watched:
            return
        if not end.watched:
            self._selector.register(end.socket, wanted)
        elif wanted:
            self._selector.modify(end.socket, wanted)
        else:
            self._selector.unregister(end.socket)
        end.watched = wanted

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        server = socket.socket(socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET)
        try:
            server.settimeout(5.0)
            server.connect(self._target)
        except OSError:
            client.close()
            server.close()
            return
        near, far = _End(client), _End(server)
        near.other, far.other = far, near
        for end in (near, far):
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.socket] = end
        self._clients[client] = near
        self._touched.update((near, far))

    def _read(self, end: _End) -> None:
        try:
            data = end.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(end)
            return
        other = end.other
        if not data:
            end.finished = True
        else:
            other.waiting += data
        self._write(other)  # at once: mostly there is room

    def _write(self, end: _End) -> None:
        try:
            if end.waiting:
                del end.waiting[: end.socket.send(end.waiting)]
            if end.other.finished and not end.waiting and not end.told:
                end.told = True
                end.socket.shutdown(socket.SHUT_WR)
                if end.finished:
                    self._close(end)
        except BlockingIOError:
            return
        except OSError:
            self._drop(end)

    def _drop(self, end: _End) -> None:
        """Reset both sides of a connection; needs the lock."""
        for gone in (end, end.other):
            with contextlib.suppress(OSError):
                gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close(end)

    def _close(self, end: _End) -> None:
        for gone in (end, end.other):
            if self._ends.pop(gone.socket, None) is None:
                continue
            self._clients.pop(gone.socket, None)
            if gone.watched:
                self._selector.unregister(gone.socket)
                gone.watched = 0
            gone.socket.close()

    # listening

    def _listen(self) -> None:
        listener = socket.socket(self._family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._address)
            listener.listen(512)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        self._address = listener.getsockname()
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        """Needs the lock."""
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.send(b"x")

