"""Contenders in turn, round after round."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from tests.emulator.project import Project, ProjectFactory

from .peers.contenders import CONTENDERS, THIS_FUNCTION
from .peers.fast_engine import fast_engine
from .peers.figures import Figures, Load
from .section import Conditions, Row
from .spread import Spread

WARM_UP_MENTORS = 1000

K = TypeVar("K")
T = TypeVar("T")


async def in_turn(
    conditions: Conditions, runs: Mapping[K, Callable[[], Awaitable[T]]], describe: Callable[[K, T], str]
) -> dict[K, list[T]]:
    """Runs each once a round, every second round in reverse order: slow moments of the machine affect all alike."""
    found: dict[K, list[T]] = {key: [] for key in runs}
    for number in range(conditions.rounds):
        keys = list(runs)
        for key in reversed(keys) if number % 2 else keys:
            result = await runs[key]()
            found[key].append(result)
            conditions.say(f"round {number + 1} of {conditions.rounds}: {describe(key, result)}")
    return found


@asynccontextmanager
async def project_and_engine(**engine: Any) -> AsyncIterator[tuple[Project, str]]:
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, **engine) as url,
    ):
        yield project, url


@dataclass(frozen=True)
class Entry:
    """A contender under a load; `label`: the load in short."""

    contender: str
    label: str
    load: Load


@dataclass(frozen=True)
class Comparison:
    """The results of all entries: a row for each, in their order."""

    rows: Sequence[Row]

    @classmethod
    async def run(
        cls, conditions: Conditions, entries: Sequence[Entry], run: Callable[[Entry], Awaitable[Figures]]
    ) -> Comparison:
        """Measures all entries in turn, after a short run that does not count: engine and database are new."""
        first = entries[0]
        await run(replace(first, load=replace(first.load, mentors=min(first.load.mentors, WARM_UP_MENTORS))))
        found = await in_turn(conditions, {entry: partial(run, entry) for entry in entries}, _describe)
        return cls([_row(entry, figures) for entry, figures in found.items()])

    @classmethod
    async def on_one_project(cls, conditions: Conditions, entries: Sequence[Entry], **engine: Any) -> Comparison:
        async with project_and_engine(**engine) as (project, url):
            return await cls.run(conditions, entries, lambda one: CONTENDERS[one.contender].run(project, url, one.load))

    def spread(self, contender: str, label: str, figure: str) -> Spread:
        return next(row.figures[figure] for row in self.rows if (row.contender, row.label) == (contender, label))

    def share(self, figure: str, label: str, other: str) -> Spread:
        return self.spread(THIS_FUNCTION, label, figure).over(self.spread(other, label, figure))


def _describe(entry: Entry, figures: Figures) -> str:
    cpu, memory = f"{figures.use.cpu_seconds:.2f} s CPU", f"{figures.use.peak_megabytes:.0f} MB"
    return f"{entry.contender}, {entry.label}: {figures.wall_seconds:.2f} s, {cpu}, {memory}"


def _row(entry: Entry, runs: Sequence[Figures]) -> Row:
    load = entry.load
    # where many users share a call, the calls' latency is not what takes the time
    figures = {"efficiency": Spread.of(run.efficiency for run in runs)} if load.users_per_call == 1 else {}
    figures |= {
        "wall_seconds": Spread.of(run.wall_seconds for run in runs),
        "evaluations_per_second": Spread.of(run.evaluations / run.wall_seconds for run in runs),
        "cpu_seconds": Spread.of(run.use.cpu_seconds for run in runs),
        "cores": Spread.of(run.use.cpu_seconds / run.wall_seconds for run in runs),
        "peak_megabytes": Spread.of(run.use.peak_megabytes for run in runs),
        "largest_megabytes": Spread.of(run.use.largest_megabytes for run in runs),
    }
    processes = {
        name: {
            use: Spread.of(getattr(run.processes[name], use) for run in runs)
            for use in ("cpu_seconds", "peak_megabytes")
        }
        for name in runs[0].processes
    }
    numbers = {name: getattr(load, name) for name in ("mentors", "in_flight", "users_per_call", "types_per_call")}
    return Row(entry.contender, entry.label, numbers | {"types": len(load.types)}, figures, processes)
