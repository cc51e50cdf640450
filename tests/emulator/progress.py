"""The progress of runs, as `scheduler.describe_invocation` returns them: a line when something has changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

Run = Mapping[str, Any]

ENDED = ("success", "partial", "failed", "cancelled", "skipped")
EVALUATED = ("triggered", "not_triggered", "suppressed", "skipped", "failed")
# Of one run.
SECONDS_BETWEEN_LINES = 1.0


def evaluated(run: Run) -> int:
    """Returns how many of its evaluations have an outcome."""
    return sum(run["counts"][outcome] for outcome in EVALUATED)


def seconds_taken(run: Run) -> float | None:
    """Returns the seconds from its start to its end, or until now; None where it was never started."""
    if not run["started_at"]:
        return None
    end = datetime.fromisoformat(run["finished_at"]) if run["finished_at"] else datetime.now(UTC)
    return (end - datetime.fromisoformat(run["started_at"])).total_seconds()


def rate(run: Run) -> float | None:
    """Returns evaluations a second since its start; None where there were none, or no time."""
    seconds = seconds_taken(run)
    return evaluated(run) / seconds if seconds and evaluated(run) else None


class Progress:
    """Prints at most one line a second for each run, and one at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: dict[str, tuple[str, float]] = {}

    def show(self, run: Run) -> None:
        status = f"{run['status']} ({run['error_code']})" if run["error_code"] else run["status"]
        line = f"{_name(run)}: {status}, {evaluated(run):,} of {run['counts']['evaluations']:,} evaluations"
        last, at = self._printed.get(run["id"], ("", 0.0))
        if run["status"] not in ENDED and (line == last or time.monotonic() < at + SECONDS_BETWEEN_LINES):
            return
        self._printed[run["id"]] = (line, time.monotonic())
        speed = rate(run)
        if speed is not None:
            line += f", {speed:,.0f}/s" if speed >= 10 else f", {speed:,.1f}/s"
        self._console.print(line, markup=False)


def _name(run: Run) -> str:
    if run["trigger"] == "retry":
        return "retry"
    if run["dry_run"]:
        return "dry run"
    return "scheduled run" if run["trigger"] == "schedule" else "manual run"
