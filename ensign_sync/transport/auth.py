"""Tokens from the auth service over HTTP (docs/protocol.rst, "Authentication" and "Tokens")."""

import logging
import queue
import threading
from typing import Any, Dict, Optional
from urllib.parse import urlsplit

from ..exceptions import AuthenticationError, AuthenticationUnreachableError
from ..handover.clock import Clock
from ..handover.locking import LockTimeoutError, hold
from ..handover.spawn import spawn
from ..protocol import tokens
from ..protocol.tokens import Action, Tokens
from ..settings import Settings
from .channel import USER_AGENT, is_loopback

logger = logging.getLogger("ensign_sync")


class TokenSource:
    """Gives out a valid access token; one HTTP request at a time, however many threads ask."""

    def __init__(self, settings: Settings, http_timeout: float = 30.0, clock: Optional[Clock] = None) -> None:
        self._settings = settings
        self._http_timeout = http_timeout
        self._clock = clock or Clock()
        # Whoever finds no usable token fetches one while holding this; the others wait and find it done.
        self._lock = threading.Lock()
        self._tokens: Optional[Tokens] = None
        self._session: Any = None

    def current(self, timeout: Optional[float] = None) -> Optional[str]:
        """Return an access token, or None when no authentication is wanted.

        Blocks for at most ``timeout`` seconds (default 30) for a request of another thread, and as long for each of its
        own, of which there are at most two.

        Raises:
            AuthenticationError: The auth service refused the credentials.
            AuthenticationUnreachableError: It cannot be reached, or did not answer as one.
        """
        if self._settings.credentials is None:
            return None
        try:
            token: Optional[str] = hold(self._lock, self._limit(timeout), lambda: self._renewed(timeout))
        except LockTimeoutError:
            text = "the auth service did not answer another thread's request in time"
            raise self._unreachable("TIMEOUT", text) from None
        return token

    def _renewed(self, timeout: Optional[float]) -> Optional[str]:
        """Return a usable token, fetched if need be. Needs the lock."""
        action = tokens.decide(self._clock.time(), self._tokens)
        if action is Action.REFRESH:
            self._tokens = self._refreshed(timeout)
        elif action is Action.AUTHENTICATE:
            self._tokens = self._authenticated(timeout)
        return self._tokens.access if self._tokens else None

    def invalidate(self, token: Optional[str]) -> None:
        """Forget the token that a server refused, unless another has taken its place."""
        held = self._tokens
        if held is not None and held.access == token:
            self._tokens = None  # a new one that comes in between is merely fetched again

    def close(self) -> None:
        """Close the HTTP connections; does not wait for a request that is under way."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _refreshed(self, timeout: Optional[float]) -> Tokens:
        held = self._tokens
        assert held is not None
        try:
            return self._post("/v1/refresh", {"refresh_token": held.refresh}, timeout)
        except AuthenticationUnreachableError:
            raise
        except AuthenticationError as error:
            logger.info("the refresh was refused, authenticating anew: %s", error)
            return self._authenticated(timeout)

    def _authenticated(self, timeout: Optional[float]) -> Tokens:
        credentials = self._settings.credentials
        assert credentials is not None
        return self._post("/v1/authenticate", credentials._asdict(), timeout)

    def _post(self, path: str, body: Dict[str, Any], timeout: Optional[float]) -> Tokens:
        import requests  # here, because it takes longer to import than everything else together

        url, seconds = self._settings.auth_url + path, self._limit(timeout)
        session, tls = self._http(), self._settings.tls
        options: Dict[str, Any] = {"timeout": seconds, "headers": {"User-Agent": USER_AGENT}}
        if tls.ca_file:
            options["verify"] = tls.ca_file  # with each request: the environment would win over the session's own
        if tls.cert_file:
            options["cert"] = (tls.cert_file, tls.key_file) if tls.key_file else tls.cert_file
        answered: Any = queue.SimpleQueue()

        def exchange() -> None:
            try:
                answered.put(session.post(url, json=body, **options))
            except Exception as error:
                answered.put(error)

        # On a thread of its own, since the library's time-out only bounds each wait for a further byte.
        try:
            spawn("auth", exchange)
        except RuntimeError:  # the program is about to end, and takes no more threads
            raise self._unreachable("ENDING", "no token can be asked for while the program ends") from None
        try:
            reply = answered.get(timeout=seconds)
        except queue.Empty:
            raise self._unreachable("TIMEOUT", f"the auth service did not answer within {seconds:.3g} s") from None
        if isinstance(reply, requests.RequestException):
            # Neither the request nor its error is quoted: both could show the secret.
            raise self._unreachable(type(reply).__name__, "the auth service did not answer") from reply
        if isinstance(reply, Exception):
            raise reply
        if reply.status_code != 200:
            raise self._refusal(reply)
        try:
            answer = reply.json()
            return tokens.parse(answer["access_token"], answer.get("refresh_token", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._unreachable("HTTP 200", "the answer holds no tokens; is this an Ensign auth service?") from None

    def _limit(self, timeout: Optional[float]) -> float:
        return self._http_timeout if timeout is None else max(0.001, min(timeout, self._http_timeout))

    def _http(self) -> Any:
        if self._session is None:
            import requests

            self._session = requests.Session()
            if is_loopback(urlsplit(self._settings.auth_url).hostname or ""):
                self._session.proxies = {"http": "", "https": ""}
        return self._session

    def _refusal(self, reply: Any) -> AuthenticationError:
        try:
            text = str(reply.json().get("error", ""))
        except (ValueError, AttributeError):
            text = ""
        if reply.status_code == 429 or reply.status_code >= 500:
            return self._unreachable(f"HTTP {reply.status_code}", text or "the auth service is not able to answer now")
        if reply.status_code in (400, 401, 403):
            client_id = self._settings.credentials.client_id if self._settings.credentials else ""
            error = AuthenticationError(
                f"{self._settings.auth_url} refused the API key {client_id!r}: {text} (HTTP {reply.status_code});"
                " check client_id and client_secret, and that they belong to this auth_url"
            )
        else:
            error = AuthenticationError(
                f"{self._settings.auth_url} answered HTTP {reply.status_code}: is auth_url the address of an"
                " Ensign auth service?"
            )
        error.code, error.details = f"HTTP {reply.status_code}", text
        return error

    def _unreachable(self, code: str, details: str) -> AuthenticationUnreachableError:
        return AuthenticationUnreachableError(
            self._settings.auth_url, code, details, "check auth_url (ENSIGN_AUTH_URL) and that the service runs"
        )
