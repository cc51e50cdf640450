"""Records a batch's results and logs them, and logs how invocations and slices end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from shared.deadline import Deadline
from shared.errors import DatabaseError
from shared.evaluations import EvaluationBatch, EvaluationResult, GroupedResults
from shared.invocation import Cause, InvocationSummary
from shared.logs import log_event
from shared.queue_repository import QueueRepository

if TYPE_CHECKING:
    from functions.runs.batch_processor import WorkerStats

# A run in which every user fails would be a million lines; the database has all of them.
MAX_FAILED_USERS = 20


@dataclass(frozen=True, slots=True)
class RunResult:
    """A batch's results: one for each of its pairs.

    Args:
        worker: names the process that evaluated them.
        remaining: users without results, whose retries hit the deadline.
    """

    batch: EvaluationBatch
    results: Sequence[EvaluationResult]
    duration_ms: int
    worker: str
    remaining: Sequence[str] = ()


async def log_run_result(result: RunResult, *, queue: QueueRepository) -> Counter[str] | None:
    """Records a batch's results and errors, requeues the remaining users, and logs the batch.

    The record comes first: what is logged has been recorded. One line for the batch, one for each of the first
    `MAX_FAILED_USERS` users who failed, and one with the number of the others.

    Args:
        result: the batch and its results.
        queue: where it is recorded.

    Returns:
        Counts by outcome; None where another worker's record stands, or the invocation is gone: nothing of it counts.

    Raises:
        DatabaseError: nothing was recorded, and the batch is still in its queue.
    """
    batch = result.batch
    fields = batch.log_fields
    grouped = GroupedResults(result.results)
    try:
        state = await queue.complete(
            batch, grouped, remaining=result.remaining, duration_ms=result.duration_ms, worker=result.worker
        )
    except DatabaseError as error:
        log_event(
            "batch_not_recorded",
            f"Batch {batch.batch_no} not recorded; it will be evaluated again under the same keys: {error}",
            level=logging.WARNING,
            **fields,
            deliveries=batch.deliveries,
        )
        raise
    is_recorded = state == "done"
    outcomes = grouped.outcomes()
    log_event(
        "batch_recorded",
        f"Batch {batch.batch_no}: {len(result.results)} evaluations, {outcomes['failed']} failed ({state})",
        **fields,
        state=state,
        mentors=len({user.user_id for user in batch.users}) - len(result.remaining),
        mentors_requeued=len(result.remaining) if result.remaining and is_recorded else None,
        counts=dict(outcomes),
        deliveries=batch.deliveries,
        duration_ms=result.duration_ms,
    )
    if is_recorded and outcomes["failed"]:
        log_failed_users(result.results, **fields)
    return outcomes if is_recorded else None


def log_failed_users(results: Iterable[EvaluationResult], **fields: Any) -> None:
    """Logs users with a failed pair, one line for each of the first `MAX_FAILED_USERS`, and the number of the others.

    Args:
        results: of any users.
        fields: where they are recorded, if they are.
    """
    failures: dict[str, EvaluationResult] = {}
    for pair in results:
        if pair.outcome == "failed":
            failures.setdefault(pair.user_id, pair)
    for user_id, pair in islice(failures.items(), MAX_FAILED_USERS):
        log_event(
            "user_failed",
            f"Evaluation of a user failed: {pair.error_code}",
            level=logging.WARNING,
            **fields,
            user_id=user_id,
            scenario_type=pair.scenario_type,
            error_code=pair.error_code,
            attempts=pair.attempts,
        )
    if (others := len(failures) - MAX_FAILED_USERS) > 0:
        log_event(
            "other_users_failed",
            f"Evaluation of {others} more users of this batch failed",
            level=logging.WARNING,
            **fields,
            users=others,
        )


def log_database_error(error: DatabaseError, message: str, **fields: Any) -> None:
    """Logs a failed call to the database under the event of its kind.

    Args:
        error: the failure.
        message: for a person.
        fields: what was under way.
    """
    log_event(error.event, message, level=logging.ERROR, **fields, error_code=getattr(error, "code", None))


def log_opened(invocation: InvocationSummary) -> None:
    """Logs an invocation that this call opened."""
    log_event(
        "invocation_opened",
        f"Invocation opened: {invocation.trigger}, {invocation.status}",
        level=logging.WARNING if invocation.status == "skipped" else logging.INFO,
        **invocation.log_fields,
    )


def log_finished(invocation: InvocationSummary, causes: Sequence[Cause]) -> None:
    """Logs an invocation that this process ended, with the commonest causes of its failures."""
    failures = {cause.code: cause.count for cause in causes}
    duration = invocation.duration
    log_event(
        "invocation_finished",
        f"Invocation finished: {invocation.trigger}, {invocation.status}",
        level=logging.INFO if invocation.status == "success" else logging.WARNING,
        **invocation.log_fields,
        duration_ms=round(duration.total_seconds() * 1000) if duration is not None else None,
        counts=invocation.counts.model_dump(),
        failures=failures,
        other_failures=invocation.counts.failed - sum(failures.values()),
    )


def log_slice_ended(
    stats: WorkerStats,
    deadline: Deadline,
    after: Mapping[str, InvocationSummary | None],
    dispatch_id: int | None,
    *,
    more_open: bool,
) -> None:
    """Logs the end of a slice: what it did, and whether work is left."""
    more_to_do = more_open or any(invocation.is_open for invocation in after.values() if invocation)
    log_event(
        "slice_ended",
        f"Slice ended: {stats.batches} batches, " + ("work left" if more_to_do else "no work left"),
        invocation_ids=list(after),
        dispatch_id=dispatch_id,
        batches=stats.batches,
        counts=dict(stats.outcomes),
        more_to_do=more_to_do,
        duration_ms=round(deadline.elapsed() * 1000),
    )
