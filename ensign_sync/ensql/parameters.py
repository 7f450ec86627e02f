"""The values that stand in a query, or that parameters bring into it."""

import math
from typing import Any, Dict, Mapping, Optional, Union

from ensign_sync.exceptions import InvalidQueryError

from .full_lexer import shorten
from .lexer import quote

#: What a parameter can be. Bytes are a text in UTF-8, or the id of an event.
Parameter = Union[str, bytes, bool, int, float]

# More digits are no finite number, and Python itself refuses to read some thousands of them.
_MAX_DIGITS = 400


def _finite(number: Union[int, float]) -> bool:
    """Tell whether a number is one that a JSON payload can hold everywhere."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def number_of(text: str) -> Union[int, float, None]:
    """Return the number that a text is; None if it is too large."""
    if text.strip("-0123456789"):
        number: Union[int, float] = float(text)
    elif len(text.lstrip("-0")) > _MAX_DIGITS:
        return None
    else:
        digits = text.lstrip("-0") or "0"
        number = -int(digits) if text.startswith("-") else int(digits)
    return number if _finite(number) else None


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidQueryError(f"the name of a parameter is a text, got {type(name).__name__}")
    return str.__str__(name)


def _plain(name: str, value: Any) -> Parameter:
    """Return the value without any type of its own, such as that of an enum."""
    told = f"parameter {quote(shorten(name))}"
    if isinstance(value, (bool, bytes)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if not isinstance(value, (int, float)):
        kind = type(value).__name__
        raise InvalidQueryError(f"{told} is of type {kind}: a parameter is a text, a number, a boolean or bytes")
    if not _finite(value):
        raise InvalidQueryError(f"{told} is not a finite number, or too large for one")
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)


class Parameters:
    """The values of the parameters, checked. One that the query does not use is no mistake: servers ignore it."""

    def __init__(self, given: Optional[Mapping[str, Parameter]]) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise InvalidQueryError(f"parameters are a mapping of names to values, got {type(given).__name__}")
        self._values: Dict[str, Parameter] = {}
        for name, value in (given or {}).items():
            checked = _checked_name(name)
            self._values[checked] = _plain(checked, value)

    def __getitem__(self, name: str) -> Parameter:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._values
