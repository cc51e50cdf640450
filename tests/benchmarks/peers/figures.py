"""The load of a contender, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Each of them applies to every mentor of a benchmark.
TYPES = ("inactivity_30_days", "milestone_reached", "onboarding_incomplete")


@dataclass(frozen=True)
class Load:
    """What every contender is asked to do: so many active mentors, to all of whom every type applies."""

    mentors: int
    in_flight: int
    users_per_call: int = 1
    types_per_call: int = 1
    types: tuple[str, ...] = TYPES

    @property
    def evaluations(self) -> int:
        """Pairs of mentor and type."""
        return self.mentors * len(self.types)

    @property
    def calls(self) -> int:
        """Calls to the engine, the last of each kind perhaps not full."""
        return -(-self.mentors // self.users_per_call) * -(-len(self.types) // self.types_per_call)

    @classmethod
    def single(cls, mentors: int, in_flight: int) -> Load:
        """One user and one type a call."""
        return cls(mentors, in_flight)

    @classmethod
    def shared(cls, mentors: int, in_flight: int, users_per_call: int = 100) -> Load:
        """Many users a call, each with all types."""
        return cls(mentors, in_flight, users_per_call, len(TYPES))


def ideal_seconds(latency_seconds: float, longest_seconds: float, in_flight: int) -> float:
    """The least time in which so many calls at once can have this latency in all, and the longest one its own.

    No schedule can beat it; for many short calls a perfect one comes close to it.
    """
    return max(latency_seconds / in_flight, longest_seconds)


@dataclass(frozen=True)
class ProcessUse:
    """What a process and its children used between a call and its answer; memory's peaks are those since their start.

    `largest_megabytes`: the peak of the largest one of them, alone. See `process_use.py` for what counts.
    """

    cpu_seconds: float
    peak_megabytes: float
    largest_megabytes: float


@dataclass(frozen=True)
class Figures:
    """Of one run, from the HTTP call to its answer.

    `ideal_seconds`: of the calls that were made. `use`: the contender's own; `processes`: of those that worked for it.
    `evaluations`: counted by the engine, each idempotency key once.
    """

    wall_seconds: float
    ideal_seconds: float
    use: ProcessUse
    evaluations: int
    processes: Mapping[str, ProcessUse]

    @property
    def efficiency(self) -> float:
        """The ideal's share of the time that it took."""
        return self.ideal_seconds / self.wall_seconds
