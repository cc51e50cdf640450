"""The results of a benchmark, kept in a JSON file that is written after every section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .section import Measured, Row, Target

FORMAT = 1


@dataclass(frozen=True)
class SectionResult:
    """A section that was measured.

    Args:
        name: see `Section`.
        title: see `Section`.
        about: see `Section`.
        started_at: ISO 8601, UTC.
        seconds: how long it took.
        commit: of the project.
        rounds: see `Conditions`.
        quick: see `Conditions`.
        measured: what came of it.
    """

    name: str
    title: str
    about: str
    started_at: str
    seconds: float
    commit: str
    rounds: int
    quick: bool
    measured: Measured

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "title": self.title,
            "about": self.about,
            "started_at": self.started_at,
            "seconds": round(self.seconds, 1),
            "commit": self.commit,
            "rounds": self.rounds,
            "quick": self.quick,
            "targets": [target.to_json() for target in self.measured.targets],
            "notes": list(self.measured.notes),
            "rows": [row.to_json() for row in self.measured.rows],
        }

    @classmethod
    def from_json(cls, name: str, stored: dict[str, Any]) -> Self:
        """The reverse of `to_json`."""
        return cls(
            name,
            stored["title"],
            stored["about"],
            stored["started_at"],
            stored["seconds"],
            stored["commit"],
            stored["rounds"],
            stored["quick"],
            Measured(
                [Row.from_json(row) for row in stored["rows"]],
                [Target.from_json(target) for target in stored["targets"]],
                stored["notes"],
            ),
        )


@dataclass(frozen=True)
class Results:
    """All that was measured on one machine, with one set of versions.

    Args:
        machine: see `describe_machine`.
        sections: by name.
    """

    machine: Mapping[str, Any]
    sections: Mapping[str, SectionResult]

    def with_section(self, result: SectionResult, order: Sequence[str]) -> Results:
        """With this one added, or in place of an earlier one of its name.

        Args:
            result: what is new.
            order: names in the order in which sections are shown; others come last.
        """
        sections = {**self.sections, result.name: result}
        names = dict.fromkeys((*(name for name in order if name in sections), *sections))
        return Results(self.machine, {name: sections[name] for name in names})

    def write(self, path: Path) -> None:
        """Writes the file, at once or not at all."""
        stored = {
            "format": FORMAT,
            "machine": self.machine,
            "sections": {name: section.to_json() for name, section in self.sections.items()},
        }
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(path)


def read_results(path: Path, machine: Mapping[str, Any]) -> Results:
    """What was measured before: nothing, where that was on another machine or with other versions.

    Args:
        path: the file, which need not be there.
        machine: the present one.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Results(machine, {})
    if stored["format"] != FORMAT or stored["machine"] != machine:
        return Results(machine, {})
    return Results(
        machine, {name: SectionResult.from_json(name, section) for name, section in stored["sections"].items()}
    )
