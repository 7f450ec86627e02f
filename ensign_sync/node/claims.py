"""Signed tokens with nothing but the standard library (docs/protocol.rst, "Tokens").

RS256 with a key of three primes: smaller primes are found sooner, and a signature by the Chinese remainder theorem
takes less time. Whoever verifies sees an ordinary RSA key.
"""

import base64
import hashlib
import json
import re
import secrets
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..ids import ULID

KEY_BITS = 2048
_EXPONENT = 65537
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # PKCS #1: "what follows is SHA-256"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")
_SMALL_PRIMES: List[int] = [n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]


class InvalidToken(ValueError):
    """The token is none of ours, or not valid now, or not for this."""


class Key(NamedTuple):
    """A signing key: its name and its primes."""

    id: str
    primes: Tuple[int, ...]

    @property
    def modulus(self) -> int:
        """The public part."""
        product = 1
        for prime in self.primes:
            product *= prime
        return product

    def dump(self) -> bytes:
        """Return the key as bytes to keep."""
        return json.dumps({"id": self.id, "primes": [hex(prime) for prime in self.primes]}).encode("ascii")

    @classmethod
    def load(cls, data: bytes) -> "Key":
        """Read a key that was kept."""
        kept = json.loads(data)
        return cls(str(kept["id"]), tuple(int(prime, 16) for prime in kept["primes"]))


def make_key() -> Key:
    """Make a signing key; takes about a tenth of a second."""
    while True:
        primes = (_prime(683), _prime(683), _prime(682))
        key = Key(str(ULID.new()), primes)
        if len(set(primes)) == 3 and key.modulus.bit_length() == KEY_BITS:
            return key


class Signer:
    """Signs and verifies tokens with one key."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self._modulus = key.modulus
        # For each prime: its exponent, and the factor that lifts a residue of it to the whole modulus.
        self._parts = [(p, pow_inverse(_EXPONENT, p - 1), self._lift(p)) for p in key.primes]
        self._verified: Dict[str, Dict[str, Any]] = {}

    def _lift(self, prime: int) -> int:
        rest = self._modulus // prime
        return rest * pow_inverse(rest % prime, prime)

    def sign(self, claims: Dict[str, Any]) -> str:
        """Return a token with these claims."""
        header = {"alg": "RS256", "kid": self.key.id, "typ": "JWT"}
        text = f"{_b64(_compact(header))}.{_b64(_compact(claims))}"
        message = _padded(text)
        signature = sum(pow(message % p, d, p) * lift for p, d, lift in self._parts) % self._modulus
        return f"{text}.{_b64(signature.to_bytes(KEY_BITS // 8, 'big'))}"

    def claims(self, token: str, now: float, audience: str, issuer: str) -> Dict[str, Any]:
        """Return the claims of a token; InvalidToken if it is not ours, not valid now, or not for this audience."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            if len(self._verified) > 1000:
                self._verified.clear()
            self._verified[token] = claims
        if not (_time(claims, "nbf") <= now < _time(claims, "exp")) or _time(claims, "iat") > now:
            raise InvalidToken("not valid now")
        if audience not in claims.get("aud", ()) or claims.get("iss") != issuer:
            raise InvalidToken("not for this audience, or of another issuer")
        return claims

    def jwks(self) -> Dict[str, Any]:
        """Return the public key as the service publishes it."""
        numbers = {"n": self._modulus, "e": _EXPONENT}
        coded = {name: _b64(n.to_bytes((n.bit_length() + 7) // 8, "big")) for name, n in numbers.items()}
        return {"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.key.id, **coded}]}

    def _verify(self, token: str) -> Dict[str, Any]:
        try:
            text, _, coded = token.rpartition(".")
            header = json.loads(_unb64(text.partition(".")[0]))
            signature = int.from_bytes(_unb64(coded), "big")
            good = header.get("alg") == "RS256" and header.get("kid") == self.key.id
            if not good or signature >= self._modulus or pow(signature, _EXPONENT, self._modulus) != _padded(text):
                raise InvalidToken("bad signature")
            claims = json.loads(_unb64(text.partition(".")[2]))
        except InvalidToken:
            raise
        except Exception as error:
            raise InvalidToken("malformed") from error
        if not isinstance(claims, dict):
            raise InvalidToken("malformed")
        return claims


class Lifetimes(NamedTuple):
    """How long tokens live, in seconds; a refresh token starts to be good ``overlap`` before the access one ends."""

    access: float = 3600.0
    refresh: float = 7200.0
    overlap: float = 900.0


class Holder(NamedTuple):
    """Who a token is for."""

    key_id: str
    organization: str
    project: str
    permissions: Sequence[str]
    person: Mapping[str, str] = {}  # name and email, of a user


def issue(
    signer: Signer, holder: Holder, now: float, lifetimes: Lifetimes, audience: str, issuer: str
) -> Tuple[str, str]:
    """Return an access and a refresh token."""
    at = int(now)
    access_until = at + int(lifetimes.access)
    common = {"iss": issuer, "sub": holder.key_id, "jti": str(ULID.new()).lower(), "iat": at}
    who = {"org": holder.organization, **({"project": holder.project} if holder.project else {})}
    access = {
        **common,
        "aud": [audience],
        "nbf": at,
        "exp": access_until,
        **who,
        **holder.person,
        "permissions": list(holder.permissions),
        "account": "sandbox",
    }
    overlap = min(lifetimes.overlap, lifetimes.access)
    refresh = {
        **common,
        "aud": [audience, refresh_audience(issuer)],
        "nbf": access_until - int(overlap),
        "exp": at + int(lifetimes.refresh),
        **who,
    }
    return signer.sign(access), signer.sign(refresh)


def refresh_audience(issuer: str) -> str:
    """Return the audience that only a refresh token has."""
    return issuer.rstrip("/") + "/v1/refresh"


def _time(claims: Dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidToken(f"no {name}")
    return float(value)


def _padded(text: str) -> int:
    tail = _DIGEST_INFO + hashlib.sha256(text.encode("ascii")).digest()
    return int.from_bytes(b"\x00\x01" + b"\xff" * (KEY_BITS // 8 - len(tail) - 3) + b"\x00" + tail, "big")


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _unb64(text: str) -> bytes:
    if not _BASE64URL.match(text):
        raise ValueError("what is no base64 would be passed over")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def pow_inverse(number: int, modulus: int) -> int:
    """Return the inverse of a number (what ``pow(number, -1, modulus)`` does from 3.8 on)."""
    old, new, a, b = modulus, number % modulus, 0, 1
    while new:
        quotient = old // new
        old, new = new, old - quotient * new
        a, b = b, a - quotient * b
    if old != 1:
        raise ValueError("the numbers share a factor")
    return a % modulus


def _prime(bits: int) -> int:
    # The two top bits are set, so that three of them make a modulus of full length more often than not.
    while True:
        candidate = secrets.randbits(bits) | (0b111 << (bits - 3)) | 1
        if candidate % _EXPONENT != 1 and all(candidate % p for p in _SMALL_PRIMES) and _probably_prime(candidate):
            return candidate


def _probably_prime(n: int, rounds: Optional[int] = None) -> bool:
    """Miller and Rabin's test. For random candidates of this size four rounds leave less than one in 2**80."""
    d, twos = n - 1, 0
    while d % 2 == 0:
        d, twos = d // 2, twos + 1
    for _ in range(rounds or 4):
        x = pow(secrets.randbelow(n - 3) + 2, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True
