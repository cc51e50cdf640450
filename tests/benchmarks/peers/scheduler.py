"""This project's function as it is deployed, over its real HTTP entry: one slot, from the call to its answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project

from .fast_engine import read_stats, reset
from .figures import Figures
from .preparation import prepare
from .process_use import ProcessMeter
from .served import ANSWER_SECONDS, CONTENDER, check, load_of, pids_of


@dataclass(frozen=True)
class Scheduler:
    """Every type of a user goes into the same call: `types_per_call` has to be all of them.

    Args:
        env: goes over the environment that the load asks for.
    """

    env: Mapping[str, str] = field(default_factory=dict)

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
        """One run of everybody; see `Contender`. The engine has to answer with what gets a row of its own."""
        load = load_of(mentors, types, in_flight, users_per_call, types_per_call)
        if load.types_per_call != len(types):
            raise EmulatorError("the scheduler asks about all types of a user at once: give it one type")
        await prepare(project, mentors)
        await _forget_everything(project)
        slot = datetime.now(UTC) - timedelta(minutes=1)
        function = await project.start_function(
            {
                "EVALUATION_SCHEDULE": f"{slot.minute} {slot.hour} * * *",
                "SCENARIO_TYPES": json.dumps([{"type": name} for name in types]),
                "ENGINE_USERS_PER_CALL": str(users_per_call),
                "ENGINE_MAX_CONCURRENCY": str(in_flight),
                "TIME_BUDGET_SECONDS": str(ANSWER_SECONDS),
                "BATCH_VISIBILITY_SECONDS": str(ANSWER_SECONDS + 60),
                **self.env,
            },
            engine_url=engine_url,
            restart=False,
        )
        try:
            stats = await reset(engine_url)
            meter = ProcessMeter.start({CONTENDER: function.pid, **pids_of(project, stats)})
            started = time.perf_counter()
            async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS) as client:
                answer = await client.post(
                    f"{function.url}/", headers={"Authorization": f"Bearer {project.invoke_token}"}
                )
            wall = time.perf_counter() - started
            processes = meter.read()
        finally:
            await function.stop()
        if answer.status_code != httpx.codes.OK or answer.json()["status"] != "succeeded":
            raise EmulatorError(f"the run did not succeed: {answer.status_code} {answer.text}")
        stats = await read_stats(engine_url)
        rows = await _count_results(project)
        check("this function", load, stats, rows)
        return Figures(
            wall_seconds=wall,
            cpu_seconds=processes[CONTENDER].cpu_seconds,
            peak_megabytes=processes[CONTENDER].peak_megabytes,
            rows_stored=await _count_rows(project),
            engine_calls=stats.calls,
            evaluations=stats.distinct,
            max_in_flight=stats.max_in_flight,
            processes=processes,
        )


async def _forget_everything(project: Project) -> None:
    """No runs, and a slot that is due."""
    async with project.connect() as connection:
        await connection.execute(b"truncate public.scheduler_invocations, public.scheduler_evaluations cascade")
        await connection.execute(b"select pgmq.purge_queue(queue_name) from pgmq.list_queues()")
    await project.make_slot_due()


async def _count_rows(project: Project) -> int:
    return await _count(project, b"select count(*) from public.scheduler_evaluations")


async def _count_results(project: Project) -> int:
    """Pairs of batches that are done, with a row of their own or counted in their batch."""
    return await _count(
        project,
        b"select coalesce(sum(evaluations - not_evaluated), 0)"
        b" from public.scheduler_invocation_batches where state = 'done'",
    )


async def _count(project: Project, query: bytes) -> int:
    async with project.connect() as connection:
        row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return int(row[0])


SCHEDULER = Scheduler()
