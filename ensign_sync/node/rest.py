"""The HTTP server of a node: the auth service, and for who has its token the page and the backup."""

import contextlib
import http.client
import http.server
import json
import logging
import os
import socket
import socketserver
import ssl
import sys
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Set, Tuple

from ..exceptions import NodeError, NodeStorageError
from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn
from .accounts import AccountService
from .auth import LOGGED_OUT, Answer, AuthService, bad_request, error
from .page import LARGEST_BODY, Page

logger = logging.getLogger("ensign_sync.node")

#: Requests served at once, each by a thread; who comes beyond it is told to come again.
MOST_REQUESTS = 64

_CHUNK = 1 << 20
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class RateLimit:
    """A bucket of tokens for each address: so many at once, then so many a second. The defaults are the real ones."""

    def __init__(
        self, per_second: float = 10.0, burst: int = 30, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.burst = burst
        self._clock = clock
        self._per_second = per_second
        self._lock = threading.Lock()
        self._buckets: Dict[str, Tuple[float, float]] = {}

    def take(self, address: str) -> int:
        """Take a token; returns how many are left, -1 if there was none. A try that fails costs nothing."""
        now = self._clock()
        with self._lock:
            left, since = self._buckets.get(address, (float(self.burst), now))
            left = min(float(self.burst), left + (now - since) * self._per_second)
            there = left >= 1.0
            if len(self._buckets) > 10_000:
                self._buckets.clear()
            self._buckets[address] = (left - there, now)
        return int(left - 1) if there else -1


class Site(NamedTuple):
    """What the server serves.

    Attributes:
        auth: Tokens.
        accounts: Projects and keys.
        page: The page, if there is one.
        backup: Writes a copy of the node's data and returns its path, for the node's own key alone.
        limit: Who asks too often is refused, if there is a limit.
    """

    auth: AuthService
    accounts: AccountService
    page: Optional[Page] = None
    backup: Optional[Callable[[], str]] = None
    limit: Optional[RateLimit] = None


class RestServer:
    """Listens, and serves on threads of its own.

    Attributes:
        port: Where it listens.
        url: The address of the service.
    """

    def __init__(self, site: Site, host: str, port: int, tls: Optional[Tuple[str, str]] = None) -> None:
        """Listen and serve; ``tls`` are the files of certificate and key. NodeError if the address cannot be used."""

        class Bound(_Handler):
            pass

        Bound.site = site
        context = None if tls is None else _context(*tls)
        try:
            self._server = _Server((host, port), Bound)
        except (OSError, OverflowError) as cause:
            text = f"cannot listen on {host}:{port}: {cause}; choose another port, or 0 for a free one"
            raise NodeError(text) from cause
        self._server.context = context
        self.port: int = self._server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown}:{self.port}"
        site.auth.issuer = self.url
        self._closing = False
        self._thread = spawn("node-auth", self._serve)

    def close(self, deadline: Deadline) -> None:
        """Stop listening, and wait for the thread."""
        self._closing = True
        with contextlib.suppress(OSError):  # on Linux this ends the wait; elsewhere its timeout does
            self._server.socket.shutdown(socket.SHUT_RDWR)
        gather([self._thread], deadline)
        self._server.server_close()
        self._server.cut()

    def _serve(self) -> None:
        while not self._closing:
            self._server.handle_request()


