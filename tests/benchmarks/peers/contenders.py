"""The contenders and what is asked of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tests.emulator.project import Project

from .figures import Figures, Load
from .limit import LIMIT
from .scheduler import SCHEDULER
from .served import DBOS_QUEUE, GOOD, NAIVE, PLAIN_LOOP


class Contender(Protocol):
    """Whatever evaluates everybody."""

    async def run(self, project: Project, engine_url: str, load: Load) -> Figures:
        """One run, from a started process and an empty table to the last stored row.

        Args:
            project: its mentors and its results are replaced.
            engine_url: of a `fast_engine`, whose counts are reset.
            load: what it is asked to do.

        Returns:
            What it took.

        Raises:
            EmulatorError: something is not installed, the run failed, or somebody was not evaluated exactly once.
        """
        ...


THIS_FUNCTION = "this function"
GOOD_DENO = "good Deno"
NAIVE_DENO = "naive Deno"
DBOS = "DBOS queue"
WRK = "wrk"
PLAIN = "the same loop, not durable"

CONTENDERS: Mapping[str, Contender] = {
    THIS_FUNCTION: SCHEDULER,
    GOOD_DENO: GOOD,
    NAIVE_DENO: NAIVE,
    DBOS: DBOS_QUEUE,
    WRK: LIMIT,
    PLAIN: PLAIN_LOOP,
}
