"""Where the settings of a client come from: argument, credentials file, environment, default."""

import json
import os
import re
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

from .exceptions import EnsignSettingsError

DEFAULT_ENDPOINT = "ensign.rotational.app:443"
DEFAULT_AUTH_URL = "https://auth.rotational.app"
EMBEDDED = "embedded:"
_PORT = re.compile(r"[0-9]{1,5}\Z")
TRUE_WORDS = frozenset(["1", "y", "t", "yes", "true", "on"])
FALSE_WORDS = frozenset(["", "0", "f", "n", "no", "false", "off"])
_FILE_KEYS = {
    "client_id": "ClientID",
    "client_secret": "ClientSecret",
    "endpoint": "Endpoint",
    "auth_url": "AuthURL",
}


class Credentials(NamedTuple):
    """An API key; its text does not show the secret."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r}, client_secret='***')"

    def __str__(self) -> str:
        return repr(self)


class TLS(NamedTuple):
    """Files for an encrypted connection, PEM: who is trusted, and the certificate of this client."""

    ca_file: Optional[str] = None
    cert_file: Optional[str] = None
    key_file: Optional[str] = None


class Reconnect(NamedTuple):
    """How a stream comes back: full jitter below ``initial * factor**n`` seconds, capped at ``maximum``.

    The count starts again once a connection has made progress (an ack or an event). With ``give_up_after``
    a stream that made no progress for that many seconds fails for good; None tries for ever.
    """

    initial: float = 0.1
    maximum: float = 30.0
    factor: float = 2.0
    give_up_after: Optional[float] = None


class Redeliver(NamedTuple):
    """How an event is delivered again that was refused with DELIVER_AGAIN_ANY or DELIVER_AGAIN_NOT_ME.

    After ``initial * factor**n`` seconds, at most ``maximum``; delivered ``attempts`` times in all it is given up.
    """

    attempts: int = 5
    initial: float = 1.0
    maximum: float = 60.0
    factor: float = 2.0

    def check(self) -> None:
        """Raise EnsignSettingsError if it cannot be followed."""
        attempts, *numbers = self
        if type(attempts) is not int or attempts < 1:
            raise EnsignSettingsError(f"attempts of Redeliver must be a whole number from 1 on, got {attempts!r}")
        if not all(isinstance(number, (int, float)) and number >= 0 for number in numbers):
            raise EnsignSettingsError(f"the pauses and the factor of Redeliver must be numbers from 0 on, got {self!r}")

    def pause(self, refused: int) -> float:
        """Return how many seconds pass before an event that was refused so often before comes again."""
        pause = min(self.initial, self.maximum)
        for _ in range(refused if self.factor > 1.0 else 0):
            pause = min(pause * self.factor, self.maximum)
            if pause == self.maximum:
                break
        return pause


class Embedded(NamedTuple):
    """An ``embedded:`` endpoint taken apart."""

    path: str
    topics: Tuple[str, ...]
    strict: bool


class Settings(NamedTuple):
    """What a client needs to know before it connects. Credentials are None where no authentication is wanted."""

    endpoint: str
    insecure: bool
    auth_url: str
    credentials: Optional[Credentials]
    tls: TLS = TLS()
    embedded: Optional[Embedded] = None


def load(
    client_id: str = "",
    client_secret: str = "",
    cred_path: str = "",
    endpoint: str = "",
    insecure: Optional[bool] = None,
    auth_url: str = "",
    tls: Any = None,
    env: Optional[Mapping[str, str]] = None,
) -> Settings:
    """Collect the settings; the first source that has one wins.

    Raises:
        EnsignSettingsError: (a ValueError) one is missing or cannot be understood; names the ways to give it.
        TypeError: An argument that should be a text is none.
    """
    environment = os.environ if env is None else env
    arguments = {"client_id": client_id, "client_secret": client_secret, "endpoint": endpoint, "auth_url": auth_url}
    for name, value in arguments.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    if cred_path is not None and not isinstance(cred_path, (str, os.PathLike)):
        raise TypeError(f"cred_path must be a string, got {type(cred_path).__name__}")
    found = _sources(arguments, cred_path, environment)
    target = found["endpoint"] or DEFAULT_ENDPOINT
    if target.startswith(EMBEDDED):
        return Settings(target, True, "", None, TLS(), parse_embedded(target))
    check_endpoint(target)
    return Settings(
        endpoint=target,
        insecure=_insecure(insecure, environment),
        auth_url=_checked_url(found["auth_url"] or DEFAULT_AUTH_URL),
        credentials=_credentials(found, environment),
        tls=_tls(tls),
    )


def _sources(arguments: Dict[str, str], cred_path: str, env: Mapping[str, str]) -> Dict[str, str]:
    in_file = _read_file(cred_path, "cred_path") if cred_path else {}
    from_env = {name: env.get(f"ENSIGN_{name.upper()}", "") for name in arguments}
    shared = env.get("ENSIGN_CREDENTIALS", "")
    found = {name: arguments[name] or in_file.get(name, "") or from_env[name] for name in arguments}
    # The file of the environment is read only if something is still missing: a broken one should not stop a
    # program that names everything itself, or that needs nothing.
    if shared and not all(found.values()) and not found["endpoint"].startswith(EMBEDDED):
        in_shared = _read_file(shared, "ENSIGN_CREDENTIALS")
        found = {name: value or in_shared.get(name, "") for name, value in found.items()}
    return found


def _read_file(path: str, source: str) -> Dict[str, str]:
    content, problem = _parsed_file(path, source)
    if problem:
        raise EnsignSettingsError(problem)
    if not isinstance(content, dict):
        raise EnsignSettingsError(f"credentials file {path} must hold a JSON object with ClientID and ClientSecret")
    found = {name: content.get(key, "") for name, key in _FILE_KEYS.items()}
    wrong = [_FILE_KEYS[name] for name, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise EnsignSettingsError(f"{' and '.join(wrong)} in credentials file {path} must be text")
    return {name: str(value) for name, value in found.items()}


def _parsed_file(path: str, source: str) -> Tuple[Any, str]:
    """Return what is in a JSON file, or what is wrong with it.

    An error that is raised further up keeps no trace of the one down here: that quotes the file, secret included.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file), ""
    except FileNotFoundError:
        return None, f"credentials file not found: {path} (from {source})"
    except json.JSONDecodeError as error:
        return None, f"credentials file {path} has invalid JSON at line {error.lineno} column {error.colno}"
    except UnicodeDecodeError as error:
        return None, f"credentials file {path} cannot be read: no UTF-8 text at byte {error.start}"
    except OSError as error:
        return None, f"credentials file {path} cannot be read: {error}"
    except (ValueError, RecursionError) as error:
        return None, f"credentials file {path!r} cannot be read: {type(error).__name__}"


