"""One slice of work on open invocations: enumerate, process batches, finish, end the slice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from functions.runs.batch_processor import WorkerStats
from functions.runs.batch_worker import BatchWorker
from functions.runs.enumeration import enumerate_mentors
from functions.runs.run_log import log_ended
from functions.runs.services import Services
from shared.deadline import Deadline
from shared.engine_protocol import EvaluationContext
from shared.errors import DatabaseError, EngineAccessError, MentorsViewError
from shared.evaluations import MentorScenarios
from shared.invocation import InvocationSummary
from shared.logs import log_event
from shared.slice_repository import FinishedInvocation, OpenInvocation


async def process_open_runs(
    services: Services,
    open_invocations: Sequence[OpenInvocation],
    *,
    deadline: Deadline,
    canary: MentorScenarios | None,
    engine_answered_recently: bool = False,
    more_open: bool = False,
    manual_only: bool = False,
    poison_overdue: bool = False,
    dispatch_id: int | None = None,
) -> dict[str, InvocationSummary | None]:
    """Enumerates, processes batches, finishes what is complete, and ends the slice.

    Args:
        open_invocations: at least one to enumerate and finish; the queues may hold batches of others as well.
        canary: a pair that the engine has answered before, if any.
        engine_answered_recently: it answered a call within the last time budget.
        more_open: more invocations are open than these.
        manual_only: process manual runs only, and no poison batch.
        poison_overdue: a poison batch has waited for so long that it is processed first.
        dispatch_id: the dispatch that this slice answers, if one.

    Returns:
        Each of the invocations as it is afterwards, by id; None for one that is gone.

    Raises:
        DatabaseError: a call failed; what could not be recorded becomes visible again. Unless the database is away
            altogether, everything else was done first.
    """
    if canary is not None:
        newest = open_invocations[-1]
        context = EvaluationContext(newest.id, newest.scheduled_for, engine_scope=f"dry:{newest.id}", dry_run=True)
        services.engine.suggest_canary(context, canary)
    if engine_answered_recently:
        services.engine.health.suggest_answer(deadline)
    worker = BatchWorker(services, deadline, manual_only=manual_only, poison_overdue=poison_overdue)
    stats = worker.stats
    permit_id = services.slices.new_permit_id()
    # A failure of one does not stop the other: batches in hand are recorded even if mentors cannot be read.
    unread, has_permit = await asyncio.gather(
        _enumerate(services, open_invocations, deadline, worker),
        _run_worker(services, worker, permit_id, deadline, manual_only=manual_only),
        return_exceptions=True,
    )
    if isinstance(unread, BaseException):
        raise unread
    failures = list(unread.values())
    if isinstance(has_permit, DatabaseError) and not has_permit.is_outage:
        failures.append(has_permit)
    elif isinstance(has_permit, BaseException):
        raise has_permit
    if stats.fatal_error is not None:
        await _end_slice(services, stats, dispatch_id, permit_id)
    # A refused call, or a view that cannot be read, concerns one run; the others are finished all the same.
    finished = {
        invocation.id: await _finish(services, invocation.id, unread.get(invocation.id))
        for invocation in open_invocations
    }
    # Each that ended makes room for another one in the next slice.
    stats.progressed |= more_open and any(found.ended_now for found in finished.values())
    if has_permit is False:
        # The next slice would be without a permit as well, and the two would request each other in turn.
        stats.progressed = False
    if stats.fatal_error is None:
        # Last of all: it requests the next slice, which must not find this one's work still open.
        await _end_slice(services, stats, dispatch_id, permit_id)
    after = {invocation_id: found.invocation for invocation_id, found in finished.items()}
    still_open = [invocation for invocation in after.values() if invocation is not None and invocation.is_open]
    more_to_do = more_open or bool(still_open)
    if more_to_do:
        # No warning: a run that is longer than the time budget has one in each slice but its last.
        log_event(
            "scheduler_run_partial",
            "Slice ends with work left; a later slice continues it",
            invocation_ids=[str(invocation.id) for invocation in still_open],
            remaining_unprocessed_count=sum(invocation.mentors_remaining for invocation in still_open),
        )
    log_event(
        "slice_ended",
        f"Slice ended: {stats.batches} batches, " + ("work left" if more_to_do else "no work left"),
        invocation_ids=list(after),
        dispatch_id=dispatch_id,
        batches=stats.batches,
        counts=dict(stats.outcomes),
        more_to_do=more_to_do,
        duration_ms=round(deadline.elapsed() * 1000),
        paced_ms=round(deadline.pace.waited * 1000) if deadline.pace.seconds else None,
    )
    is_down = stats.fatal_error is not None or stats.engine_paused
    # A slice without a call to the engine shows nothing of the breaker's state.
    if services.telemetry is not None and (is_down or stats.batches):
        services.telemetry.breaker(is_open=is_down)
    if failures:
        raise failures[0]
    return after


async def _run_worker(
    services: Services, worker: BatchWorker, permit_id: str | None, deadline: Deadline, *, manual_only: bool
) -> bool:
    """Runs the worker if there is a permit to call the engine; returns whether there was."""
    if await services.slices.take_permit(permit_id, deadline, is_manual=manual_only):
        await worker.run()
        return True
    log_event("engine_full", "Engine concurrency limit reached: no permit left; this slice claims nothing")
    return False


async def _enumerate(
    services: Services, open_invocations: Sequence[OpenInvocation], deadline: Deadline, worker: BatchWorker
) -> dict[str, DatabaseError]:
    """Enumerates one invocation after the other; returns why some could not be read, by invocation id.

    Raises:
        DatabaseError: the database is away.
    """
    failures: dict[str, DatabaseError] = {}
    try:
        # Manual runs first: their callers wait.
        for invocation in sorted(open_invocations, key=lambda invocation: invocation.trigger == "schedule"):
            if not invocation.enumeration.done and deadline.remaining() > 0:
                try:
                    await enumerate_mentors(services, invocation, deadline=deadline, on_enqueued=worker.on_enqueued)
                except DatabaseError as error:
                    if error.is_outage:
                        raise
                    failures[invocation.id] = error
    finally:
        worker.on_enumeration_done()
    return failures


async def _finish(services: Services, invocation_id: str, unread: DatabaseError | None) -> FinishedInvocation:
    finished = await services.slices.finish(invocation_id, waits_for_view=isinstance(unread, MentorsViewError))
    invocation = finished.invocation
    if finished.ended_now and invocation is not None:
        log_ended(invocation, finished.failures)
        if services.telemetry is not None:
            services.telemetry.ended(invocation)
    return finished


async def _end_slice(services: Services, stats: WorkerStats, dispatch_id: int | None, permit_id: str | None) -> None:
    error = stats.fatal_error
    code = "engine_rejected" if isinstance(error, EngineAccessError) else "engine_unavailable"
    await services.slices.end_slice(
        dispatch_id=dispatch_id,
        progressed=stats.progressed,
        engine_answers=stats.batches > 0,
        engine_error=code if error else None,
        engine_message=error.message if error else None,
        retry_after_seconds=error.retry_after if error else None,
        engine_permit_id=permit_id,
    )
