"""The contenders and what is asked of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tests.emulator.project import Project

from .figures import Figures
from .limit import LIMIT
from .scheduler import SCHEDULER
from .served import DBOS_QUEUE, GOOD, NAIVE


class Contender(Protocol):
    """Whatever evaluates everybody."""

    async def run(
        self,
        project: Project,
        engine_url: str,
        *,
        mentors: int,
        types: Sequence[str],
        in_flight: int,
        users_per_call: int,
        types_per_call: int | None = None,
    ) -> Figures:
        """One run, from a started process and an empty table to the last stored row.

        Args:
            project: its mentors and its results are replaced.
            engine_url: of a `fast_engine`, whose counts are reset.
            mentors: active ones.
            types: scenario types, each of which applies to everybody.
            in_flight: calls to the engine at once.
            users_per_call: users that share a call.
            types_per_call: one when a call is about one user, unless said otherwise; else all.

        Returns:
            What it took.

        Raises:
            EmulatorError: something is not installed, the run failed, or somebody was not evaluated exactly once.
        """
        ...


CONTENDERS: Mapping[str, Contender] = {
    "this function": SCHEDULER,
    "Deno, pool and batched upserts": GOOD,
    "Deno, Promise.all in chunks": NAIVE,
    "DBOS queue": DBOS_QUEUE,
    "wrk (limit)": LIMIT,
}
