"""This checkout's function beside another commit's, in turn, each on its own checkout's emulator: ratios of both.

`run_here.py` is started in each checkout for each run. It uses what the commits have in common, the emulator and
`peers/scheduler.py`, so that a run of either goes exactly the same way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

from .child_run import run_child
from .contest import Contest, Entry
from .machine import describe_commit
from .peers.contenders import THIS_FUNCTION
from .peers.figures import Figures, ProcessUse
from .section import Conditions, Measured, Section, Target, Task, at_least, reported

RUNNER = Path(__file__).with_name("run_here.py")
RATE = "evaluations_per_second"


def beside(section: Section, checkout: Path) -> Section:
    """A section that runs the tasks of one that has some on this function and on that of another checkout's root."""
    assert section.tasks is not None
    other = f"commit {describe_commit(checkout)[:7] or checkout.name}"
    return Section(
        f"{section.name}, {other}",
        f"{section.title}, beside {other}",
        f"This function and that of {other} in turn, each with its own emulator. {section.about}",
        partial(_measure, section.tasks, other, checkout),
    )


async def _measure(
    tasks_of: Callable[[Conditions], Sequence[Task]], other: str, checkout: Path, conditions: Conditions
) -> Measured:
    python = checkout / ".venv" / "bin" / "python"
    if not python.exists():
        raise EmulatorError(f"{python} is not there: run `make -C {checkout} bench ARGS=--help`, which installs it")
    sides = {THIS_FUNCTION: (Path(sys.executable), ROOT), other: (python, checkout)}
    tasks = {task.label: task for task in tasks_of(conditions)}
    data_dir = DataDir.new_temporary()

    async def run(entry: Entry) -> Figures:
        python, root = sides[entry.contender]
        task = tasks[entry.label]
        asked = json.dumps({"load": asdict(entry.load), "engine": task.engine, "env": task.env})
        # without the script's own folder on the import path: it is this checkout's
        found = await run_child([python, "-P", RUNNER, asked], root=root, data_dir=data_dir)
        processes = {name: ProcessUse(**use) for name, use in found["processes"].items()}
        use = ProcessUse(**found["use"])
        return Figures(found["wall_seconds"], found["ideal_seconds"], use, found["evaluations"], processes)

    try:
        entries = [Entry(side, task.label, task.load) for task in tasks.values() for side in sides]
        contest = await Contest.run(conditions, entries, run)
    finally:
        data_dir.close()
    return Measured(
        contest.rows,
        [target for task in tasks.values() for target in _targets(contest, task, other)],
        ["Each run has a new stack, on which a short run goes before."],
    )


def _targets(contest: Contest, task: Task, other: str) -> Sequence[Target]:
    label = task.label
    claim, rate = f"evaluations/s, as a share of the other's, {label}", contest.share(RATE, label, other)
    return [
        reported(claim, rate) if task.least_share is None else at_least(claim, rate, task.least_share),
        reported(f"CPU, as a share of the other's, {label}", contest.share("cpu_seconds", label, other)),
        reported(f"peak memory, as a share of the other's, {label}", contest.share("peak_megabytes", label, other)),
    ]
