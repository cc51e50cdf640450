"""From the call of a contender to its answer, and what is made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project

from .fast_engine import EngineStats, read_stats, reset
from .figures import Figures, Load, ProcessUse, ideal_seconds
from .process_use import ProcessMeter

ANSWER_SECONDS = 900
CONTENDER = "contender"


@dataclass(frozen=True)
class Answered:
    """A contender's answer.

    Args:
        response: what it said.
        wall_seconds: how long it took.
        processes: what all who work for it used meanwhile, itself included.
    """

    response: httpx.Response
    wall_seconds: float
    processes: Mapping[str, ProcessUse]


async def call(
    url: str, *, pid: int, project: Project, engine_url: str, headers: Mapping[str, str] | None = None
) -> Answered:
    """Sends a POST to a contender, and waits for its answer.

    Args:
        url: where it serves.
        pid: of the contender.
        project: who works for it.
        engine_url: the engine, whose counts are reset.
        headers: sent along.
    """
    pids = {CONTENDER: pid, **pids_of(project, await reset(engine_url))}
    # made before the clock runs: a client reads certificates when it is made
    async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS, headers=headers) as client:
        with ProcessMeter(pids, watched=CONTENDER) as meter:
            started = time.perf_counter()
            response = await client.post(url)
            wall = time.perf_counter() - started
            return Answered(response, wall, meter.read())


async def figures_of(name: str, load: Load, engine_url: str, answered: Answered, *, results: int, rows: int) -> Figures:
    """A run's figures.

    Args:
        name: whose, for errors.
        load: what was asked for.
        engine_url: the engine.
        answered: what came of it.
        results: that are stored, each in a row of its own or counted.
        rows: that are stored.

    Raises:
        EmulatorError: somebody was lost or asked about twice, or calls were made otherwise than was asked for.
    """
    stats = await read_stats(engine_url)
    check(name, load, stats, results)
    return Figures(
        wall_seconds=answered.wall_seconds,
        ideal_seconds=ideal_seconds(stats.latency_seconds, stats.longest_seconds, load.in_flight),
        use=answered.processes[CONTENDER],
        rows_stored=rows,
        engine_calls=stats.calls,
        evaluations=stats.distinct,
        max_in_flight=stats.max_in_flight,
        processes={who: use for who, use in answered.processes.items() if who != CONTENDER},
    )


def pids_of(project: Project, stats: EngineStats) -> dict[str, int]:
    """Who works for a contender."""
    postgres = project.server.pid
    return {
        "engine": stats.pid,
        "gateway": project.gateway.pid,
        "PostgREST": project.postgrest.pid,
        "PostgreSQL": postgres,
    }


def check(name: str, load: Load, stats: EngineStats, results: int) -> None:
    """A run that lost or repeated anybody has no figures.

    Raises:
        EmulatorError: what was expected, and what was found.
    """
    expected = load.evaluations
    if (stats.distinct, stats.duplicates, results) != (expected, 0, expected):
        raise EmulatorError(
            f"{name}: {expected} evaluations, each once and stored, were expected; the engine saw {stats.distinct} and "
            f"{stats.duplicates} again, {results} are stored"
        )
    if stats.calls != load.calls:
        raise EmulatorError(f"{name}: {load.calls} calls were expected, not {stats.calls}")
    if stats.max_in_flight > load.in_flight:
        raise EmulatorError(
            f"{name}: at most {load.in_flight} calls in flight were asked for, not {stats.max_in_flight}"
        )
