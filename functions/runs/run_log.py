"""Records a batch's results, and logs what happens to results, runs and the database."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from functions.runs.result_ledger import BatchResult
from shared.errors import DatabaseError
from shared.evaluations import EvaluationBatch, EvaluationResult, GroupedResults
from shared.invocation import Cause, InvocationSummary
from shared.logs import log_event
from shared.queue_repository import QueueRepository

WORKER = f"{socket.gethostname()}:{os.getpid()}"
# A run in which every user fails would be a million lines; the database has all of them.
MAX_FAILED_USERS = 20
# The published kinds of failure; every other code is an answer of the engine.
ERROR_TYPES = {
    "engine_unreachable": "network_error",
    "engine_timeout": "timeout_error",
    "time_budget_exceeded": "timeout_error",
    "outcome_unknown": "timeout_error",
    # No delivery of the batch led to a record.
    "worker_lost": "database_error",
}


async def log_run_result(
    result: BatchResult, batch: EvaluationBatch, *, duration_ms: int, queue: QueueRepository
) -> Counter[str] | None:
    """Records a batch's results and errors, requeues the remaining users, and logs the batch.

    The record comes first: what is logged has been recorded. One line for the batch, one for each of the first
    `MAX_FAILED_USERS` users who failed, and one with the number of the others.

    Returns:
        Counts by outcome; None where another worker's record stands, or the invocation is gone: nothing of it counts.

    Raises:
        DatabaseError: nothing was recorded, and the batch is still in its queue.
    """
    fields = batch.log_fields
    grouped = GroupedResults(result.results)
    try:
        state = await queue.complete(batch, grouped, remaining=result.remaining, duration_ms=duration_ms, worker=WORKER)
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
        mentors=batch.mentors - len(result.remaining),
        mentors_requeued=len(result.remaining) if result.remaining and is_recorded else None,
        counts=dict(outcomes),
        deliveries=batch.deliveries,
        duration_ms=duration_ms,
    )
    if is_recorded and outcomes["failed"]:
        log_failed_users(result.results, **fields)
    return outcomes if is_recorded else None


def log_failed_users(results: Iterable[EvaluationResult], **fields: Any) -> None:
    """Logs the first `MAX_FAILED_USERS` users with a failed pair, a line each, and the number of the others."""
    failures: dict[str, EvaluationResult] = {}
    for pair in results:
        if pair.outcome == "failed":
            failures.setdefault(pair.user_id, pair)
    for user_id, pair in islice(failures.items(), MAX_FAILED_USERS):
        log_event(
            "mentor_evaluation_error",
            f"Evaluation of a mentor failed: {pair.error_code}",
            level=logging.WARNING,
            **fields,
            peer_mentor_id=user_id,
            scenario_type=pair.scenario_type,
            error_type=ERROR_TYPES.get(pair.error_code or "", "evaluation_logic_error"),
            error_code=pair.error_code,
            attempts=pair.attempts,
        )
    if (others := len(failures) - MAX_FAILED_USERS) > 0:
        log_event(
            "other_mentor_evaluation_errors",
            f"Evaluation of {others} more mentors of this batch failed",
            level=logging.WARNING,
            **fields,
            mentors=others,
        )


def log_database_error(error: DatabaseError, message: str, **fields: Any) -> None:
    """Logs a failed call to the database under the event of its kind."""
    log_event(error.event, message, level=logging.ERROR, **fields, error_code=getattr(error, "code", None))


def log_opened(invocation: InvocationSummary) -> None:
    """Logs an invocation that this call opened; one that ended at once is logged by its end alone."""
    fields = invocation.log_fields
    if invocation.status == "skipped":
        is_paused = invocation.error_code == "paused"
        log_event(
            "scheduler_run_skipped",
            f"Run skipped: the {'schedule is paused' if is_paused else 'one before is open'}",
            level=logging.INFO if is_paused else logging.WARNING,
            **fields,
        )
    elif invocation.is_open:
        log_event("scheduler_run_started", f"Run started: {invocation.trigger}, {invocation.status}", **fields)


def log_ended(invocation: InvocationSummary, causes: Sequence[Cause], ended_by: str | None = None) -> None:
    """Logs an invocation that has ended, with the commonest causes of its failures, and who ended it early, if so."""
    failures = {cause.code: cause.count for cause in causes}
    fields = {
        **invocation.log_fields,
        **invocation.totals,
        "ended_by": ended_by,
        "pages_processed": invocation.pages_processed,
        "duration_ms": invocation.duration_ms,
        "counts": invocation.counts.model_dump(),
        "failures": failures,
        "other_failures": invocation.counts.failed - sum(failures.values()),
    }
    if invocation.status == "failed":
        log_event("scheduler_run_failed", f"Run failed: {invocation.trigger}", level=logging.WARNING, **fields)
    else:
        level = logging.INFO if invocation.status == "success" else logging.WARNING
        log_event(
            "scheduler_run_completed", f"Run ended: {invocation.trigger}, {invocation.status}", level=level, **fields
        )
