"""The load of a contender, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Each of them applies to every mentor of a benchmark.
TYPES = ("inactivity", "milestone", "certification_expiry")


@dataclass(frozen=True)
class Load:
    """The work of every contender: active mentors, to all of whom every type applies; one user and type a call."""

    mentors: int
    in_flight: int
    users_per_call: int = 1
    types_per_call: int = 1
    types: tuple[str, ...] = TYPES

    @property
    def evaluations(self) -> int:
        return self.mentors * len(self.types)

    @property
    def calls(self) -> int:
        return -(-self.mentors // self.users_per_call) * -(-len(self.types) // self.types_per_call)

    @classmethod
    def shared(cls, mentors: int, in_flight: int, users_per_call: int = 100) -> Load:
        """Many users a call, each with all types."""
        return cls(mentors, in_flight, users_per_call, len(TYPES))


def ideal_seconds(latency_seconds: float, longest_seconds: float, in_flight: int) -> float:
    """Returns the least time for calls of this latency in all, which no schedule can beat."""
    return max(latency_seconds / in_flight, longest_seconds)


@dataclass(frozen=True)
class ProcessUse:
    """Of a process and its children; `largest_megabytes`: the peak of the largest one alone. See `process_use.py`."""

    cpu_seconds: float
    peak_megabytes: float
    largest_megabytes: float


@dataclass(frozen=True)
class Figures:
    """Of one run, from the HTTP call to its answer; `processes`: those that worked for the contender."""

    wall_seconds: float
    ideal_seconds: float
    use: ProcessUse
    evaluations: int
    processes: Mapping[str, ProcessUse]

    @property
    def efficiency(self) -> float:
        return self.ideal_seconds / self.wall_seconds
