"""How far runs are: a bar with counts and rate on a terminal, lines elsewhere.

A run is what `scheduler.describe_invocation` says of it.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

Run = Mapping[str, Any]

ENDED = ("success", "partial", "failed", "cancelled", "skipped")
EVALUATED = ("triggered", "not_triggered", "suppressed", "skipped", "failed")
# Of one run, where there is no bar.
SECONDS_BETWEEN_LINES = 1.0
# A rate is that of the last seconds: what is slow now is not hidden by what was fast before.
RATE_SECONDS = 5.0


def console_for(stream: TextIO) -> Console:
    """Colours and bars on a terminal, and nowhere else, whatever the environment says of colours."""
    return Console(file=stream, highlight=False, soft_wrap=True, force_terminal=stream.isatty())


def has_ended(run: Run) -> bool:
    """Whether nothing more happens to its status."""
    return run["status"] in ENDED


def evaluated(run: Run) -> int:
    """How many of its evaluations have an outcome."""
    return sum(run["counts"][outcome] for outcome in EVALUATED)


def seconds_taken(run: Run) -> float | None:
    """From its start to its end; None while one of them is missing."""
    if not run["finished_at"] or not run["started_at"]:
        return None
    return (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()


def overall_rate(run: Run) -> float | None:
    """Evaluations a second of a run that has ended; None where there were none, or no time."""
    seconds = seconds_taken(run)
    return evaluated(run) / seconds if seconds and evaluated(run) else None


class Shows(Protocol):
    """Shows how far a run is, again and again until it has ended."""

    def show(self, run: Run) -> None: ...


@contextlib.contextmanager
def progress_on(console: Console) -> Iterator[Shows]:
    """Bars for as long as the block runs, where the console is a terminal that can draw them; else lines."""
    if console.is_terminal and not console.is_dumb_terminal:
        with _bars(console) as progress:
            yield Bars(progress)
    else:
        yield Lines(console)


class Pace:
    """How fast one run is."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, run: Run) -> str:
        """Evaluations a second: lately, or of all of it once it has ended; empty while it is not known."""
        rate = overall_rate(run) if has_ended(run) else self._lately(evaluated(run))
        if rate is None:
            return ""
        return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:,.1f}/s"

    def _lately(self, done: int) -> float | None:
        now = time.monotonic()
        self._seen.append((now, done))
        # the first look before the window stays: it says where the window began
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / (now - since) if now > since else None


class Bars:
    """A bar for each run under way; it scrolls away as it is when its run has ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}

    def show(self, run: Run) -> None:
        """Draws it anew."""
        bar = self._tasks.get(run["id"])
        if bar is None:
            bar = self._tasks[run["id"]] = self._progress.add_task("", total=None, counts="", rate="")
            self._paces[run["id"]] = Pace()
        done, total = evaluated(run), run["counts"]["evaluations"]
        self._progress.update(
            bar,
            description=f"{_name(run)}: {_state(run)}",
            completed=done,
            # of how many is known once a mentor was read, or none will be
            total=total if total or has_ended(run) else None,
            counts=f"{done:,} of {total:,} evaluations",
            rate=self._paces[run["id"]].rate(run),
        )
        if has_ended(run):
            (task,) = (task for task in self._progress.tasks if task.id == bar)
            self._progress.remove_task(bar)
            self._progress.refresh()  # or what is printed next would still have the bar below it
            self._progress.console.print(self._progress.make_tasks_table([task]))
            del self._tasks[run["id"]], self._paces[run["id"]]


class Lines:
    """A line when something has changed, at most one a second for each run, and one at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)
        self._said: dict[str, tuple[str, float]] = {}

    def show(self, run: Run) -> None:
        """Says it, if it is news, and the last line is old enough."""
        rate = self._paces[run["id"]].rate(run)
        news = f"{_name(run)}: {_state(run)}, {evaluated(run):,} of {run['counts']['evaluations']:,} evaluations"
        said, at = self._said.get(run["id"], ("", 0.0))
        if not has_ended(run) and (news == said or time.monotonic() < at + SECONDS_BETWEEN_LINES):
            return
        self._console.print(f"{news}, {rate}" if rate else news, markup=False)
        self._said[run["id"]] = (news, time.monotonic())


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[counts]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )


def _name(run: Run) -> str:
    if run["trigger"] == "retry":
        return "retry"
    if run["dry_run"]:
        return "dry run"
    return "scheduled run" if run["trigger"] == "schedule" else "manual run"


def _state(run: Run) -> str:
    return f"{run['status']} ({run['error_code']})" if run["error_code"] else str(run["status"])
