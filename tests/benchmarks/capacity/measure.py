"""Measures every case on a stack of its own, and writes the file that the model is made of."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.emulator.project import ProjectFactory
from tests.emulator.staging import ROOT

from ..drained_run import SETTINGS, DrainFigures, drain_once
from ..peers.fast_engine import fast_engine
from .cases import CASES
from .measurements import Measurements
from .upkeep import OPEN_BATCHES, measure_prune, measure_upkeep


async def measure(
    rounds: int, *, before: Measurements | None = None, say: Callable[[str], None] = lambda _: None
) -> Measurements:
    """Measures all cases in turn, so often.

    Args:
        rounds: how often.
        before: rounds of the same machine to add these to.
        say: is told of each run.
    """
    found: dict[str, list[DrainFigures]] = {case: list(before.rounds[case]) if before else [] for case in CASES}
    for _ in range(rounds):
        async with ProjectFactory(settings=SETTINGS) as projects, projects.project() as project:
            for case, load in CASES.items():
                async with fast_engine(
                    project.data_dir, latency_ms=load.latency_ms, notable=load.notable, expect=load.evaluations
                ) as engine_url:
                    figures = await drain_once(project, engine_url, load)
                found[case].append(figures)
                say(f"{case}: {figures.drain.seconds:.2f} s, of the machine's CPU {figures.drain.machine_share:.2f}")
    async with ProjectFactory(settings=SETTINGS) as projects, projects.project() as project:
        upkeep = {batches: await measure_upkeep(project, batches) for batches in OPEN_BATCHES}
        prune_seconds = await measure_prune(project)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Measurements(at, _commit(), _machine(), found, upkeep, prune_seconds)


def _machine() -> dict[str, Any]:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": found.group(1).strip() if found else platform.machine(),
        "python": platform.python_version(),
    }


def _commit() -> str:
    command: Sequence[str | Path] = ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
