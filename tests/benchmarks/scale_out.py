"""Past one process: two, four and eight drain one run, against an engine of fixed latency.

`python -m tests.benchmarks.scale_out [--rounds N]` measures it alone. Two loads: one that leaves most of the machine's
CPU idle, so that only the function's own doings could keep it from being linear; and one in which so many calls are
made that the machine's CPU is full after a few processes, which shows where that is. Then one run in which processes
are killed again and again.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.emulator.project import ProjectFactory

from .drained_run import SETTINGS, DrainFigures, DrainLoad, drain_once
from .peers.fast_engine import fast_engine

PROCESSES = (1, 2, 4, 8)
# Of linear throughput, as long as there is CPU.
WANTED_SHARE = 0.85
# Of the CPU: no more is to be had, since not all processes have calls at the beginning and at the end.
FULL = 0.95
KILLS = 6
# Characters; a pipe has 80.
TABLE_WIDTH = 110


@dataclass(frozen=True)
class Scenario:
    """A load, by its name in tables; `processes` is replaced."""

    name: str
    load: DrainLoad


SCENARIOS = (
    Scenario(
        "8 calls in flight each, 50 ms",
        DrainLoad(4800, 1, in_flight=8, users_per_call=1, batch_size=20, latency_ms=50),
    ),
    Scenario(
        "32 calls in flight each, 20 ms",
        DrainLoad(20_000, 1, in_flight=32, users_per_call=1, batch_size=100, latency_ms=20),
    ),
)


@dataclass(frozen=True)
class ScaleOutPoint:
    """So many processes under one load; medians of the rounds.

    Args:
        processes: of the function.
        seconds: to drain the run.
        evaluations_per_second: meanwhile.
        share_of_linear: of as many times the throughput of one process.
        machine_share: of the machine's CPU, used by all there is.
        workers: processes that recorded something, at least.
    """

    processes: int
    seconds: float
    evaluations_per_second: float
    share_of_linear: float
    machine_share: float
    workers: int

    @property
    def cpu_for_wanted_share(self) -> float:
        """Of the machine's CPU, what `WANTED_SHARE` of linear would take at this point's CPU per evaluation."""
        return self.machine_share * WANTED_SHARE / self.share_of_linear

    @property
    def is_cpu_full(self) -> bool:
        """Whether the machine has not the CPU for `WANTED_SHARE`: nothing but another machine would bring it there.

        That is so before all of it is used: the nearer to full it comes, the longer each process waits for its turn.
        """
        return self.cpu_for_wanted_share >= FULL


@dataclass(frozen=True)
class ScaleOutFigures:
    """What was measured.

    Args:
        points: by scenario, by rising number of processes.
        killed: the run in which processes were killed.
    """

    points: Mapping[str, Sequence[ScaleOutPoint]]
    killed: DrainFigures

    def linear_until_full(self, scenario: str) -> bool:
        """Whether every point that the machine has the CPU for is as near to linear as is wanted."""
        return all(point.share_of_linear >= WANTED_SHARE for point in self.points[scenario] if not point.is_cpu_full)


async def measure_scale_out(
    *, rounds: int = 3, processes: Sequence[int] = PROCESSES, say: Callable[[str], None] = lambda _: None
) -> ScaleOutFigures:
    """Measures all of it, on a stack of its own.

    Args:
        rounds: how often; the runs of a round follow one another, so that what slows the machine slows all of them.
        processes: how many; the first is what the others are compared with.
        say: is told of each run.

    Raises:
        EmulatorError: something is not installed, or somebody was not evaluated exactly once.
    """
    runs: dict[tuple[str, int], list[DrainFigures]] = {}
    async with ProjectFactory(settings=SETTINGS) as projects, projects.project() as project:
        for scenario in SCENARIOS:
            async with fast_engine(project.data_dir, latency_ms=scenario.load.latency_ms, notable=1) as engine_url:
                for _ in range(rounds):
                    for number in processes:
                        load = _with_processes(scenario.load, number)
                        figures = await drain_once(project, engine_url, load)
                        runs.setdefault((scenario.name, number), []).append(figures)
                        say(f"{scenario.name}, {number} processes: {figures.drain.seconds:.2f} s")
        load = _with_processes(SCENARIOS[0].load, 4)
        async with fast_engine(project.data_dir, latency_ms=load.latency_ms, notable=1, repeat=True) as engine_url:
            killed = await drain_once(project, engine_url, load, kills=KILLS)
            say(f"killed {killed.killed} processes: {killed.repeated} evaluations asked for again, each acted on once")
    return ScaleOutFigures(
        {scenario.name: points_of({n: runs[scenario.name, n] for n in processes}) for scenario in SCENARIOS}, killed
    )


def _with_processes(load: DrainLoad, processes: int) -> DrainLoad:
    return replace(load, processes=processes)


def points_of(runs: Mapping[int, Sequence[DrainFigures]]) -> list[ScaleOutPoint]:
    """The first is the measure: of each round the ratio to the same round's first, so that rounds may differ."""
    first = min(runs)
    points = []
    for number, figures in runs.items():
        ratios = [
            run.evaluations_per_second / base.evaluations_per_second * first / number
            for run, base in zip(figures, runs[first], strict=True)
        ]
        points.append(
            ScaleOutPoint(
                number,
                median(run.drain.seconds for run in figures),
                median(run.evaluations_per_second for run in figures),
                median(ratios),
                median(run.drain.machine_share for run in figures),
                min(run.workers for run in figures),
            )
        )
    return points


def table_of(figures: ScaleOutFigures) -> Table:
    """The figures, for a person."""
    table = Table(title="One run drained by several processes")
    for heading in ("load", "processes", "seconds", "evaluations/s", "of linear", "of the machine's CPU", "at work"):
        table.add_column(heading, justify="left" if heading == "load" else "right")
    for name, points in figures.points.items():
        for point in points:
            table.add_row(
                name,
                str(point.processes),
                f"{point.seconds:.2f}",
                f"{point.evaluations_per_second:,.0f}",
                f"{point.share_of_linear:.2f}",
                f"{point.machine_share:.2f}" + (" (full)" if point.is_cpu_full else ""),
                str(point.workers),
            )
    return table


async def main() -> None:
    """Measures it and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale_out", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console(width=TABLE_WIDTH)
    figures = await measure_scale_out(rounds=options.rounds, say=lambda text: console.print(text, style="dim"))
    console.print(table_of(figures))
    killed = figures.killed
    console.print(
        f"{killed.killed} processes killed in the middle: {killed.load.evaluations} evaluations, {killed.rows} rows, "
        f"{killed.repeated} asked for again under the same key, none acted on twice"
    )


if __name__ == "__main__":
    asyncio.run(main())
