"""What is asked of a contender, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Each of them applies to every mentor of a benchmark.
TYPES = ("inactivity_30_days", "milestone_reached", "onboarding_incomplete")


@dataclass(frozen=True)
class Load:
    """What every contender is asked to do.

    Args:
        mentors: active ones, all of whom every type applies to.
        in_flight: calls to the engine at once.
        users_per_call: users that share a call.
        types_per_call: types that a call asks about.
        types: the scenario types.
    """

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
    """The least time that calls can take when nothing but their latency counts.

    It is what no schedule can beat, and for many short calls what a perfect one comes close to.

    Args:
        latency_seconds: of all calls together.
        longest_seconds: of the longest one.
        in_flight: calls at once.
    """
    return max(latency_seconds / in_flight, longest_seconds)


@dataclass(frozen=True)
class ProcessUse:
    """What a process and its children used; see `process_use.py` for what counts.

    Args:
        cpu_seconds: between the call and its answer.
        peak_megabytes: memory's high-water mark since they were started, each page once.
        largest_megabytes: the high-water mark of the largest one of them, alone.
    """

    cpu_seconds: float
    peak_megabytes: float
    largest_megabytes: float


@dataclass(frozen=True)
class Figures:
    """Of one run.

    Args:
        wall_seconds: from the HTTP call to its answer; for the limit from the first call's arrival at the engine to the
            last answer.
        ideal_seconds: see `ideal_seconds`, of the calls that were made.
        use: the contender's own.
        rows_stored: counted in the database.
        engine_calls: counted by the engine.
        evaluations: counted by the engine, each idempotency key once.
        max_in_flight: counted by the engine.
        processes: by name: what it had work for it.
    """

    wall_seconds: float
    ideal_seconds: float
    use: ProcessUse
    rows_stored: int
    engine_calls: int
    evaluations: int
    max_in_flight: int
    processes: Mapping[str, ProcessUse]

    @property
    def efficiency(self) -> float:
        """The ideal's share of the time that it took."""
        return self.ideal_seconds / self.wall_seconds

    @property
    def evaluations_per_second(self) -> float:
        """From the call to the answer."""
        return self.evaluations / self.wall_seconds
