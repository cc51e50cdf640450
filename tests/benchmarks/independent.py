"""The mentors shared out beforehand between processes that have nothing in common but the machine.

No run, no queue, nobody to agree with: the loop of the benchmark of durability, once in each process, each with mentors
of its own. What several of these lose against one of them is what the machine takes, whatever anybody does about it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import psutil

from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project

from .drained_run import DrainLoad, busy_share, settings_of
from .peers.fast_engine import read_stats, reset
from .peers.measured_call import ANSWER_SECONDS
from .peers.preparation import count_rows, prepare
from .peers.served import PLAIN_LOOP

IDS = b"select user_id::text from public.active_peer_mentors order by user_id"


@dataclass(frozen=True)
class IndependentFigures:
    """Of one run.

    Args:
        load: what was asked for.
        seconds: from the calls of all processes to the last one's answer.
        machine_share: how much of the machine's CPU was used, by whomever; 1 is all of it.
    """

    load: DrainLoad
    seconds: float
    machine_share: float

    @property
    def evaluations_per_second(self) -> float:
        """From the calls to the last answer."""
        return self.load.evaluations / self.seconds


async def run_independent(project: Project, engine_url: str, load: DrainLoad) -> IndependentFigures:
    """Runs it once; see `drain_once` for the arguments.

    Raises:
        EmulatorError: a process failed, or somebody was not evaluated exactly once.
    """
    await prepare(project, load.mentors)
    async with AsyncExitStack() as stack:
        served = [
            await stack.enter_async_context(
                PLAIN_LOOP.serve(project, project.function_env(engine_url, settings_of(load) | share))
            )
            for share in await _shares(project, load.processes)
        ]
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS))
        await reset(engine_url)
        machine, started = psutil.cpu_times(), time.perf_counter()
        answers = await asyncio.gather(*(client.post(one.url) for one in served))
        seconds, busy = time.perf_counter() - started, busy_share(machine, psutil.cpu_times())
        for one, answer in zip(served, answers, strict=True):
            if answer.status_code != httpx.codes.OK:
                raise EmulatorError(f"a process answered {answer.status_code}; its log says:\n{one.log_tail()}")
    stats, rows = await read_stats(engine_url), await count_rows(project)
    if (stats.distinct, stats.duplicates, rows) != (load.evaluations, 0, load.evaluations):
        raise EmulatorError(
            f"{load.evaluations} evaluations, each once and stored, were expected; the engine saw {stats.distinct} and "
            f"{stats.duplicates} again, {rows} are stored"
        )
    return IndependentFigures(load, seconds, busy)


async def _shares(project: Project, processes: int) -> list[dict[str, str]]:
    """For each process where its mentors begin and end, as many for one as for the other."""
    async with project.connect() as connection:
        ids = [user_id for (user_id,) in await (await connection.execute(IDS)).fetchall()]
    ends = [ids[len(ids) * (number + 1) // processes - 1] for number in range(processes)]
    return [{"MENTORS_AFTER": after, "MENTORS_UP_TO": up_to} for after, up_to in zip(["", *ends], ends, strict=False)]
