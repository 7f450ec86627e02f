"""Retrying and tokens: pure functions of what happened and the time."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensign_sync.exceptions import (
    AuthenticationError,
    AuthenticationUnreachableError,
    EnsignConnectionError,
    EnsignError,
    EnsignRPCError,
)
from ensign_sync.protocol import retry, tokens
from ensign_sync.protocol.retry import History
from ensign_sync.protocol.tokens import Action, Tokens
from ensign_sync.settings import Reconnect
from tests.size import by_size
from tests.tables import each

POLICY = Reconnect(initial=0.1, maximum=30.0, factor=2.0)

RETRIABLE = [
    EnsignConnectionError("here:1", "UNAVAILABLE", "refused"),
    AuthenticationUnreachableError("http://here", "ConnectionError", "refused"),
    *[
        EnsignRPCError("Publish", code, "")
        for code in "UNAVAILABLE DEADLINE_EXCEEDED ABORTED INTERNAL UNKNOWN RESOURCE_EXHAUSTED CANCELLED".split()
    ],
]
FINAL = [
    AuthenticationError("wrong secret"),
    EnsignError("a defect"),
    ValueError("of the user's"),
    *[
        EnsignRPCError("Publish", code, "")
        for code in "PERMISSION_DENIED INVALID_ARGUMENT NOT_FOUND FAILED_PRECONDITION UNIMPLEMENTED".split()
    ],
]


@each("error", RETRIABLE, ids=repr)
def test_passing_faults_are_tried_again(error):
    """What may pass is tried again, within the interval."""
    assert retry.decide(error, History(), 0.5, POLICY) == pytest.approx(0.05)


@each("error", FINAL, ids=repr)
def test_lasting_faults_are_not(error):
    """What will not pass by itself is given up at once."""
    assert retry.decide(error, History(), 0.5, POLICY) is None


def test_a_refused_token_is_renewed():
    """UNAUTHENTICATED is worth another try, at once, and a few more."""
    error = EnsignRPCError("Publish", "UNAUTHENTICATED", "invalid credentials")
    assert retry.is_token_refused(error)
    assert retry.decide(error, History(), 0.5, POLICY) == 0.0
    for refusals in range(1, retry.MOST_REFUSALS):
        expected = 0.5 * retry.interval(refusals, POLICY)
        assert retry.decide(error, History(refusals=refusals), 0.5, POLICY) == expected
    assert retry.decide(error, History(refusals=retry.MOST_REFUSALS), 0.5, POLICY) is None


def test_giving_up_after_a_time():
    """give_up_after counts from the last progress; without it tries go on for ever."""
    error = RETRIABLE[0]
    limited = POLICY._replace(give_up_after=10.0)
    assert retry.decide(error, History(3, 9.9), 1.0, limited) is not None
    assert retry.decide(error, History(3, 10.0), 1.0, limited) is None
    assert retry.decide(error, History(10**6, 1e9), 1.0, POLICY) == 30.0


@settings(max_examples=by_size(10, 50, 500, 5_000), deadline=None)
@given(
    attempts=st.integers(0, 10_000),
    jitter=st.floats(0, 1),
    initial=st.floats(0, 100),
    maximum=st.floats(0, 100),
    factor=st.floats(0, 10),
)
def test_a_pause_is_never_longer_than_the_maximum(attempts, jitter, initial, maximum, factor):
    """Whatever the policy, a pause lies between nothing and the maximum."""
    policy = Reconnect(initial, maximum, factor)
    pause = retry.decide(RETRIABLE[0], History(attempts), jitter, policy)
    assert 0.0 <= pause <= maximum


def test_intervals_grow_to_the_maximum():
    """The interval doubles with each failure and then stays."""
    assert [retry.interval(n, POLICY) for n in (0, 1, 2, 3, 20)] == [0.1, 0.2, 0.4, 0.8, 30.0]


def pair(access_from=0.0, access_until=3600.0, refresh_from=2700.0, refresh_until=7200.0):
    """Return tokens with these times."""
    return Tokens("access", "refresh", access_from, access_until, refresh_from, refresh_until)


@each(
    ("now", "held", "wanted"),
    [
        (0, None, Action.AUTHENTICATE),
        (0, pair(), Action.USE),
        (3539, pair(), Action.USE),
        (3541, pair(), Action.REFRESH),
        (7199, pair(), Action.REFRESH),
        (7200, pair(), Action.AUTHENTICATE),
        (3541, pair(refresh_from=3600), Action.USE),
        (3596, pair(refresh_from=3600), Action.AUTHENTICATE),
        (3541, pair()._replace(refresh=""), Action.USE),
        (3601, pair()._replace(refresh=""), Action.AUTHENTICATE),
        (4, pair(access_until=6, refresh_from=4, refresh_until=14), Action.USE),
        (5, pair(access_until=6, refresh_from=4, refresh_until=14), Action.REFRESH),
    ],
)
def test_what_to_do_about_a_token(now, held, wanted):
    """Use it while it lives, refresh it ahead of its end where that is allowed, else authenticate."""
    assert tokens.decide(now, held) is wanted


def jwt(claims):
    """Return an unsigned token with these claims."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


def test_times_are_read_out_of_tokens():
    """iat and exp of the access token, nbf and exp of the refresh token."""
    read = tokens.parse(jwt({"iat": 1, "exp": 2}), jwt({"nbf": 3, "exp": 4}))
    assert (read.access_from, read.access_until, read.refresh_from, read.refresh_until) == (1, 2, 3, 4)
    assert "head" not in repr(read)


def test_tokens_without_optional_times():
    """Without iat an hour of life is assumed; without a refresh token there is nothing to refresh."""
    read = tokens.parse(jwt({"exp": 7200}), "")
    assert (read.access_from, read.refresh_until) == (3600, 0)


@each(
    ("access", "why"),
    [
        ("no token", "1 parts"),
        (None, "0 parts"),
        ("a.!!!.c", "cannot be decoded"),
        ("a.eyJh.c", "cannot be decoded"),
        (jwt([1]), "no object"),
        (jwt({}), "no usable 'exp'"),
        (jwt({"exp": "soon"}), "no usable 'exp'"),
        (jwt({"exp": True}), "no usable 'exp'"),
    ],
)
def test_what_is_no_token_is_named_without_being_shown(access, why):
    """The error says what is wrong and shows nothing of the token."""
    with pytest.raises(ValueError, match=why) as caught:
        tokens.parse(access, "")
    assert caught.value.__cause__ is None
