"""An invocation as `POST /` answers it: what `contract.InvocationSummary` says, made without pydantic.

The answer goes to every holder of an invoke token, and pg_net keeps it in its table: it holds no note and no user id.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

MEMBERS = (
    *("id", "triggered_by", "status", "dry_run", "deduplicated", "scheduled_for", "created_at", "started_at"),
    *("finished_at", "expires_at", "lateness_seconds", "retry_of", "error", "counts", "skip_reasons"),
)
TIMES = ("scheduled_for", "created_at", "started_at", "finished_at", "expires_at")
COUNTS = (
    *("mentors", "mentors_skipped", "batches", "batches_done", "evaluations"),
    *("triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated"),
)


def answered(described: dict[str, Any], *, deduplicated: bool) -> dict[str, Any]:
    """The answer's members, in the contract's order.

    Args:
        described: the invocation as the database summarizes it.
        deduplicated: it had been opened before this call.

    Raises:
        KeyError: the description leaves a member out.
    """
    answer = _in_order(MEMBERS, described | {"deduplicated": deduplicated})
    for name in TIMES:
        answer[name] = answered_time(answer[name])
    answer["counts"] = _in_order(COUNTS, answer["counts"])
    return answer


def answered_time(text: str | None) -> str | None:
    """A time that PostgreSQL wrote, as the API writes times: in UTC, with a Z."""
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _in_order(names: tuple[str, ...], members: dict[str, Any]) -> dict[str, Any]:
    return {name: members[name] for name in names}
