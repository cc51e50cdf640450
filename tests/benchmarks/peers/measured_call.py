"""From the call of a contender to its answer, and what is made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project

from .fast_engine import EngineStats, read_stats, reset
from .figures import Figures, Load, ProcessUse, ideal_seconds
from .process_use import ProcessMeter

ANSWER_SECONDS = 900
CONTENDER = "contender"


class Answered(NamedTuple):
    """A contender's answer, and what it and those that work for it used meanwhile."""

    response: httpx.Response
    wall_seconds: float
    processes: dict[str, ProcessUse]


async def call(
    url: str, *, pid: int, project: Project, engine_url: str, headers: Mapping[str, str] | None = None
) -> Answered:
    """Sends a POST to a contender, and waits for its answer; the engine's counts are reset before."""
    pids = {CONTENDER: pid, **pids_of(project, await reset(engine_url))}
    # made before the clock runs: a client reads certificates when it is made
    async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS, headers=headers) as client:
        with ProcessMeter(pids, watched=CONTENDER) as meter:
            started = time.perf_counter()
            response = await client.post(url)
            wall = time.perf_counter() - started
            return Answered(response, wall, meter.read())


async def figures_of(name: str, load: Load, engine_url: str, answered: Answered, results: int) -> Figures:
    """A run's figures; `results` are those that are stored, each in a row of its own or counted. See `check`."""
    stats = await read_stats(engine_url)
    check(name, load, stats, results)
    ideal = ideal_seconds(stats.latency_seconds, stats.longest_seconds, load.in_flight)
    use = answered.processes.pop(CONTENDER)
    return Figures(answered.wall_seconds, ideal, use, stats.distinct, answered.processes)


def pids_of(project: Project, stats: EngineStats) -> dict[str, int]:
    """The processes that work for a contender."""
    pids = {"gateway": project.gateway.pid, "PostgREST": project.postgrest.pid, "PostgreSQL": project.server.pid}
    return {"engine": stats.pid, **pids}


def check(name: str, load: Load, stats: EngineStats, results: int) -> None:
    """Raises `EmulatorError` for a run that lost or repeated an evaluation, or made other calls than was asked for."""
    expected = load.evaluations
    if (stats.distinct, stats.duplicates, results) != (expected, 0, expected):
        raise EmulatorError(
            f"{name}: {expected} evaluations, each once and stored, were expected; the engine saw {stats.distinct} and "
            f"{stats.duplicates} again, {results} are stored"
        )
    if stats.calls != load.calls:
        raise EmulatorError(f"{name}: {load.calls} calls were expected, not {stats.calls}")
    if (most := stats.max_in_flight) > load.in_flight:
        raise EmulatorError(f"{name}: at most {load.in_flight} calls in flight were asked for, not {most}")
