"""A section of the benchmark, and its results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .spread import Spread


@dataclass(frozen=True)
class Conditions:
    """How sections are run: rounds for each contender, whether loads are small, and where progress is printed."""

    rounds: int
    quick: bool
    say: Callable[[str], None]

    def sized(self, full: int, quick: int) -> int:
        """Returns the size for a full or a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Row:
    """One contender's figures, by their names in `report.py`, under one load, in short and in numbers.

    `processes`: CPU seconds and peak megabytes of those that worked for it.
    """

    contender: str
    label: str
    load: Mapping[str, int]
    figures: Mapping[str, Spread]
    processes: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What was to be reached, or with no bound a figure to read beside it.

    `found`: the median, of a ratio the median of the rounds' ratios. `wanted`: "at least" or "at most" the bound.
    `digits`: after the point, when it is shown.
    """

    claim: str
    found: float
    wanted: str
    bound: float | None
    digits: int
    met: bool | None


def at_least(claim: str, found: Spread, bound: float, *, digits: int = 2) -> Target:
    return Target(claim, found.median, "at least", bound, digits, found.median >= bound)


def at_most(claim: str, found: Spread, bound: float, *, digits: int = 2) -> Target:
    return Target(claim, found.median, "at most", bound, digits, found.median <= bound)


def reported(claim: str, found: Spread, *, digits: int = 2) -> Target:
    return Target(claim, found.median, "at least", None, digits, None)


@dataclass(frozen=True)
class Measured:
    """What a section measured: the figures, what was to be reached, and what a reader has to know."""

    rows: Sequence[Row]
    targets: Sequence[Target]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A part of the benchmark that can be run alone by its name on the command line, and what stands above its table.

    `measure` runs it, and raises `EmulatorError` where a contender does not do what it was asked to.
    """

    name: str
    title: str
    about: str
    measure: Callable[[Conditions], Awaitable[Measured]]
