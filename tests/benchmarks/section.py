"""What a section of the benchmark is, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from .spread import Spread


@dataclass(frozen=True)
class Conditions:
    """How sections are run.

    Args:
        rounds: how often each contender is measured.
        quick: loads are so small that the figures say only that everything works.
        say: tells whoever waits what is going on.
    """

    rounds: int
    quick: bool
    say: Callable[[str], None]

    def sized(self, full: int, quick: int) -> int:
        """The one of both sizes that is asked for."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Row:
    """One contender's figures under one load.

    Args:
        contender: its name.
        label: the load in short.
        load: the load in numbers, by name.
        figures: by their names in `figure_names.py`.
        processes: the median CPU seconds and peak megabytes of who worked for it, by process.
    """

    contender: str
    label: str
    load: Mapping[str, int]
    figures: Mapping[str, Spread]
    processes: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "contender": self.contender,
            "label": self.label,
            "load": dict(self.load),
            "figures": {name: spread.to_json() for name, spread in self.figures.items()},
            "processes": {
                process: {name: spread.to_json() for name, spread in uses.items()}
                for process, uses in self.processes.items()
            },
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The reverse of `to_json`."""
        return cls(
            stored["contender"],
            stored["label"],
            stored["load"],
            {name: Spread.from_json(spread) for name, spread in stored["figures"].items()},
            {
                process: {name: Spread.from_json(spread) for name, spread in uses.items()}
                for process, uses in stored["processes"].items()
            },
        )


@dataclass(frozen=True)
class Target:
    """What was to be reached, or a ratio to read beside it.

    Args:
        claim: in words, with its unit.
        found: the median, of a ratio the median of the rounds' ratios.
        bound: what it was to be; None: there is no target.
        at_least: it was to be this or more; else this or less.
        digits: after the point, when it is shown.
    """

    claim: str
    found: float
    bound: float | None
    at_least: bool
    digits: int = 2

    @property
    def met(self) -> bool | None:
        """Returns whether it was reached; None without a target."""
        if self.bound is None:
            return None
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    @property
    def wanted(self) -> str:
        """Returns the bound in words, nothing without a target."""
        if self.bound is None:
            return ""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:,.{self.digits}f}"

    def to_json(self) -> dict[str, Any]:
        """As it is stored, with the verdict."""
        return {
            "claim": self.claim,
            "found": self.found,
            "wanted": "at least" if self.at_least else "at most",
            "bound": self.bound,
            "digits": self.digits,
            "met": self.met,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The reverse of `to_json`; the verdict is formed anew."""
        return cls(stored["claim"], stored["found"], stored["bound"], stored["wanted"] == "at least", stored["digits"])


def at_least(claim: str, found: Spread, bound: float, *, digits: int = 2) -> Target:
    """The median is to be this or more."""
    return Target(claim, found.median, bound, at_least=True, digits=digits)


def at_most(claim: str, found: Spread, bound: float, *, digits: int = 2) -> Target:
    """The median is to be this or less."""
    return Target(claim, found.median, bound, at_least=False, digits=digits)


def reported(claim: str, found: Spread, *, digits: int = 2) -> Target:
    """Returns the median, for which there is no target."""
    return Target(claim, found.median, None, at_least=True, digits=digits)


@dataclass(frozen=True)
class Measured:
    """What a section measured.

    Args:
        rows: the figures.
        targets: what was to be reached.
        notes: what one has to know to read them.
    """

    rows: Sequence[Row]
    targets: Sequence[Target]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A part of the benchmark that can be run alone.

    Args:
        name: on the command line.
        title: above its table.
        about: what it runs, in a sentence or two.
        require: raises `EmulatorError` where something is not installed, and says how to get it.
        measure: runs it. Raises `EmulatorError` where a contender does not do what it was asked to.
    """

    name: str
    title: str
    about: str
    require: Callable[[], object]
    measure: Callable[[Conditions], Awaitable[Measured]]
