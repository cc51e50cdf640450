"""This checkout's function beside another commit's, in turn, each on its own checkout's emulator: ratios of both.

`run_here.py` is started in each checkout for each run. It uses what the commits have in common, the emulator and
`peers/scheduler.py`, so that a run of either goes exactly the same way.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

from .child_run import run_child
from .contest import Contest, Entry, cpu, memory, rate
from .peers.contenders import THIS_FUNCTION
from .peers.figures import Figures, Load, ProcessUse
from .section import Conditions, Measured, Section, Target, reported
from .sections import batched, fan_out, million, tail
from .spread import Spread

RUNNER = Path(__file__).with_name("run_here.py")
# Of the other commit's evaluations a second, with a million mentors.
SHARE_OF_RATE = 0.8


@dataclass(frozen=True)
class Task:
    """What both sides are asked to do.

    Args:
        load: as contenders get it.
        engine: arguments of `fast_engine`.
        env: of the function, over what the load asks for.
        least_share: of the other side's evaluations a second; None: there is no target.
    """

    load: Load
    engine: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)
    least_share: float | None = None


def _fan_out(conditions: Conditions) -> dict[str, Task]:
    mentors = conditions.sized(fan_out.MENTORS, 300)
    engine = {"latency_ms": fan_out.LATENCY_MS, "notable": 1}
    return {
        fan_out.label_of(in_flight): Task(Load.single(mentors, in_flight), engine)
        for in_flight in fan_out.SHARE_OF_DENO
    }


def _tail(conditions: Conditions) -> dict[str, Task]:
    load = Load.single(conditions.sized(fan_out.MENTORS, 300), tail.IN_FLIGHT)
    return {tail.LABEL: Task(load, {"tail": True, "notable": 1})}


def _batched(conditions: Conditions) -> dict[str, Task]:
    mentors = conditions.sized(100_000, 3_000)
    load = Load.shared(mentors, batched.IN_FLIGHT, batched.USERS_PER_CALL)
    return {f"{mentors:,} mentors": Task(load, {"notable": 1, "expect": load.evaluations})}


def _million(conditions: Conditions) -> dict[str, Task]:
    sizes = million.sizes_of(conditions)
    return {
        million.label_of(mentors, outcomes): Task(
            Load.shared(mentors, million.IN_FLIGHT, million.USERS_PER_CALL),
            {"notable": notable, "expect": 3 * mentors},
            million.SETTINGS,
            SHARE_OF_RATE if mentors == sizes[-1] else None,
        )
        for outcomes, notable in million.OUTCOMES.items()
        for mentors in sizes
    }


TASKS: Mapping[str, Callable[[Conditions], dict[str, Task]]] = {
    "fan-out": _fan_out,
    "tail": _tail,
    "batched": _batched,
    "million": _million,
}


def beside(section: Section, checkout: Path) -> Section:
    """Returns a section that runs a section's loads on this function and on that of another checkout.

    Args:
        section: one of `TASKS`.
        checkout: its root, where `make install` was run, and `npm install` in tests/benchmarks/peers.
    """
    other = f"commit {_commit_of(checkout)}"

    async def measure(conditions: Conditions) -> Measured:
        return await _measure(TASKS[section.name](conditions), conditions, other, checkout)

    return Section(
        f"{section.name}, {other}",
        f"{section.title}, beside {other}",
        f"This function and that of {other} in turn, each with its own emulator. {section.about}",
        lambda: _python_of(checkout),
        measure,
    )


async def _measure(tasks: Mapping[str, Task], conditions: Conditions, other: str, checkout: Path) -> Measured:
    roots = {THIS_FUNCTION: ROOT, other: checkout}
    entries = [Entry(side, label, task.load) for label, task in tasks.items() for side in roots]
    data_dir = DataDir.new_temporary()
    try:
        contest = await Contest.run(
            conditions,
            entries,
            lambda entry: _run(tasks[entry.label], entry.load, roots[entry.contender], data_dir),
        )
    finally:
        data_dir.close()
    return Measured(
        contest.rows(),
        [target for label, task in tasks.items() for target in _targets(contest, label, task, other)],
        ["Each run has a new stack, on which a short run goes before."],
    )


def _targets(contest: Contest, label: str, task: Task, other: str) -> list[Target]:
    def ratio(figure: Callable[[Figures], float]) -> Spread:
        return contest.spread(THIS_FUNCTION, label, figure).over(contest.spread(other, label, figure))

    return [
        Target(
            f"evaluations/s, as a share of the other's, {label}", ratio(rate).median, task.least_share, at_least=True
        ),
        reported(f"CPU, as a share of the other's, {label}", ratio(cpu)),
        reported(f"peak memory, as a share of the other's, {label}", ratio(memory)),
    ]


async def _run(task: Task, load: Load, root: Path, data_dir: DataDir) -> Figures:
    asked = json.dumps({"load": asdict(load), "engine": task.engine, "env": task.env})
    # without the script's own folder on the import path: it is this checkout's
    return _figures(await run_child([_python_of(root), "-P", RUNNER, asked], root=root, data_dir=data_dir))


def _figures(found: dict[str, Any]) -> Figures:
    processes = {name: ProcessUse(**use) for name, use in found["processes"].items()}
    return Figures(**found | {"use": ProcessUse(**found["use"]), "processes": processes})


def _python_of(root: Path) -> Path:
    if root == ROOT:
        return Path(sys.executable)
    python = root / ".venv" / "bin" / "python"
    if not python.exists():
        raise EmulatorError(f"{python} is not there: run `make -C {root} bench ARGS=--help`, which installs it")
    return python


def _commit_of(root: Path) -> str:
    done = subprocess.run(
        ["git", "-C", root, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or root.name
