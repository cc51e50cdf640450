"""A figure of several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Spread:
    """What was measured, in the order of the rounds."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """At least one value."""
        found = cls(tuple(values))
        if not found.values:
            raise ValueError("expected at least one value, found none")
        return found

    @property
    def median(self) -> float:
        """The middle one, or the mean of the two in the middle."""
        return statistics.median(self.values)

    @property
    def lowest(self) -> float:
        """The least of them."""
        return min(self.values)

    @property
    def highest(self) -> float:
        """The greatest of them."""
        return max(self.values)

    def over(self, other: Spread) -> Spread:
        """How many times as much as `other`, round by round: what slows a round down is in both, and drops out."""
        return Spread.of(mine / its for mine, its in zip(self.values, other.values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """All values, and what they come to."""
        return {"median": self.median, "min": self.lowest, "max": self.highest, "values": list(self.values)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The reverse of `to_json`."""
        return cls.of(stored["values"])


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of them does not exceed (nearest rank).

    Args:
        values: at least one.
        share: 0 to 1.
    """
    ordered = sorted(values)
    # ceil, without what binary fractions add to a whole number
    rank = -int(-round(share * len(ordered), 9) // 1)
    return ordered[max(rank, 1) - 1]
