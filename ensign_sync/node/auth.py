"""The REST endpoints of the auth service (docs/protocol.rst, "Authentication")."""

import http.server
import json
import socketserver
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from ..handover.clock import Deadline
from ..handover.spawn import gather, spawn
from ..times import Instant, to_rfc3339
from ..version import __version__
from . import claims
from .claims import Holder, InvalidToken, Lifetimes, Signer

JSON = "application/json; charset=utf-8"
AUDIENCE = "https://ensign.rotational.app"
LOGGED_OUT = "Logged out of your account - please log back in!"

#: The permissions that an API key may have.
PERMISSIONS = (
    "topics:create",
    "topics:edit",
    "topics:destroy",
    "topics:read",
    "metrics:read",
    "publisher",
    "subscriber",
)
_LARGEST_BODY = 1 << 20


class ApiKey(NamedTuple):
    """A client id with its secret, and whose it is."""

    client_id: str
    client_secret: str
    holder: Holder


class Answer(NamedTuple):
    """A reply: its status and what it says."""

    status: int
    body: Any
    content_type: str = JSON


class AuthService:
    """Issues and checks tokens. Any thread may call any method.

    Attributes:
        issued: How many pairs of tokens were issued.
    """

    def __init__(self, key: ApiKey, make_signer: Callable[[], Signer], lifetimes: Lifetimes) -> None:
        self.issuer = ""  # known when the server listens
        self.issued = 0
        self._key = key
        self._make_signer = make_signer
        self._signer: Optional[Signer] = None
        self._lock = threading.Lock()
        self._lifetimes = lifetimes
        self._started = time.monotonic()

    @property
    def signer(self) -> Signer:
        """The signer, made when the first token is wanted: its key takes a moment."""
        # Decided inside: one signer for everybody.
        with self._lock:
            if self._signer is None:
                self._signer = self._make_signer()
            return self._signer

    def authenticate(self, body: Dict[str, Any]) -> Answer:
        """Give tokens for an API key."""
        client_id, secret = body.get("client_id", ""), body.get("client_secret", "")
        if not isinstance(client_id, str) or not isinstance(secret, str):
            return _bad_request("could not parse request")
        if not client_id or not secret:
            return _error(400, "missing credentials")
        known = claims.same_secret(client_id, self._key.client_id)
        if not (claims.same_secret(secret, self._key.client_secret) and known):
            return _error(403, "invalid credentials")
        return self._tokens(self._key.holder, {})

    def refresh(self, body: Dict[str, Any]) -> Answer:
        """Give new tokens for a refresh token, within its time."""
        token = body.get("refresh_token", "")
        if not isinstance(token, str) or body.get("org_id") == "":
            return _bad_request(LOGGED_OUT)
        if not token:
            return _error(400, LOGGED_OUT)
        try:
            found = self.signer.claims(token, time.time(), claims.refresh_audience(self.issuer), self.issuer)
        except InvalidToken:
            return _error(403, LOGGED_OUT)
        if found.get("sub") != self._key.holder.key_id:
            return _error(403, LOGGED_OUT)
        last = to_rfc3339(Instant.from_ns(int(found["iat"]) * 1_000_000_000))
        return self._tokens(self._key.holder, {"last_login": last})

    def check(self, token: str) -> Dict[str, Any]:
        """Return the claims of an access token; InvalidToken if it is not good."""
        return self.signer.claims(token, time.time(), AUDIENCE, self.issuer)

    def status(self, _: Dict[str, Any]) -> Answer:
        """Tell that the service runs."""
        uptime = f"{time.monotonic() - self._started:.3f}s"
        return Answer(200, {"status": "ok", "uptime": uptime, "version": __version__})

    def jwks(self, _: Dict[str, Any]) -> Answer:
        """Publish the key that verifies the tokens."""
        return Answer(200, self.signer.jwks())

    def _tokens(self, holder: Holder, more: Dict[str, Any]) -> Answer:
        access, refresh = claims.issue(self.signer, holder, time.time(), self._lifetimes, AUDIENCE, self.issuer)
        self.issued += 1
        return Answer(200, {"access_token": access, "refresh_token": refresh, **more})


def _error(status: int, text: str) -> Answer:
    return Answer(status, {"success": False, "error": text})


def _bad_request(text: str) -> Answer:
    # The real service has sent its header before it writes the JSON, so this one reply is called text.
    return Answer(400, {"success": False, "error": text}, "text/plain; charset=utf-8")


class AuthServer:
    """Serves an AuthService over HTTP, on threads of its own."""

    def __init__(self, service: AuthService, host: str, port: int) -> None:
        """Listen; OSError if the address cannot be used. Starts serving at once."""
        self._service = service
        routes: Dict[Tuple[str, str], Callable[[Dict[str, Any]], Answer]] = {
            ("POST", "/v1/authenticate"): service.authenticate,
            ("POST", "/v1/refresh"): service.refresh,
            ("GET", "/v1/status"): service.status,
            ("GET", "/.well-known/jwks.json"): service.jwks,
        }

        class Handler(_Handler):
            pass

        Handler.routes = routes
        self._server = _Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        service.issuer = self.url
        self._thread = spawn("node-auth", self._server.serve_forever, 0.05)

    def close(self, deadline: Deadline) -> None:
        """Stop listening, and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        gather([self._thread], deadline)


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no event."""


class _Handler(http.server.BaseHTTPRequestHandler):
    routes: Dict[Tuple[str, str], Callable[[Dict[str, Any]], Answer]] = {}
    server_version = "ensign-sync"
    sys_version = ""
    timeout = 30.0

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        self._answer("GET")

    def do_POST(self) -> None:  # noqa: N802
        self._answer("POST")

    do_PUT = do_DELETE = do_PATCH = do_HEAD = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the node has its own ways to be looked at."""

    def _answer(self, _: str) -> None:
        path = self.path.partition("?")[0]
        route = self.routes.get((self.command, path))
        if route is None:
            there = any(known == path for _, known in self.routes)
            answer = _error(405, "method not allowed") if there else _error(404, "resource not found")
        else:
            body = self._body()
            if body is None:
                answer = _bad_request(LOGGED_OUT if path == "/v1/refresh" else "could not parse request")
            else:
                answer = route(body)
        data = json.dumps(answer.body).encode("utf-8")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> Optional[Dict[str, Any]]:
        """Read the request's JSON object; None if it is none. Its Content-Type does not matter."""
        if self.command == "GET":
            return {}
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if not 0 <= length <= _LARGEST_BODY:
                return None
            body = json.loads(self.rfile.read(length).decode("utf-8"))
        except ValueError:
            return None
        return body if isinstance(body, dict) else None
