"""What is kept of a batch, and what is said about it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shared.errors import DatabaseError
from shared.evaluations import EvaluationBatch, EvaluationResult, GroupedResults
from shared.logs import log_event
from shared.queue_repository import QueueRepository

# A line for each user of a run in which all fail would be a million lines; the database holds every one.
MAX_FAILED_USERS = 20


@dataclass(frozen=True, slots=True)
class RunResult:
    """A batch's results: one for each of its pairs.

    Args:
        worker: names the process that evaluated them.
        remaining: users for whom the time did not suffice, and who have no results.
    """

    batch: EvaluationBatch
    results: Sequence[EvaluationResult]
    duration_ms: int
    worker: str
    remaining: Sequence[str] = ()


async def log_run_result(result: RunResult, *, queue: QueueRepository) -> Counter[str] | None:
    """Records a batch's results and errors, puts back whom the time did not suffice for, and logs it.

    The record comes first: what is logged has been recorded. One line for the batch, one for each of the first
    `MAX_FAILED_USERS` users who failed, and one with the number of the others.

    Args:
        result: the batch and what came of it.
        invocations: where it is recorded.

    Returns:
        How many pairs came to each outcome; None where another worker's record stands, or the invocation is gone: then
        nothing of it counts.

    Raises:
        DatabaseError: nothing was recorded, and the batch is still in its queue.
    """
    batch = result.batch
    where = batch.log_fields
    grouped = GroupedResults(result.results)
    try:
        state = await queue.complete(
            batch, grouped, remaining=result.remaining, duration_ms=result.duration_ms, worker=result.worker
        )
    except DatabaseError as error:
        log_event(
            "batch_not_recorded",
            f"Batch {batch.batch_no} could not be recorded; it is evaluated again under the same keys: {error}",
            level=logging.WARNING,
            **where,
            deliveries=batch.deliveries,
        )
        raise
    is_recorded = state == "done"
    outcomes = grouped.outcomes()
    log_event(
        "batch_recorded",
        f"Batch {batch.batch_no}: {len(result.results)} evaluations, {outcomes['failed']} failed ({state})",
        **where,
        state=state,
        mentors=len({user.user_id for user in batch.users}) - len(result.remaining),
        mentors_requeued=len(result.remaining) if result.remaining and is_recorded else None,
        counts=dict(outcomes),
        deliveries=batch.deliveries,
        duration_ms=result.duration_ms,
    )
    if is_recorded and outcomes["failed"]:
        log_failed_users(result.results, **where)
    return outcomes if is_recorded else None


def log_failed_users(results: Iterable[EvaluationResult], **where: Any) -> None:
    """Logs users with a failed pair, one line for each of the first `MAX_FAILED_USERS`, and the number of the others.

    Args:
        results: of any users.
        where: fields that say where they are recorded, if they are.
    """
    failures: dict[str, EvaluationResult] = {}
    for pair in results:
        if pair.outcome == "failed":
            failures.setdefault(pair.user_id, pair)
    for user_id, pair in islice(failures.items(), MAX_FAILED_USERS):
        log_event(
            "user_failed",
            f"A user could not be evaluated: {pair.error_code}",
            level=logging.WARNING,
            **where,
            user_id=user_id,
            scenario_type=pair.scenario_type,
            error_code=pair.error_code,
            attempts=pair.attempts,
        )
    if (others := len(failures) - MAX_FAILED_USERS) > 0:
        log_event(
            "other_users_failed",
            f"{others} other users of this batch could not be evaluated",
            level=logging.WARNING,
            **where,
            users=others,
        )


def log_database_error(error: DatabaseError, message: str, **where: Any) -> None:
    """Logs a failed call to the database under the event that says what it was.

    Args:
        error: the failure.
        message: for a person.
        where: fields that say what was under way.
    """
    log_event(error.event, message, level=logging.ERROR, **where, error_code=getattr(error, "code", None))
