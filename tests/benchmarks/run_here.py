"""One run of the function of the checkout that is on the import path; `beside.py` starts it.

`run_here.py TASK RESULT`: a task as JSON, and the file that gets the figures as JSON. The stack is new, so a short run
goes before the one that counts.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.fast_engine import fast_engine
from tests.benchmarks.peers.figures import Load
from tests.benchmarks.peers.scheduler import Scheduler
from tests.emulator.project import ProjectFactory

WARM_UP_MENTORS = 1000


async def run(task: dict[str, Any]) -> dict[str, Any]:
    """Runs it and returns the figures."""
    this_task = asyncio.current_task()
    assert this_task is not None
    # It has a stack to stop.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this_task.cancel)
    load = Load(**task["load"] | {"types": tuple(task["load"]["types"])})
    scheduler = Scheduler(task["env"])
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, **task["engine"]) as engine,
    ):
        await scheduler.run(project, engine, replace(load, mentors=min(load.mentors, WARM_UP_MENTORS)))
        return asdict(await scheduler.run(project, engine, load))


if __name__ == "__main__":
    figures = asyncio.run(run(json.loads(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(figures), encoding="utf-8")