def _insecure(given: Any, env: Mapping[str, str]) -> bool:
    if given is None:
        return _flag("ENSIGN_INSECURE", env)
    return _flag("insecure", {"insecure": given}) if isinstance(given, str) else bool(given)


def _credentials(found: Dict[str, str], env: Mapping[str, str]) -> Optional[Credentials]:
    if _flag("ENSIGN_NO_AUTHENTICATION", env):
        return None
    missing = [name for name in ("client_id", "client_secret") if not found[name]]
    if missing:
        names = " and ".join(missing)
        variables = " and ".join(f"ENSIGN_{name.upper()}" for name in missing)
        raise EnsignSettingsError(
            f"{names} required: give them as arguments or in a cred_path file, or set {variables}"
            " (or ENSIGN_CREDENTIALS to the path of such a file) in the environment;"
            " endpoint='embedded:' needs none"
        )
    return Credentials(found["client_id"], found["client_secret"])


def _flag(name: str, env: Mapping[str, str]) -> bool:
    word = env.get(name, "").strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise EnsignSettingsError(f"{name} must be one of true, false, yes, no, on, off, 1, 0; got {word!r}")


def _tls(tls: Any) -> TLS:
    if tls is None:
        return TLS()
    if isinstance(tls, TLS):
        return tls
    if isinstance(tls, (str, os.PathLike)):
        return TLS(ca_file=os.fspath(tls))
    if isinstance(tls, Mapping):
        try:
            return TLS(**tls)
        except TypeError as error:
            raise EnsignSettingsError(f"tls takes ca_file, cert_file and key_file: {error}") from error
    raise TypeError("tls must be the path of a CA file, or TLS(ca_file=..., cert_file=..., key_file=...)")


def check_endpoint(endpoint: str) -> None:
    """Raise EnsignSettingsError unless the text is ``host:port`` (an IPv6 host in brackets)."""
    host, colon, port = endpoint.rpartition(":")
    if "/" in endpoint or not colon or not host or not (_PORT.match(port) and 0 < int(port) < 65536):
        raise EnsignSettingsError(
            f"endpoint must be host:port, such as {DEFAULT_ENDPOINT} or localhost:5356, or embedded:; got {endpoint!r}"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise EnsignSettingsError(f"an IPv6 address needs brackets, such as [::1]:5356; got {endpoint!r}")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise EnsignSettingsError(f"auth_url must be a URL such as {DEFAULT_AUTH_URL}; got {url!r}") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise EnsignSettingsError(f"auth_url must be a URL such as {DEFAULT_AUTH_URL}; got {url!r}")
    if "@" in parts.netloc:
        raise EnsignSettingsError("auth_url must not hold a user name or password: it is shown in messages")
    return url.rstrip("/")


def parse_embedded(endpoint: str) -> Embedded:
    """Take ``embedded:PATH?topics=a,b&strict=1`` apart; EnsignSettingsError names an unknown option."""
    path, _, query = endpoint[len(EMBEDDED) :].partition("?")
    options = {name: ",".join(values) for name, values in parse_qs(query, keep_blank_values=True).items()}
    unknown = sorted(set(options) - {"topics", "strict"})
    if unknown:
        raise EnsignSettingsError(f"unknown option {unknown[0]!r} in {endpoint!r}: there are topics and strict")
    topics = tuple(name for name in options.get("topics", "").split(",") if name)
    strict = _flag("strict", {"strict": options.get("strict", "")})
    return Embedded(path or ":memory:", topics, strict)
