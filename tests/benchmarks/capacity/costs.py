"""What one of each thing costs, in CPU seconds of each component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What each component's CPU time is made of. A claim is a request that hands out some batches; a batch is handed out,
# recorded and acknowledged; a row is a result that gets one of its own.
FEATURES: Mapping[str, tuple[str, ...]] = {
    "function": ("call", "evaluation", "claim", "batch", "row"),
    "gateway": ("claim", "batch", "row"),
    "postgrest": ("claim", "batch", "row"),
    "postgres": ("claim", "batch", "row"),
    "engine": ("call", "evaluation"),
}
COMPONENTS = tuple(FEATURES)
# Those that work for every request of the Data API, and are on the machine of the database.
DATABASE = ("gateway", "postgrest", "postgres")


@dataclass(frozen=True)
class Work:
    """How much there is of each feature."""

    calls: float = 0
    evaluations: float = 0
    claims: float = 0
    batches: float = 0
    rows: float = 0

    def of(self, feature: str) -> float:
        """By the feature's name."""
        return {
            "call": self.calls,
            "evaluation": self.evaluations,
            "claim": self.claims,
            "batch": self.batches,
            "row": self.rows,
        }[feature]


@dataclass(frozen=True)
class Costs:
    """Measured on one machine.

    Args:
        cpu: CPU seconds of one of each feature, by component.
        enumeration_cpu: CPU seconds for one mentor, by component.
        enumeration_seconds: for one mentor, in one process.
        start_seconds: from a dispatch to the first claim, and from the last record to the end.
        delay_seconds: of an exchange between two processes beyond their CPU time: they have to be woken.
        usable_share: of the CPU of a machine that has too much to do; the rest goes into switching.
        wal_per_row: bytes of write-ahead log for a result with a row of its own.
        wal_per_evaluation: bytes for one that is only counted.
        wal_per_mentor: bytes for enumerating one.
        stored_per_row: bytes in the table and its indexes.
        stored_per_mentor: bytes in the table of batches and its indexes.
    """

    cpu: Mapping[str, Mapping[str, float]]
    enumeration_cpu: Mapping[str, float]
    enumeration_seconds: float
    start_seconds: float
    delay_seconds: float
    usable_share: float
    wal_per_row: float
    wal_per_evaluation: float
    wal_per_mentor: float
    stored_per_row: float
    stored_per_mentor: float

    def of(self, component: str, work: Work) -> float:
        """CPU seconds of a component for so much work."""
        return sum(cost * work.of(feature) for feature, cost in self.cpu[component].items())
