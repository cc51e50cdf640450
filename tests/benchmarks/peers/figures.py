"""What is asked of a contender, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What every contender is asked to do.

    Args:
        mentors: active ones, all of whom every type applies to.
        types: the scenario types.
        in_flight: calls to the engine at once.
        users_per_call: users that share a call.
        types_per_call: types that a call asks about; all of them when many users share a call.
    """

    mentors: int
    types: Sequence[str]
    in_flight: int
    users_per_call: int
    types_per_call: int

    @property
    def evaluations(self) -> int:
        return self.mentors * len(self.types)

    @property
    def calls(self) -> int:
        return -(-self.mentors // self.users_per_call) * -(-len(self.types) // self.types_per_call)

    def ideal_seconds(self, latency_seconds: float) -> float:
        """The time that the calls take if nothing but their latency counted."""
        return self.calls * latency_seconds / self.in_flight


@dataclass(frozen=True)
class ProcessUse:
    """What a process and its children used.

    Args:
        cpu_seconds: between the call and its answer.
        peak_megabytes: resident memory's high-water mark since the process was started, shared pages included.
    """

    cpu_seconds: float
    peak_megabytes: float


@dataclass(frozen=True)
class Figures:
    """Of one run.

    Args:
        wall_seconds: from the HTTP call to its answer; for the limit from the first call's arrival at the engine to the
            last answer.
        cpu_seconds: of the contender's processes.
        peak_megabytes: of the contender's processes.
        rows_stored: counted in the database.
        engine_calls: counted by the engine.
        evaluations: counted by the engine, each idempotency key once.
        max_in_flight: counted by the engine.
        processes: by name: the contender, and what it had work for it.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_megabytes: float
    rows_stored: int
    engine_calls: int
    evaluations: int
    max_in_flight: int
    processes: Mapping[str, ProcessUse]
