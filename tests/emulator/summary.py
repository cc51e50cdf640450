"""The summary of a run: for a person, for a program, and as an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.console import Console

from .progress import rate, seconds_taken

EXIT_CODES = {"success": 0, "partial": 3, "failed": 4}
EXIT_OTHER = 1


@dataclass(frozen=True)
class Repeat:
    """What the second fire did; `new_notifications` is None where another engine queues them."""

    status_code: int
    deduplicated: bool
    new_notifications: int | None
    same_counts: bool

    @property
    def changed_nothing(self) -> bool:
        return self.deduplicated and self.same_counts and not self.new_notifications


@dataclass(frozen=True)
class Summary:
    """A run as `scheduler.describe_invocation` returns it; `notifications` is None where another engine queues them."""

    invocation: Mapping[str, Any]
    notifications: int | None
    missing: tuple[str, ...]
    repeat: Repeat

    @property
    def exit_code(self) -> int:
        status = self.invocation["status"]
        if not self.repeat.changed_nothing or (self.missing and status == "success"):
            return EXIT_OTHER
        return EXIT_CODES.get(status, EXIT_OTHER)

    def as_object(self) -> dict[str, Any]:
        return {
            "status": self.invocation["status"],
            "exit_code": self.exit_code,
            "seconds": seconds_taken(self.invocation),
            "evaluations_per_second": rate(self.invocation),
            "notifications": self.notifications,
            "missing": list(self.missing),
            "fired_again": {**asdict(self.repeat), "changed_nothing": self.repeat.changed_nothing},
            "invocation": dict(self.invocation),
        }

    def print_on(self, console: Console) -> None:
        invocation, counts = self.invocation, self.invocation["counts"]
        seconds = seconds_taken(invocation)
        duration = "never started" if seconds is None else f"{seconds:.2f} s"
        batches = f"{counts['batches']:,} batch{'es' if counts['batches'] != 1 else ''}"
        lines = [f"  {'error':<13}  {invocation['error_code']}"] if invocation["error_code"] else []
        lines.append(f"  mentors        {counts['mentors']:>9,}")
        lines.append(f"  evaluations    {counts['evaluations']:>9,}  in {batches}, {duration}")
        for outcome in ("triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated"):
            lines += [f"    {outcome:<13}{counts[outcome]:>9,}"] if counts[outcome] else []
        for scenario, outcomes in sorted(invocation["scenarios"].items()):
            words = ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(outcomes.items()))
            lines.append(f"  {scenario}: {words}")
        for failure in invocation["failures"]:
            lines.append(f"  failed: {failure['count']:,} x {failure['code']}: {failure['message']}")
        if invocation["other_failures"]["count"]:
            lines.append(f"  failed: {invocation['other_failures']['count']:,} besides")
        if self.notifications is not None:
            lines.append(f"  notifications  {self.notifications:>9,}  queued")
        console.print()
        console.print(_headline(invocation))
        console.print("\n".join(lines), markup=False)
        if self.missing:
            console.print(f"  [red]not all mentors:[/red] {'; '.join(self.missing)}")
        elif not counts["mentors"]:
            console.print("  there were no mentors to evaluate")
        else:
            console.print("  every active mentor was evaluated for every scenario type that applies")
        if self.repeat.changed_nothing:
            known = "" if self.notifications is None else ", no new notification"
            console.print(f"  fired again: deduplicated, same counts{known}")
        else:
            console.print(f"  [red]fired again, and something changed:[/red] {self.repeat}")


def _headline(invocation: Mapping[str, Any]) -> str:
    slot = datetime.fromisoformat(invocation["scheduled_for"])
    lateness = invocation["lateness_seconds"]
    when = "never started" if lateness is None else f"{lateness} s after its time"
    return f"[bold]{invocation['status']}[/bold]  the run of {slot:%Y-%m-%d %H:%M} UTC, {when}"
