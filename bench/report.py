"""What was measured: values by name, as a table and as JSON."""

import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import grpc


class Goal(NamedTuple):
    """What the median of a figure should be."""

    limit: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Tell whether a value is as it should be."""
        return value >= self.limit if self.at_least else value < self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<'} {self.limit:g}"


class Figure(NamedTuple):
    """The values of one figure, one from each run."""

    unit: str
    goal: Optional[Goal]
    values: List[float]


def at_least(limit: float) -> Goal:
    """Return the goal of a figure that should be large."""
    return Goal(limit, True)


def below(limit: float) -> Goal:
    """Return the goal of a figure that should be small."""
    return Goal(limit, False)


class Report:
    """Figures in the order in which they came first."""

    def __init__(self) -> None:
        self.figures: Dict[str, Figure] = {}

    def add(self, name: str, unit: str, value: float, goal: Optional[Goal] = None) -> float:
        """Add the value of one run; returns it."""
        self.figures.setdefault(name, Figure(unit, goal, [])).values.append(value)
        return value

    def as_json(self) -> Dict[str, Any]:
        """Return everything, every value included."""
        return {name: self._summary(figure) for name, figure in self.figures.items()}

    def as_table(self) -> str:
        """Return a table with the figures of one kind together."""
        width = max(map(len, self.figures), default=0)
        lines = [f"{'':{width}}  {'min':>11} {'median':>11} {'max':>11}"]
        for name, figure in sorted(self.figures.items()):
            middle = statistics.median(figure.values)
            numbers = " ".join(f"{_short(value):>11}" for value in (min(figure.values), middle, max(figure.values)))
            verdict = ""
            if figure.goal is not None:
                verdict = f"  (goal {figure.goal}: {'met' if figure.goal.is_met(middle) else 'MISSED'})"
            lines.append(f"{name:{width}}  {numbers} {figure.unit}{verdict}")
        return "\n".join(lines)

    def publish(self, path: Optional[str], **run: Any) -> None:
        """Print the machine, how it was ``run``, and the table; write everything to a file if one is named."""
        machine = {
            "python": platform.python_version(),
            "grpcio": grpc.__version__,
            "system": platform.platform(),
            "processors": os.cpu_count(),
            **run,
        }
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        print(self.as_table())
        if path:
            Path(path).write_text(json.dumps({"machine": machine, "figures": self.as_json()}, indent=1) + "\n")

    @staticmethod
    def _summary(figure: Figure) -> Dict[str, Any]:
        middle = statistics.median(figure.values)
        summary: Dict[str, Any] = {
            "unit": figure.unit,
            "min": min(figure.values),
            "median": middle,
            "max": max(figure.values),
            "values": figure.values,
        }
        if figure.goal is not None:
            summary["goal"], summary["met"] = str(figure.goal), figure.goal.is_met(middle)
        return summary


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
