"""Contenders in turn, round after round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from .peers.figures import Figures, Load, ProcessUse
from .section import Conditions, Row
from .spread import Spread

WARM_UP_MENTORS = 1000

K = TypeVar("K")
T = TypeVar("T")


async def in_turn(
    conditions: Conditions, runs: Mapping[K, Callable[[], Awaitable[T]]], describe: Callable[[K, T], str]
) -> dict[K, list[T]]:
    """Runs each once a round, and every second round the other way round.

    So all of them meet the same slow and fast moments of the machine, and none always comes after the same other one.

    Args:
        conditions: how many rounds.
        runs: what to run, by key.
        describe: what is said about a run that is through.
    """
    found: dict[K, list[T]] = {key: [] for key in runs}
    for number in range(conditions.rounds):
        keys = list(runs)
        for key in reversed(keys) if number % 2 else keys:
            result = await runs[key]()
            found[key].append(result)
            conditions.say(f"round {number + 1} of {conditions.rounds}: {describe(key, result)}")
    return found


@dataclass(frozen=True)
class Entry:
    """A contender under a load.

    Args:
        contender: its name.
        label: the load in short.
        load: what it is asked to do.
    """

    contender: str
    label: str
    load: Load


class Contest:
    """What came of all entries."""

    def __init__(self, found: Mapping[Entry, Sequence[Figures]]) -> None:
        self._found = found

    @classmethod
    async def run(
        cls, conditions: Conditions, entries: Sequence[Entry], run: Callable[[Entry], Awaitable[Figures]]
    ) -> Contest:
        """Measures all entries in turn, after a short run that nobody counts: engine and database are new."""
        first = entries[0]
        await run(replace(first, load=replace(first.load, mentors=min(first.load.mentors, WARM_UP_MENTORS))))
        return cls(await in_turn(conditions, {entry: _bind(run, entry) for entry in entries}, _describe))

    def spread(self, contender: str, label: str, figure: Callable[[Figures], float]) -> Spread:
        """A figure of one entry."""
        for entry, figures in self._found.items():
            if (entry.contender, entry.label) == (contender, label):
                return Spread.of(figure(one) for one in figures)
        raise KeyError((contender, label))

    def rows(self) -> list[Row]:
        """A row for each entry, in their order."""
        return [_row(entry, figures) for entry, figures in self._found.items()]


def wall(figures: Figures) -> float:
    """Seconds."""
    return figures.wall_seconds


def efficiency(figures: Figures) -> float:
    """The ideal's share of the time that it took."""
    return figures.efficiency


def rate(figures: Figures) -> float:
    """Evaluations a second."""
    return figures.evaluations_per_second


def cpu(figures: Figures) -> float:
    """CPU seconds of the contender's own processes."""
    return figures.use.cpu_seconds


def cores(figures: Figures) -> float:
    """Returns how many of the machine's cores the contender's own processes kept busy."""
    return figures.use.cpu_seconds / figures.wall_seconds


def memory(figures: Figures) -> float:
    """Peak megabytes of the contender's own processes."""
    return figures.use.peak_megabytes


def _bind(run: Callable[[Entry], Awaitable[Figures]], entry: Entry) -> Callable[[], Awaitable[Figures]]:
    return lambda: run(entry)


def _describe(entry: Entry, figures: Figures) -> str:
    share = f"{figures.efficiency:.3f} of the ideal, " if entry.load.users_per_call == 1 else ""
    return (
        f"{entry.contender}, {entry.label}: {figures.wall_seconds:.2f} s, {share}"
        f"{figures.use.cpu_seconds:.2f} s CPU, {figures.use.peak_megabytes:.0f} MB"
    )


def _row(entry: Entry, figures: Sequence[Figures]) -> Row:
    load = {name: value for name, value in asdict(entry.load).items() if name != "types"}
    return Row(
        entry.contender,
        entry.label,
        load | {"types": len(entry.load.types)},
        # where many users share a call, the calls' latency is not what takes the time
        ({"efficiency": Spread.of(map(efficiency, figures))} if entry.load.users_per_call == 1 else {})
        | {
            "wall_seconds": Spread.of(map(wall, figures)),
            "evaluations_per_second": Spread.of(map(rate, figures)),
            "cpu_seconds": Spread.of(map(cpu, figures)),
            "cores": Spread.of(map(cores, figures)),
            "peak_megabytes": Spread.of(map(memory, figures)),
            "largest_megabytes": Spread.of(one.use.largest_megabytes for one in figures),
        },
        {name: _uses([one.processes[name] for one in figures]) for name in figures[0].processes},
    )


def _uses(uses: Sequence[ProcessUse]) -> dict[str, Spread]:
    return {
        "cpu_seconds": Spread.of(use.cpu_seconds for use in uses),
        "peak_megabytes": Spread.of(use.peak_megabytes for use in uses),
    }
