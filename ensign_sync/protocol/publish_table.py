"""Which input a publish stream takes in which state, and where it leads."""

from typing import Dict, Tuple

from .machine import Input, State, table

_S, _I = State, Input


def _row(state: State, after_last: State, **more: Tuple[State, ...]) -> Dict[Input, Tuple[State, ...]]:
    """Write the inputs that most states take alike; ``after_last`` follows the last event when closing."""
    maybe_last = (state, after_last)
    row = {
        Input.PUBLISH: (state,),
        Input.ABANDON: maybe_last,
        Input.REFUSE: maybe_last,
        Input.FOUND: maybe_last,
        Input.CLOSE: maybe_last,
        Input.LOST: (State.WAITING, State.CLOSED),
        Input.FAIL: (State.FAILED,),
    }
    row.update({Input[name]: after for name, after in more.items()})
    return row


_ANSWERS = dict.fromkeys(("ACK", "NACK"), (_S.OPEN, _S.CLOSING))
_LAST_ANSWERS = dict.fromkeys(("ACK", "NACK"), (_S.DRAINING, _S.CLOSING))
_STAY_CLOSING = ("ABANDON", "CLOSE", "FOUND", "READY", "ACK", "NACK", "CLOSE_STREAM", "UNKNOWN")

TRANSITIONS = table(
    {
        _S.IDLE: _row(_S.IDLE, _S.CLOSED, CONNECTED=(_S.OPENING,)),
        _S.OPENING: _row(_S.OPENING, _S.OPENING, READY=(_S.OPEN, _S.CHECKING, _S.CLOSING), UNKNOWN=(_S.OPENING,)),
        # Nothing was emitted on this connection, so no answer can come.
        _S.CHECKING: _row(
            _S.CHECKING,
            _S.CLOSING,
            STORED=(_S.OPEN, _S.CLOSING),
            DRAIN=(_S.DRAINING,),
            **dict.fromkeys(("ACK", "NACK", "CLOSE_STREAM", "UNKNOWN"), (_S.CHECKING,)),
        ),
        _S.OPEN: _row(
            _S.OPEN, _S.CLOSING, DRAIN=(_S.DRAINING,), CLOSE_STREAM=(_S.OPEN,), UNKNOWN=(_S.OPEN,), **_ANSWERS
        ),
        # Like OPEN, but nothing is emitted: the connection is given up as soon as it owes no answer.
        _S.DRAINING: _row(
            _S.DRAINING,
            _S.CLOSING,
            DRAIN=(_S.DRAINING,),
            CLOSE_STREAM=(_S.DRAINING,),
            UNKNOWN=(_S.DRAINING,),
            **_LAST_ANSWERS,
        ),
        # Half-closed: nobody waits for an answer any more.
        _S.CLOSING: {
            **{Input[name]: (_S.CLOSING,) for name in _STAY_CLOSING},
            _I.LOST: (_S.CLOSED,),
            _I.FAIL: (_S.CLOSED,),
        },
        _S.WAITING: _row(_S.WAITING, _S.CLOSED, CONNECTED=(_S.OPENING,)),
        _S.CLOSED: dict.fromkeys((_I.ABANDON, _I.CLOSE, _I.FOUND), (_S.CLOSED,)),
        _S.FAILED: dict.fromkeys((_I.ABANDON, _I.CLOSE, _I.FOUND), (_S.FAILED,)),
    }
)
