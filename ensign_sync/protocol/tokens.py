"""What to do about a token, as a pure function of it and the time (docs/protocol.rst, "Tokens")."""

import base64
import binascii
import enum
import json
from typing import Any, Dict, NamedTuple, Optional

#: A token is renewed this many seconds before it expires, or a fifth of its life before, whichever is shorter.
LEEWAY = 60.0


class Action(enum.Enum):
    """What the holder of tokens does next."""

    USE = "use"
    REFRESH = "refresh"
    AUTHENTICATE = "authenticate"


class Tokens(NamedTuple):
    """A pair of tokens and the times in them, in seconds since 1970 by the server's clock."""

    access: str
    refresh: str
    access_from: float
    access_until: float
    refresh_from: float
    refresh_until: float

    def __repr__(self) -> str:
        return f"Tokens(access until {self.access_until}, refresh {self.refresh_from} to {self.refresh_until})"


def decide(now: float, tokens: Optional[Tokens]) -> Action:
    """Say whether to use the access token as it is, to refresh it, or to authenticate anew."""
    if tokens is None:
        return Action.AUTHENTICATE
    leeway = min(LEEWAY, (tokens.access_until - tokens.access_from) / 5)
    if now < tokens.access_until - leeway:
        return Action.USE
    if tokens.refresh and tokens.refresh_from <= now < tokens.refresh_until:
        return Action.REFRESH
    # Not refreshable yet or no more: an access token that still lives is used up to its end.
    return Action.USE if now < tokens.access_until - min(leeway, 5.0) else Action.AUTHENTICATE


def parse(access: str, refresh: str) -> Tokens:
    """Read the times out of two tokens; their signatures are the server's business.

    Raises:
        ValueError: A token is no JWT, or lacks its times.
    """
    first = _claims(access, "access token")
    second = _claims(refresh, "refresh token") if refresh else {}
    until = _number(first, "exp", "access token")
    return Tokens(
        access=access,
        refresh=refresh,
        access_from=_number(first, "iat", "access token", until - 3600.0),
        access_until=until,
        refresh_from=_number(second, "nbf", "refresh token", 0.0),
        refresh_until=_number(second, "exp", "refresh token", 0.0),
    )


def _claims(token: str, name: str) -> Dict[str, Any]:
    parts = token.split(".") if isinstance(token, str) else []
    if len(parts) != 3:
        raise ValueError(f"the {name} is no JWT: it has {len(parts)} parts instead of 3")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, UnicodeDecodeError, ValueError):
        # The cause is cut off: it could quote a part of the token.
        raise ValueError(f"the {name} is no JWT: its claims cannot be decoded") from None
    if not isinstance(claims, dict):
        raise ValueError(f"the {name} is no JWT: its claims are no object")
    return claims


def _number(claims: Dict[str, Any], key: str, name: str, default: Optional[float] = None) -> float:
    value = claims.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"the {name} has no usable {key!r}")
    return float(value)
