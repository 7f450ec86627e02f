"""Tokens: signed by the node, read by any JWT library, and good for nothing else than what they were made for."""

import base64
import json

import pytest

from ensign_sync.node import claims
from ensign_sync.node.claims import Holder, InvalidToken, Key, Lifetimes, Signer

HOLDER = Holder("01HFQX2V7Z8Q3M5N6P7R8S9T0V", "org", "project", ["publisher"])
AUDIENCE, ISSUER = "https://ensign.rotational.app", "http://127.0.0.1:8088"


@pytest.fixture(scope="module")
def signer():
    """A signer with a fresh key."""
    return Signer(claims.make_key())


def issue(signer, now=1_000_000):
    """Issue a pair of tokens."""
    return claims.issue(signer, HOLDER, now, Lifetimes(), AUDIENCE, ISSUER)


def read(token, part):
    """Decode a part of a token, as any library does."""
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_claims_and_lifetimes(signer):
    """The claims of both tokens and their times are those of the real service."""
    access, refresh = issue(signer)
    assert read(access, 0) == {"alg": "RS256", "typ": "JWT", "kid": signer.key.id}
    first, second = read(access, 1), read(refresh, 1)
    assert first["aud"] == [AUDIENCE]
    assert second["aud"] == [AUDIENCE, ISSUER + "/v1/refresh"]
    assert (first["iat"], first["nbf"], first["exp"]) == (1_000_000, 1_000_000, 1_003_600)
    assert (second["nbf"], second["exp"]) == (1_002_700, 1_007_200)
    assert first["permissions"] == ["publisher"]
    assert "permissions" not in second
    assert first["jti"] == second["jti"] == first["jti"].lower()
    assert (first["sub"], first["project"], first["account"]) == (HOLDER.key_id, "project", "sandbox")


def test_the_published_key_verifies(signer):
    """Whoever has the JWKS can verify with textbook RSA."""
    token, _ = issue(signer)
    (jwk,) = signer.jwks()["keys"]
    assert (jwk["kty"], jwk["alg"], jwk["use"], jwk["kid"]) == ("RSA", "RS256", "sig", signer.key.id)

    def number(text):
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")

    signature = number(token.split(".")[2])
    padded = pow(signature, number(jwk["e"]), number(jwk["n"])).to_bytes(256, "big")
    assert padded.startswith(b"\x00\x01\xff\xff")
    assert number(jwk["n"]).bit_length() == 2048


def test_good_tokens(signer):
    """A token is good from its nbf to its exp, for its audience and issuer."""
    access, refresh = issue(signer)
    assert signer.claims(access, 1_000_000, AUDIENCE, ISSUER)["sub"] == HOLDER.key_id
    assert signer.claims(access, 1_003_599, AUDIENCE, ISSUER)
    assert signer.claims(refresh, 1_002_700, ISSUER + "/v1/refresh", ISSUER)


@pytest.mark.parametrize(
    ("now", "audience", "issuer"),
    [
        (999_999, AUDIENCE, ISSUER),
        (1_003_600, AUDIENCE, ISSUER),
        (1_000_000, "https://elsewhere", ISSUER),
        (1_000_000, AUDIENCE, "https://elsewhere"),
        (1_000_000, ISSUER + "/v1/refresh", ISSUER),
    ],
)
def test_tokens_at_the_wrong_time_or_place(signer, now, audience, issuer):
    """Too early, too late, for another audience, of another issuer, an access token for refreshing."""
    access, _ = issue(signer)
    with pytest.raises(InvalidToken):
        signer.claims(access, now, audience, issuer)


def test_forged_tokens(signer):
    """Rubbish, changed claims, another key, no algorithm: none is good."""
    access, _ = issue(signer)
    head, body, signature = access.split(".")
    other, _ = issue(Signer(claims.make_key()))
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": signer.key.id}).encode()).decode().rstrip("=")
    forged = [
        "",
        "a",
        "a.b.c",
        "ü.ü.ü",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body[:-4]}AAAA.{signature}",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.{'_' * 342}",
        other,
    ]
    for token in forged:
        with pytest.raises(InvalidToken):
            signer.claims(token, 1_000_000, AUDIENCE, ISSUER)


def test_a_key_can_be_kept(signer):
    """A key that was kept signs the same."""
    again = Signer(Key.load(signer.key.dump()))
    access, _ = issue(signer)
    assert again.claims(access, 1_000_000, AUDIENCE, ISSUER)
    assert again.sign({"a": 1}) == signer.sign({"a": 1})


def test_what_is_signed_but_no_claims(signer):
    """A signed token without times, or with claims that are no object, is not good."""
    for body in ({}, {"nbf": "x", "exp": 1, "iat": 1}, {"nbf": True, "exp": 1, "iat": 1}):
        with pytest.raises(InvalidToken):
            signer.claims(signer.sign(body), 1, AUDIENCE, ISSUER)


def test_inverse():
    """The inverse of a number, and an error where there is none."""
    assert claims.pow_inverse(3, 10) == 7
    with pytest.raises(ValueError, match="factor"):
        claims.pow_inverse(4, 10)
