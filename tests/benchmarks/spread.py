"""A figure of several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The values are in the order of the rounds."""

    median: float
    min: float
    max: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = tuple(values)
        if not found:
            raise ValueError("expected at least one value, found none")
        return cls(statistics.median(found), min(found), max(found), found)

    def over(self, other: Spread) -> Spread:
        """Returns the ratios round by round: what slows a round down is in both, and drops out."""
        return Spread.of(mine / its for mine, its in zip(self.values, other.values, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the nearest rank: the least value that at least this share of them, 0 to 1, does not exceed."""
    ordered = sorted(values)
    # ceil, without what binary fractions add to a whole number
    rank = -int(-round(share * len(ordered), 9) // 1)
    return ordered[max(rank, 1) - 1]
