"""A section of the benchmark, and its results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .spread import Spread


@dataclass(frozen=True)
class Conditions:
    """How sections are run; `quick`: with small loads; `say` prints progress."""

    rounds: int
    quick: bool
    say: Callable[[str], None]

    def sized(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Row:
    """One contender's figures, by their names in `report.py`; `processes`: those that worked for it."""

    contender: str
    label: str
    load: Mapping[str, int]
    figures: Mapping[str, Spread]
    processes: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A claim with its bound, or without one for information; `found`: the median, of a ratio that of the rounds."""

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
    rows: Sequence[Row]
    targets: Sequence[Target]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A part of the benchmark; `measure` raises `EmulatorError` where a contender does other work than the load."""

    name: str
    title: str
    about: str
    measure: Callable[[Conditions], Awaitable[Measured]]
