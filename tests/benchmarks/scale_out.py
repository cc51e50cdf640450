"""Past one process: two, four and eight drain one run, against an engine of fixed latency.

As many mentors for each process, however many there are, so that beginning and end weigh the same. Three loads, the
heavier of which come to where the machine's CPU is full; where that is, processes that have nothing in common but the
machine tell, which are given the same load. Then one run in which processes are killed again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from tests.emulator.project import ProjectFactory

from .drained_run import SETTINGS, DrainFigures, DrainLoad, drain_once
from .independent import IndependentFigures, run_independent
from .peers.fast_engine import fast_engine

PROCESSES = (1, 2, 4, 8)
# Of linear throughput, as long as there is CPU; and always, of what independent processes reach.
WANTED_SHARE = 0.85
KILLS = 6
KILLED_MENTORS = 4800


@dataclass(frozen=True)
class Scenario:
    """A load, by its name in tables; of one process."""

    name: str
    load: DrainLoad


SCENARIOS = (
    Scenario(
        "8 calls in flight each, 50 ms",
        DrainLoad(1_000, 1, in_flight=8, users_per_call=1, batch_size=20, latency_ms=50),
    ),
    Scenario(
        "16 calls in flight each, 20 ms",
        DrainLoad(5_000, 1, in_flight=16, users_per_call=1, batch_size=200, latency_ms=20),
    ),
    Scenario(
        "32 calls in flight each, 20 ms",
        DrainLoad(10_000, 1, in_flight=32, users_per_call=1, batch_size=200, latency_ms=20),
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
        independent_share: the same of processes that share nothing but the machine.
        machine_share: of the machine's CPU, used by all there is.
        workers: processes that recorded something, at least.
    """

    processes: int
    seconds: float
    evaluations_per_second: float
    share_of_linear: float
    independent_share: float
    machine_share: float
    workers: int

    @property
    def is_cpu_full(self) -> bool:
        """Whether even processes that do nothing in common do not come as near to linear as is wanted.

        That is so before all of the CPU is used: the nearer it comes, the longer each process waits for its turn.
        """
        return self.independent_share < WANTED_SHARE

    @property
    def share_of_independent(self) -> float:
        """Of what the machine bears: the price of a common run, queue and record."""
        return self.share_of_linear / self.independent_share


@dataclass(frozen=True)
class ScaleOutFigures:
    """What was measured.

    Args:
        points: by scenario, by rising number of processes.
        killed: the run in which processes were killed.
    """

    points: Mapping[str, Sequence[ScaleOutPoint]]
    killed: DrainFigures

    def least_share_of_linear(self, scenario: str) -> float:
        """Of the points at which there is CPU."""
        return min(point.share_of_linear for point in self.points[scenario] if not point.is_cpu_full)

    def least_share_of_independent(self) -> float:
        """Of all points."""
        return min(point.share_of_independent for points in self.points.values() for point in points)


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
    runs: dict[str, dict[int, list[DrainFigures]]] = {}
    independent: dict[str, dict[int, list[IndependentFigures]]] = {}
    async with ProjectFactory(settings=SETTINGS) as projects, projects.project() as project:
        for scenario in SCENARIOS:
            async with fast_engine(project.data_dir, latency_ms=scenario.load.latency_ms, notable=1) as engine_url:
                for _ in range(rounds):
                    for number in processes:
                        load = _of_processes(scenario.load, number)
                        together = await drain_once(project, engine_url, load)
                        apart = await run_independent(project, engine_url, load)
                        runs.setdefault(scenario.name, {}).setdefault(number, []).append(together)
                        independent.setdefault(scenario.name, {}).setdefault(number, []).append(apart)
                        say(
                            f"{scenario.name}, {number} processes: {together.seconds:.2f} s, "
                            f"independent ones {apart.seconds:.2f} s"
                        )
        load = replace(SCENARIOS[0].load, mentors=KILLED_MENTORS, processes=4)
        async with fast_engine(project.data_dir, latency_ms=load.latency_ms, notable=1, repeat=True) as engine_url:
            killed = await drain_once(project, engine_url, load, kills=KILLS)
            say(f"killed {killed.killed} processes: {killed.repeated} evaluations asked for again, each acted on once")
    return ScaleOutFigures(
        {scenario.name: points_of(runs[scenario.name], independent[scenario.name]) for scenario in SCENARIOS}, killed
    )


def _of_processes(load: DrainLoad, processes: int) -> DrainLoad:
    return replace(load, mentors=processes * load.mentors, processes=processes)


def points_of(
    runs: Mapping[int, Sequence[DrainFigures]], independent: Mapping[int, Sequence[IndependentFigures]]
) -> list[ScaleOutPoint]:
    """The first is the measure: of each round the ratio to the same round's first, so that rounds may differ."""
    return [
        ScaleOutPoint(
            number,
            median(run.seconds for run in figures),
            median(run.evaluations_per_second for run in figures),
            _share_of_linear(number, figures, min(runs), runs[min(runs)]),
            _share_of_linear(number, independent[number], min(runs), independent[min(runs)]),
            median(run.machine_share for run in figures),
            min(run.workers for run in figures),
        )
        for number, figures in runs.items()
    ]


def _share_of_linear(
    processes: int,
    runs: Sequence[DrainFigures | IndependentFigures],
    fewest: int,
    runs_of_fewest: Sequence[DrainFigures | IndependentFigures],
) -> float:
    return median(
        run.evaluations_per_second / base.evaluations_per_second * fewest / processes
        for run, base in zip(runs, runs_of_fewest, strict=True)
    )
