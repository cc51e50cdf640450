"""The file of measurements: what was measured, where, of which state of the project."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from ..drained_run import DrainFigures, DrainLoad, PhaseFigures

FILE = Path(__file__).parent / "measurements.json"


@dataclass(frozen=True)
class Measurements:
    """What one command measures.

    Args:
        measured_at: when the last round ended, UTC.
        commit: of the project.
        machine: its cores and its processor.
        rounds: of each case, its figures, by the case's name.
        upkeep: what the run's size costs dispatch and others, by the number of open batches: milliseconds by function.
        prune_seconds: for a million results.
    """

    measured_at: str
    commit: str
    machine: Mapping[str, Any]
    rounds: Mapping[str, Sequence[DrainFigures]]
    upkeep: Mapping[int, Mapping[str, float]]
    prune_seconds: float

    @property
    def cores(self) -> int:
        """Of the machine."""
        return int(self.machine["cores"])

    def typical(self, case: str) -> DrainFigures:
        """The round of a case that took neither longest nor shortest; of two the longer one."""
        ordered = sorted(self.rounds[case], key=lambda figures: figures.drain.seconds)
        return ordered[len(ordered) // 2]

    def seconds(self, case: str) -> float:
        """To drain it, the median."""
        return median(figures.drain.seconds for figures in self.rounds[case])

    def write(self, file: Path = FILE) -> None:
        """All of it, rounded to what was measured."""
        file.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path = FILE) -> Self:
        """The reverse of `write`."""
        stored = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            stored["measured_at"],
            stored["commit"],
            stored["machine"],
            {case: [_figures(round_) for round_ in rounds] for case, rounds in stored["rounds"].items()},
            {int(batches): found for batches, found in stored["upkeep"].items()},
            stored["prune_seconds"],
        )


def _figures(stored: dict[str, Any]) -> DrainFigures:
    parts = {
        "load": DrainLoad(**stored["load"]),
        "enumeration": PhaseFigures(**stored["enumeration"]),
        "drain": PhaseFigures(**stored["drain"]),
    }
    return DrainFigures(**(stored | parts))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _rounded(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(member) for member in value]
    return round(value, 6) if isinstance(value, float) else value
