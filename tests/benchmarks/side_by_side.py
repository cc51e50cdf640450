"""A section run by this checkout and by another commit's, in turn, each with its own code: ratios of both functions."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

from .child_run import run_child
from .comparison import in_turn
from .machine import describe_commit
from .peers.contenders import THIS_FUNCTION
from .report import Stored
from .section import Conditions, Measured, Row, Section, Target, at_least, reported
from .spread import Spread

RATE, CPU, MEMORY = "evaluations_per_second", "cpu_seconds", "peak_megabytes"
# Of the other commit's evaluations a second, with as many mentors as a section has.
LEAST_SHARE_OF_RATE = {"million": 0.8}


def beside(section: Section, checkout: Path) -> Section:
    """Returns the section as both checkouts run it; `checkout`: the other one's root."""
    other = f"commit {describe_commit(checkout)[:7] or checkout.name}"
    return Section(
        f"{section.name}, {other}",
        f"{section.title}, beside {other}",
        f"This function and that of {other} in turn, each with its own emulator. {section.about}",
        partial(_measure, section.name, other, checkout),
    )


async def _measure(name: str, other: str, checkout: Path, conditions: Conditions) -> Measured:
    python = checkout / ".venv" / "bin" / "python"
    if not python.exists():
        raise EmulatorError(f"{python} is not there: run `make -C {checkout} bench ARGS=--help`, which installs it")
    data_dir = DataDir.new_temporary()

    async def run(python: str | Path, root: Path) -> Mapping[str, Stored]:
        command = [python, "-m", "tests.benchmarks", name, "--rounds", "1", "--out", data_dir.path]
        command += ["--quick"] if conditions.quick else []
        results = await run_child(command, data_dir.path / "results.json", root=root, data_dir=data_dir)
        rows = results["sections"][name]["rows"]
        return {row["label"]: row for row in rows if row["contender"] == THIS_FUNCTION and CPU in row["figures"]}

    try:
        sides = {THIS_FUNCTION: partial(run, sys.executable, ROOT), other: partial(run, python, checkout)}
        found = await in_turn(conditions, sides, lambda side, rows: f"{side}: {len(rows)} loads")
    finally:
        data_dir.close()
    ours, theirs = ({label: _row(side, label, found[side]) for label in found[side][0]} for side in sides)
    if not ours:
        raise EmulatorError(f"{name} has no loads whose figures could be compared")
    both = [(ours[label], theirs[label]) for label in ours if label in theirs]
    most = max(row.load["mentors"] for row in ours.values())
    return Measured(
        [row for rows in both for row in rows],
        [target for rows in both for target in _targets(*rows, LEAST_SHARE_OF_RATE.get(name), most)],
        ["Each round of each commit has a new stack."],
    )


def _row(side: str, label: str, runs: Sequence[Mapping[str, Stored]]) -> Row:
    first = runs[0][label]
    figures = {name: Spread.of(run[label]["figures"][name]["median"] for run in runs) for name in first["figures"]}
    return Row(side, label, first["load"], figures)


def _targets(ours: Row, theirs: Row, least_share: float | None, most: int) -> list[Target]:
    rate, cpu, memory = (ours.figures[name].over(theirs.figures[name]) for name in (RATE, CPU, MEMORY))
    of_other = f"as a share of the other's, {ours.label}"
    speed = reported(f"evaluations/s, {of_other}", rate)
    if least_share is not None and ours.load["mentors"] == most:
        speed = at_least(speed.claim, rate, least_share)
    return [speed, reported(f"CPU, {of_other}", cpu), reported(f"peak memory, {of_other}", memory)]
