"""Tokens of a node, given for API keys as the auth service does it (docs/protocol.rst, "Authentication")."""

import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from ..ids import ULID
from ..times import Instant, to_rfc3339
from ..version import __version__
from . import claims
from .claims import Holder, InvalidToken, Lifetimes, Signer
from .clock import NodeClock
from .keys import OWNER_PERMISSIONS, ApiKey, KeyBook, User

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
AUDIENCE = "https://ensign.rotational.app"
LOGGED_OUT = "Logged out of your account - please log back in!"
LOGIN_FAILED = "Unable to login with those details - please try again!"

#: Tokens for one project are good for so many seconds.
_ONE_TIME = 300.0


class Answer(NamedTuple):
    """A reply: its status and what it says."""

    status: int
    body: Any
    content_type: str = JSON
    headers: Sequence[Tuple[str, str]] = ()


class AuthService:
    """Issues and checks tokens. Any thread may call any method.

    Attributes:
        issued: How many pairs of tokens were issued.
        issuer: The address of the service, known when it listens.
        clock: The clock by which tokens expire; tests may set it.
    """

    def __init__(self, keys: KeyBook, make_signer: Callable[[], Signer], lifetimes: Lifetimes) -> None:
        self.keys = keys
        self.clock = NodeClock()
        self.issuer = ""
        self.issued = 0
        self._make_signer = make_signer
        self._signer: Optional[Signer] = None
        self._lock = threading.Lock()
        self._lifetimes = lifetimes
        self._started = time.monotonic()
        self._expired_until = -1  # tokens made up to this millisecond count as expired

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
            return bad_request("could not parse request")
        if not client_id or not secret:
            return error(400, "missing credentials")
        key = self.keys.check(client_id, secret)
        if key is None:
            return error(403, "invalid credentials")
        last = {"last_login": _rfc3339(key.last_used)} if key.last_used else {}
        return self.tokens(_holder(key), last)

    def login(self, body: Dict[str, Any]) -> Answer:
        """Give tokens to a user."""
        email, password = body.get("email", ""), body.get("password", "")
        if not isinstance(email, str) or not isinstance(password, str) or not email or not password:
            return error(400, LOGIN_FAILED)
        user = self.keys.check_user(email, password)
        return error(403, LOGIN_FAILED) if user is None else self.tokens(user_holder(user), {})

    def refresh(self, body: Dict[str, Any]) -> Answer:
        """Give new tokens for a refresh token, within its time."""
        token = body.get("refresh_token", "")
        if not isinstance(token, str) or body.get("org_id") == "":
            return bad_request(LOGGED_OUT)
        if not token:
            return error(400, LOGGED_OUT)
        try:
            found = self._claims(token, claims.refresh_audience(self.issuer))
        except InvalidToken:
            return error(403, LOGGED_OUT)
        asked = body.get("org_id")
        holder = self._holder_of(str(found.get("sub", "")))
        if holder is None or (asked is not None and asked != holder.organization):
            return error(403, LOGGED_OUT)
        return self.tokens(holder, {"last_login": _rfc3339(float(found["iat"]))})

    def check(self, token: str) -> Dict[str, Any]:
        """Return the claims of an access token; InvalidToken if it is not good."""
        return self._claims(token, AUDIENCE)

    def expire(self) -> None:
        """Have every token that was issued so far count as expired."""
        now = ULID.new().milliseconds
        while ULID.new().milliseconds <= now:  # for less than a millisecond: what is issued next is later
            time.sleep(0.0001)
        self._expired_until = now

    def status(self, _: Dict[str, Any]) -> Answer:
        """Tell that the service runs."""
        uptime = f"{time.monotonic() - self._started:.3f}s"
        return Answer(200, {"status": "ok", "uptime": uptime, "version": __version__})

    def jwks(self, _: Dict[str, Any]) -> Answer:
        """Publish the key that verifies the tokens."""
        return Answer(200, self.signer.jwks())

    def tokens(self, holder: Holder, more: Dict[str, Any]) -> Answer:
        """Issue a pair of tokens."""
        access, refresh = claims.issue(self.signer, holder, self.clock.now(), self._lifetimes, AUDIENCE, self.issuer)
        with self._lock:
            self.issued += 1
        return Answer(200, {"access_token": access, "refresh_token": refresh, **more})

    def one_time(self, holder: Holder) -> str:
        """Issue an access token alone, which is good for five minutes."""
        lifetimes = Lifetimes(_ONE_TIME, _ONE_TIME, 0.0)
        return claims.issue(self.signer, holder, self.clock.now(), lifetimes, AUDIENCE, self.issuer)[0]

    def _claims(self, token: str, audience: str) -> Dict[str, Any]:
        found = self.signer.claims(token, self.clock.now(), audience, self.issuer)
        if self._expired_until >= 0 and ULID(str(found.get("jti", ""))).milliseconds <= self._expired_until:
            raise InvalidToken("expired by hand")
        return found

    def _holder_of(self, subject: str) -> Optional[Holder]:
        key = self.keys.key_of(subject)
        if key is not None:
            return _holder(key)
        user = self.keys.user_of(subject)
        return None if user is None else user_holder(user)


def user_holder(user: User) -> Holder:
    """Return whom the tokens of a user are for; they name no project, and so can neither publish nor subscribe."""
    return Holder(user.id, user.organization, "", OWNER_PERMISSIONS, {"name": user.name, "email": user.email})


def error(status: int, text: str) -> Answer:
    """Return the shape that every error of the service has."""
    return Answer(status, {"success": False, "error": text})


def bad_request(text: str) -> Answer:
    """Return the answer to a body that is no JSON."""
    # The real service has sent its header before it writes the JSON, so this one reply is called text.
    return Answer(400, {"success": False, "error": text}, TEXT)


def _holder(key: ApiKey) -> Holder:
    return Holder(key.id, key.organization, key.project, key.permissions)


def _rfc3339(seconds: float) -> str:
    return to_rfc3339(Instant.from_ns(int(seconds * 1e9)))
