"""The records of the demo: what they are, what arrived of them, and what they say."""

import collections
import csv
import json
import os
from typing import Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

_FILE = os.path.join(os.path.dirname(__file__), "seattle-weather.csv")
_LONGEST_BAR = 28


class Day(NamedTuple):
    """The weather of a day in Seattle."""

    date: str
    precipitation: float
    temp_max: float
    temp_min: float
    wind: float
    weather: str

    def dump(self) -> str:
        """Return the day as JSON."""
        return json.dumps(self._asdict())


def read() -> List[Day]:
    """Read all days, in their order."""
    with open(_FILE, encoding="utf-8", newline="") as file:
        return [_day(row) for row in csv.DictReader(file)]


def _day(row: Dict[str, str]) -> Day:
    rain, high, low, wind = (float(row[name]) for name in ("precipitation", "temp_max", "temp_min", "wind"))
    return Day(row["date"], rain, high, low, wind, row["weather"])


def load(text: str) -> Day:
    """Read a day from JSON; ValueError if it is none."""
    try:
        return Day(**json.loads(text))
    except TypeError as error:
        raise ValueError(f"{text[:60]!r} is no day") from error


def differences(sent: Sequence[str], received: Sequence[str]) -> List[str]:
    """Compare what was sent with what arrived; returns a line for each kind of difference, none if all is well."""
    sent_counts, received_counts = collections.Counter(sent), collections.Counter(received)
    more = received_counts - sent_counts
    kinds = {
        "lost": list((sent_counts - received_counts).elements()),
        "received more than once": [text for text in more.elements() if text in sent_counts],
        "never sent": [text for text in more.elements() if text not in sent_counts],
        "out of order": out_of_order(sent, received),
    }
    return [f"{len(texts)} {kind}, first {texts[0][:60]}" for kind, texts in kinds.items() if texts]


def out_of_order(sent: Sequence[str], received: Iterable[str]) -> List[str]:
    """Return what arrived after something that was sent later; lost and doubled ones do not count."""
    places: Dict[str, List[int]] = collections.defaultdict(list)
    for place, text in reversed(list(enumerate(sent))):
        places[text].append(place)
    late, highest = [], -1
    for text in received:
        if places.get(text):
            place = places[text].pop()
            if place < highest:
                late.append(text)
            highest = max(place, highest)
    return late


def wettest(days: Iterable[Day], count: int) -> List[Tuple[str, ...]]:
    """Return the days with the most precipitation as rows of a table, with a bar of it."""
    found = _highest(days, lambda day: day.precipitation, count)
    most = max((day.precipitation for day in found), default=0.0) or 1.0
    return [(*_cells(day), "#" * round(day.precipitation / most * _LONGEST_BAR)) for day in found]


def hottest(days: Iterable[Day], count: int) -> List[Tuple[str, ...]]:
    """Return the days with the highest temperatures as rows of a table."""
    return [_cells(day) for day in _highest(days, lambda day: day.temp_max, count)]


def _highest(days: Iterable[Day], value: Callable[[Day], float], count: int) -> List[Day]:
    return sorted(days, key=lambda day: (-value(day), day.date))[:count]


def _cells(day: Day) -> Tuple[str, ...]:
    numbers = (day.precipitation, day.temp_max, day.temp_min, day.wind)
    return (day.date, day.weather, *(f"{number:.1f}" for number in numbers))


#: The heads of the columns of the rows above.
HEADS = ("DATE", "WEATHER", "RAIN mm", "MAX C", "MIN C", "WIND m/s")
