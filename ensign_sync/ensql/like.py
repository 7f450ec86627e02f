"""Patterns of LIKE and ILIKE: ``%`` stands for any run of characters, ``_`` for one.

No pattern makes the matching slow: the time is about that of reading the text once.
"""

import re
from typing import Callable, Dict, List, NamedTuple, Tuple

Matcher = Callable[[str], bool]

# So many places are looked at one by one before the search turns to a way that costs the same for every text.
_TRIES = 64


class _Segment(NamedTuple):
    """What stands between two ``%``: its length, and its parts between ``_`` with their places, the longest first."""

    length: int
    parts: Tuple[Tuple[int, str], ...]


def _segment(pattern: str) -> _Segment:
    parts = [(match.start(), match.group()) for match in re.finditer("[^_]+", pattern)]
    return _Segment(len(pattern), tuple(sorted(parts, key=lambda part: -len(part[1]))))


def _fits(text: str, start: int, segment: _Segment) -> bool:
    """Tell whether the segment matches at a place; the text is long enough."""
    for place, part in segment.parts:  # noqa: SIM110 - all() of a generator costs twice as much
        if not text.startswith(part, start + place):
            return False
    return True


def _find(text: str, start: int, end: int, segment: _Segment) -> int:
    """Return the first place between two others where the segment matches, or -1."""
    if start + segment.length > end:
        return -1
    if not segment.parts:
        return start
    place, probe = segment.parts[0]
    behind = end - segment.length + place + len(probe)
    for _ in range(_TRIES):
        found = text.find(probe, start + place, behind)
        if found < 0:
            return -1
        start = found - place
        if _fits(text, start, segment):
            return start
        start += 1
    return _scan(text, start, end, segment)


def _scan(text: str, start: int, end: int, segment: _Segment) -> int:
    """Do the same as ``_find`` with one step for each character of the text, whatever text and segment are.

    Bit n of the state says that the first n + 1 characters of the segment match here (the Shift-And method).
    """
    anything = (1 << segment.length) - 1
    for place, part in segment.parts:
        anything &= ~(((1 << len(part)) - 1) << place)
    masks: Dict[str, int] = {}
    for place, part in segment.parts:
        for number, character in enumerate(part, start=place):
            masks[character] = masks.get(character, anything) | 1 << number
    state, whole = 0, 1 << (segment.length - 1)
    for number in range(start, end):
        state = (state << 1 | 1) & masks.get(text[number], anything)
        if state & whole:
            return number + 1 - segment.length
    return -1


def _fold_one(character: str) -> str:
    folded = character.casefold()
    if len(folded) > 1:
        folded = character.lower()
    return folded if len(folded) == 1 else character


def fold(text: str) -> str:
    """Return the text without the difference of cases, character by character, so that ``_`` still counts them."""
    folded = text.casefold()
    return folded if len(folded) == len(text) else "".join(map(_fold_one, text))


def compile_like(pattern: str, ignore_case: bool = False) -> Matcher:
    """Return what tells whether a whole text matches the pattern."""
    if not ignore_case:
        return _compile(pattern)
    matches = _compile(fold(pattern))
    return lambda text: matches(fold(text))


def _compile(pattern: str) -> Matcher:
    first, *others = pattern.split("%")
    if not others:
        only = _segment(first)
        return lambda text: len(text) == only.length and _fits(text, 0, only)
    last = others.pop()
    middle = [segment for segment in others if segment]
    if "_" in pattern:
        return _compile_segments(_segment(first), [_segment(segment) for segment in middle], _segment(last))

    def matches(text: str) -> bool:
        start, end = len(first), len(text) - len(last)
        if start > end or not (text.startswith(first) and text.endswith(last)):
            return False
        for segment in middle:
            found = text.find(segment, start, end)
            if found < 0:
                return False
            start = found + len(segment)
        return True

    return matches


def _compile_segments(first: _Segment, middle: List[_Segment], last: _Segment) -> Matcher:
    def matches(text: str) -> bool:
        start, end = first.length, len(text) - last.length
        if start > end or not (_fits(text, 0, first) and _fits(text, end, last)):
            return False
        for segment in middle:
            found = _find(text, start, end, segment)
            if found < 0:
                return False
            start = found + segment.length
        return True

    return matches
