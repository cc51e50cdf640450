"""Runs as `scheduler.describe_invocation` has them."""

from __future__ import annotations

from typing import Any

NONE = {"triggered": 0, "not_triggered": 0, "suppressed": 0, "skipped": 0, "failed": 0, "not_evaluated": 0}


def a_run(status: str = "running", evaluations: int = 100, **counts: int) -> dict[str, Any]:
    """A scheduled run of two seconds, if it has ended."""
    ended = status not in ("pending", "running")
    return {
        "id": "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11",
        "triggered_by": "schedule",
        "dry_run": False,
        "status": status,
        "error": None,
        "scheduled_for": "2026-11-23T02:00:00+00:00",
        "started_at": "2026-11-23T02:00:03+00:00",
        "finished_at": "2026-11-23T02:00:05+00:00" if ended else None,
        "lateness_seconds": 3,
        "counts": {"mentors": evaluations, "batches": 1, "evaluations": evaluations, **NONE, **counts},
        "scenarios": {},
        "failures": [],
        "other_failures": {"count": 0},
    }