def _context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as cause:  # ssl.SSLError is one too
        text = f"the TLS files {certificate} and {key} cannot be used: {cause}; both must be PEM and belong together"
        raise NodeError(text) from cause
    return context


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    timeout = 0.5  # of a wait for connections, in seconds
    context: Optional[ssl.SSLContext] = None

    def __init__(self, address: Tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._room = threading.BoundedSemaphore(MOST_REQUESTS)
        self._open: Set[socket.socket] = set()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread, if there is one left."""
        if self._room.acquire(blocking=False):
            self._open.add(request)
            spawn("node-http", self.process_request_thread, request, client_address)
            return
        try:
            request.sendall(_BUSY)
        finally:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection; the handshake of TLS happens here, where it holds nobody else up."""
        known = request
        try:
            if self.context is not None:
                request.settimeout(10.0)
                request = self.context.wrap_socket(request, server_side=True)
                self._open.add(request)
            super().process_request_thread(request, client_address)
        except OSError:
            self.shutdown_request(request)
        finally:
            self._open -= {known, request}
            self._room.release()

    def cut(self) -> None:
        """End the connections that are open, so that their threads end."""
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away; anything else is a mistake of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            logger.exception("a request from %s failed", client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site
    server_version = "ensign-sync"
    sys_version = ""
    timeout = 30.0

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        path = self.path.partition("?")[0]
        page = self.site.page
        if page is not None and page.handles(path):
            self._show(page)
        elif path == "/v1/backup":
            self._backup()
        else:
            self._send(self._limited(path))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the node has its own ways to be looked at."""

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """Refuse what is no request, or has a method that nobody knows, in the form of every refusal."""
        self.close_connection = True
        unknown = code == 501
        text = "method not allowed" if unknown else message or http.client.responses.get(code, "") or "bad request"
        self._send(error(405 if unknown else code, text))

    # the auth service

    def _limited(self, path: str) -> Answer:
        limit = self.site.limit
        if limit is None:
            return self._answer(path)
        left = limit.take(str(self.client_address[0]))
        answer = self._answer(path) if left >= 0 else error(429, "rate limit reached: too many requests")
        said = {"Limit": str(limit.burst), "Remaining": str(max(0, left)), "Reset": "1"}
        return answer._replace(headers=[(f"X-Ratelimit-{name}", value) for name, value in said.items()])

    def _answer(self, path: str) -> Answer:
        site = self.site
        routes: Dict[str, Tuple[str, Callable[[Dict[str, Any]], Answer]]] = {
            "/v1/authenticate": ("POST", site.auth.authenticate),
            "/v1/refresh": ("POST", site.auth.refresh),
            "/v1/login": ("POST", site.auth.login),
            "/v1/register": ("POST", site.accounts.register),
            "/v1/status": ("GET", site.auth.status),
            "/.well-known/jwks.json": ("GET", site.auth.jwks),
        }
        allowed = [routes[path][0]] if path in routes else site.accounts.allowed(path)
        if self.command not in allowed:
            return error(405, "method not allowed") if allowed else error(404, "resource not found")
        if path not in routes:  # who may not is told so before the body is looked at
            return site.accounts.answer(self.command, path, self.headers.get("Authorization", ""), self._body)
        body = self._body()
        if body is None:
            return bad_request(LOGGED_OUT if path == "/v1/refresh" else "could not parse request")
        return routes[path][1](body)

    def _send(self, answer: Answer) -> None:
        data = json.dumps(answer.body).encode("utf-8")
        self._head(answer.status, [("Content-Type", answer.content_type), *answer.headers], len(data))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, headers: Any, length: int) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _raw_body(self, most: int) -> Optional[bytes]:
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            return None
        return self.rfile.read(length) if 0 <= length <= most else None

    def _body(self) -> Optional[Dict[str, Any]]:
        """Read the request's JSON object; None if it is none. Its Content-Type does not matter."""
        if self.command in ("GET", "DELETE"):
            return {}
        data = self._raw_body(_CHUNK)
        try:
            text = (data or b"").decode("utf-8")
            body = json.loads(text)
            if "\\u" in text:  # JSON can spell half a character; Go reads it as the sign for an unreadable one
                whole = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
                body = json.loads(whole.decode("utf-8"))
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    # the page, and the backup

    def _show(self, page: Page) -> None:
        body = self._raw_body(LARGEST_BODY + 1)
        answer = page.answer(self.command, self.path, dict(self.headers.items()), body or b"")
        self._head(answer.status, answer.headers, len(answer.body))
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _backup(self) -> None:
        """Send a copy of the node's data to who has a token of the node's own key: secrets are in it."""
        auth = self.site.auth
        if self.command != "GET":
            self._send(error(405, "method not allowed"))
            return
        given = self.headers.get("Authorization", "")
        try:
            claims = auth.check(given[len("Bearer ") :] if given.startswith("Bearer ") else "")
        except ValueError:
            self._send(error(401, "this endpoint requires authentication"))
            return
        # A refresh token is good for nothing here either: it has no permissions.
        own = claims.get("sub") == auth.keys.own.id and bool(claims.get("permissions"))
        if not own or self.site.backup is None:
            self._send(error(403, "user does not have permission to perform this operation"))
            return
        try:
            path = self.site.backup()
        except NodeStorageError as cause:  # as on a full disk
            self._send(error(500, str(cause)))
            return
        try:
            with open(path, "rb") as copy:
                self._head(200, [("Content-Type", "application/octet-stream")], os.path.getsize(path))
                for piece in iter(lambda: copy.read(_CHUNK), b""):
                    self.wfile.write(piece)
        finally:
            os.unlink(path)
