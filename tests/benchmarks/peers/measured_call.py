"""Calls a contender, measures until its answer, and checks what it did."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project

from .fast_engine import EngineStats, read_stats, reset
from .figures import Figures, Load, ideal_seconds
from .process_use import ProcessMeter

ANSWER_SECONDS = 900
CONTENDER = "contender"


async def measured_call(
    name: str,
    url: str,
    pid: int,
    project: Project,
    engine_url: str,
    load: Load,
    count_results: Callable[[httpx.Response], Awaitable[int]],
    headers: Mapping[str, str] | None = None,
) -> Figures:
    """Sends a POST to a contender and checks its work; `count_results` raises `EmulatorError` for a failed run."""
    pids = {CONTENDER: pid, **pids_of(project, await reset(engine_url))}
    # made before the clock runs: a client reads certificates when it is made
    async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS, headers=headers) as client:
        with ProcessMeter(pids, watched=CONTENDER) as meter:
            started = time.perf_counter()
            response = await client.post(url)
            wall = time.perf_counter() - started
            processes = meter.read()
    stats = await read_stats(engine_url)
    check(name, load, stats, await count_results(response))
    ideal = ideal_seconds(stats.latency_seconds, stats.longest_seconds, load.in_flight)
    return Figures(wall, ideal, processes.pop(CONTENDER), stats.distinct, processes)


def pids_of(project: Project, stats: EngineStats) -> dict[str, int]:
    pids = {"gateway": project.gateway.pid, "PostgREST": project.postgrest.pid}
    return {"engine": stats.pid, **pids, "PostgreSQL": project.server.process.pid}


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
