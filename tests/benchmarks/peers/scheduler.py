"""This project's function as it is deployed, over its real HTTP entry: one slot, from the call to its answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project
from tests.emulator.staging import ROOT

from .figures import Figures, Load
from .measured_call import ANSWER_SECONDS, measured_call
from .preparation import count, prepare

# Pairs of batches that are done, with a row of their own or counted in their batch.
RESULTS = b"""
select coalesce(sum(evaluations - not_evaluated), 0) from public.scheduler_invocation_batches
where state = 'done' and invocation_id = %s
"""


async def forget_everything(project: Project) -> None:
    async with project.connect() as connection:
        await connection.execute(b"truncate public.scheduler_invocations, public.scheduler_evaluations cascade")
        await connection.execute(b"select pgmq.purge_queue(queue_name) from pgmq.list_queues()")


@dataclass(frozen=True)
class Scheduler:
    """The function, started anew for each run; `root` holds its code, `forget` deletes earlier runs."""

    env: Mapping[str, str] = field(default_factory=dict)
    root: Path = ROOT
    forget: Callable[[Project], Awaitable[None]] = forget_everything

    async def run(self, project: Project, engine_url: str, load: Load) -> Figures:
        await prepare(project, load.mentors)
        await self.forget(project)
        await project.make_slot_due()
        slot = datetime.now(UTC) - timedelta(minutes=1)
        function = await project.start_function(
            {"EVALUATION_SCHEDULE": f"{slot.minute} {slot.hour} * * *", **settings_for(load), **self.env},
            engine_url=engine_url,
            root=self.root,
            restart=False,
        )

        async def count_results(response: httpx.Response) -> int:
            if response.status_code != httpx.codes.OK or response.json()["status"] != "success":
                raise EmulatorError(f"the run did not succeed: {response.status_code} {response.text}")
            return await count(project, RESULTS, response.json()["id"])

        name, url = "this function", f"{function.url}/"
        headers = {"Authorization": f"Bearer {project.invoke_token}"}
        try:
            return await measured_call(name, url, function.pid, project, engine_url, load, count_results, headers)
        finally:
            await function.stop()


def settings_for(load: Load) -> dict[str, str]:
    return {
        "SCENARIO_TYPES": json.dumps([{"type": name} for name in load.types]),
        "ENGINE_USERS_PER_CALL": str(load.users_per_call),
        "ENGINE_TYPES_PER_CALL": str(load.types_per_call),
        "ENGINE_MAX_CONCURRENCY": str(load.in_flight),
        "TIME_BUDGET_SECONDS": str(ANSWER_SECONDS),
        "BATCH_VISIBILITY_SECONDS": str(ANSWER_SECONDS + 60),
    }


SCHEDULER = Scheduler()
