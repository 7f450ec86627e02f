"""Whether and when to try again, as a pure function (docs/protocol.rst, "Statuses")."""

from typing import NamedTuple, Optional

from ..exceptions import EnsignError
from ..settings import Reconnect

#: So many tokens in a row may be refused before it is believed.
MOST_REFUSALS = 3


class History(NamedTuple):
    """What a stream or a call has tried since it last made progress.

    Attributes:
        attempts: How many tries failed.
        seconds: How long that has been going on.
        refusals: How many tokens were refused one after the other, with no other failure between.
    """

    attempts: int = 0
    seconds: float = 0.0
    refusals: int = 0


def is_token_refused(error: Exception) -> bool:
    """Tell whether a server did not accept the token of a call."""
    return isinstance(error, EnsignError) and error.code == "UNAUTHENTICATED"


def decide(error: Exception, history: History, jitter: float, policy: Reconnect) -> Optional[float]:
    """Return after how many seconds to try again, or None to give up.

    A refused token is worth another try, at once, with a new one, and a few more where that is refused too. What an
    error calls retriable is tried again after a random part (``jitter``, from 0 to 1) of an interval that grows with
    each failure.
    """
    if is_token_refused(error):
        # One that was renewed may have expired again, or been revoked, before it was used; not time after time.
        if history.refusals >= MOST_REFUSALS:
            return None
        return jitter * interval(history.refusals, policy) if history.refusals else 0.0
    if not (isinstance(error, EnsignError) and error.retriable):
        return None
    if policy.give_up_after is not None and history.seconds >= policy.give_up_after:
        return None
    return jitter * interval(history.attempts, policy)


def interval(attempts: int, policy: Reconnect) -> float:
    """Return the longest pause after so many failures; it grows by the factor and stops at the maximum."""
    if policy.initial >= policy.maximum or policy.factor <= 1.0:
        return min(policy.initial, policy.maximum)
    pause = policy.initial
    for _ in range(attempts):
        pause *= policy.factor
        if pause >= policy.maximum:
            return policy.maximum
    return pause
