"""Opening a gRPC channel, and what its statuses mean (docs/protocol.rst, "Connection and limits" and "Statuses")."""

import ipaddress
from typing import Any, List, Optional, Sequence, Tuple

import grpc

from ..exceptions import (
    EnsignConnectionError,
    EnsignError,
    EnsignInvalidArgument,
    EnsignRPCError,
    EnsignSettingsError,
)
from ..settings import Settings
from ..version import __version__

try:
    from grpc.experimental import ChannelOptions

    # Reads a query's rows on the caller's own thread: four times as fast as the default.
    _SINGLE_THREADED: List[Tuple[str, Any]] = [(ChannelOptions.SingleThreadedUnaryStream, 1)]
except (ImportError, AttributeError):
    _SINGLE_THREADED = []

USER_AGENT = f"ensign-sync/{__version__}"

#: Statuses that say nothing of the request: the server was not there, or not all the way.
_CONNECTION_CODES = frozenset(["UNAVAILABLE"])


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_options(settings: Settings) -> List[Tuple[str, Any]]:
    """Return the channel's options, before the user's own."""
    options: List[Tuple[str, Any]] = [
        ("grpc.primary_user_agent", USER_AGENT),
        # A reply is larger than the request that was accepted, so the default of 4 MiB would lose large events.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Closing a channel must close its connections, whoever else talks to the same address.
        ("grpc.use_local_subchannel_pool", 1),
        *_SINGLE_THREADED,
    ]
    if is_loopback(settings.endpoint.rpartition(":")[0]):
        options.append(("grpc.enable_http_proxy", 0))
    return options


def open_channel(settings: Settings, extra: Sequence[Tuple[str, Any]] = ()) -> grpc.Channel:
    """Make a channel; it connects when it is first used."""
    options = [*default_options(settings), *extra]
    if settings.insecure:
        return grpc.insecure_channel(settings.endpoint, options)
    tls = settings.tls
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca_file),
        private_key=_read(tls.key_file),
        certificate_chain=_read(tls.cert_file),
    )
    return grpc.secure_channel(settings.endpoint, credentials, options)


def _read(path: Optional[str]) -> Optional[bytes]:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EnsignSettingsError(f"TLS file {path} cannot be read: {error}") from error


def to_exception(error: Any, name: str, settings: Settings) -> EnsignError:
    """Turn a grpc.RpcError into the error that a user sees; ``name`` says what was asked."""
    code = status_name(error)
    details = error.details() if hasattr(error, "details") else str(error)
    details = details or ""
    if code in _CONNECTION_CODES and not _is_the_servers_word(details):
        return EnsignConnectionError(settings.endpoint, code, details, hint_for(details, settings))
    if code == "INVALID_ARGUMENT":
        return EnsignInvalidArgument(name, code, details)
    return EnsignRPCError(name, code, details)


def status_name(error: Any) -> str:
    """Return the name of a status, such as UNAVAILABLE."""
    code = error.code() if callable(getattr(error, "code", None)) else None
    return str(getattr(code, "name", code) or "UNKNOWN")


def _is_the_servers_word(details: str) -> bool:
    return details.startswith("the Ensign server is") or details.startswith("ensign broker")


def hint_for(details: str, settings: Settings) -> str:
    """Choose one thing to look at; only the wording depends on the details, never what is done."""
    text = details.lower()
    if not settings.insecure and "certificate_verify" in text:
        return "the server's certificate is not trusted: give its CA with tls='ca.pem'"
    if not settings.insecure and any(word in text for word in ("ssl", "tls", "handshake", "socket closed")):
        return "the port may speak plaintext: set insecure=True (or ENSIGN_INSECURE=true)"
    if settings.insecure and any(word in text for word in ("socket closed", "reset", "http2", "settings frame")):
        return "the connection broke; if it always does, the port may speak TLS: leave insecure out"
    if "dns" in text or "name resolution" in text or "resolve" in text or "not known" in text:
        return "the host name cannot be resolved: check the spelling and the DNS"
    if "refused" in text or "failed to connect" in text:
        return "nothing listens there: start a server (ensign-sync serve), or check host and port"
    return "check that the server runs and that a proxy or firewall lets HTTP/2 through"
