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


async def main(task: dict[str, Any], result: Path) -> None:
    """Runs it and writes the figures."""
    task_here = asyncio.current_task()
    assert task_here is not None
    # It has a stack to stop.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task_here.cancel)
    load = Load(**task["load"] | {"types": tuple(task["load"]["types"])})
    scheduler = Scheduler(task["env"])
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, **task["engine"]) as engine,
    ):
        await scheduler.run(project, engine, replace(load, mentors=min(load.mentors, WARM_UP_MENTORS)))
        figures = await scheduler.run(project, engine, load)
    await asyncio.to_thread(result.write_text, json.dumps(asdict(figures)), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), Path(sys.argv[2])))
