"""What slices have in common: the clients that they work with, and the steps from open invocations to ended ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from functions.runs.batch_worker import BatchWorker, Process, WorkerStats
from functions.runs.enumeration import enumerate_mentors
from functions.runs.mentor_selection import MentorSelector
from shared.concurrency import AdaptiveLimiter
from shared.config import ScenarioEvaluationConfig
from shared.database import READER_CONNECTIONS, SLICE_CONNECTIONS, Database, connect
from shared.deadline import Deadline
from shared.engine_client import EngineClient, EvaluationContext
from shared.errors import DatabaseError, EngineAccessError, MentorsViewError
from shared.evaluations import MentorScenarios
from shared.logs import log_event
from shared.queue_repository import FinishedInvocation, OpenInvocation, QueueRepository
from shared.run_repository import RunRepository
from shared.webhook import AlertWebhook

if TYPE_CHECKING:
    from shared.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Services:
    """What a slice works with; built once for a process.

    Args:
        slices: the Data API, over the connections that slices have for themselves.
        readers: the Data API, over the connections of those who call the REST API.
        now: this machine's clock; the database's clock overrules it.
        process: what this process has in hand.
        webhook: where alerts go; None: nowhere.
        telemetry: measures all of it; None: nobody does.
    """

    config: ScenarioEvaluationConfig
    slices: Database
    readers: Database
    queue: QueueRepository
    runs: RunRepository
    engine: EngineClient
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    process: Process = field(default_factory=Process)
    webhook: AlertWebhook | None = None
    telemetry: Telemetry | None = None

    def measuring(self, trigger: str) -> AbstractAsyncContextManager[None]:
        """Measures a slice, where anybody does; see `Telemetry.slice`."""
        return nullcontext() if self.telemetry is None else self.telemetry.slice(trigger)


def build_services(config: ScenarioEvaluationConfig) -> Services:
    """Builds the clients; nothing is sent yet."""
    secret_key = config.supabase_secret_key.get_secret_value()
    slices = Database(connect(config.supabase_url, secret_key, connections=SLICE_CONNECTIONS))
    readers = Database(connect(config.supabase_url, secret_key, connections=READER_CONNECTIONS))
    telemetry = None
    if config.otel_exporter_otlp_endpoint is not None:
        # OpenTelemetry is heavy, and only imported where a collector is named.
        from shared.telemetry import telemetry_for

        telemetry = telemetry_for(f"{config.scenario_engine_url}/v1/evaluations")
    engine = EngineClient(
        config.scenario_engine_url,
        config.scenario_engine_token.get_secret_value(),
        limiter=AdaptiveLimiter(config.engine_max_concurrency),
        timeout_seconds=config.engine_timeout_seconds,
        max_attempts=config.engine_max_attempts,
        telemetry=telemetry,
    )
    invocations = QueueRepository(slices.with_longer_retries(), config)
    webhook = None
    if config.alert_webhook_url is not None:
        webhook = AlertWebhook(config.alert_webhook_url, config.alert_webhook_secret)
    records = RunRepository(readers, config)
    return Services(config, slices, readers, invocations, records, engine, webhook=webhook, telemetry=telemetry)


async def process_open_runs(
    services: Services,
    open_invocations: Sequence[OpenInvocation],
    *,
    deadline: Deadline,
    canary: MentorScenarios | None,
    more_open: bool = False,
    manual_only: bool = False,
    poison_overdue: bool = False,
    dispatch_id: int | None = None,
) -> dict[str, dict[str, Any] | None]:
    """Enumerates, drains, finishes, and hands back.

    Args:
        services: configuration and clients.
        open_invocations: what is to be enumerated and finished; the queue may hold others' batches as well.
        deadline: how long this may take.
        canary: somebody whom the engine has answered before, if anybody.
        more_open: more invocations are open than these.
        manual_only: work on manual runs only, and on no poison batch.
        poison_overdue: a poison batch has waited for so long that it comes first.
        dispatch_id: the dispatch that this slice answers, if one.

    Returns:
        Each of the invocations as a list shows it afterwards, by id; None for one that is gone.

    Raises:
        DatabaseError: a call failed; what could not be recorded becomes visible again. Where the database is not away
            altogether, all else was done before: what is queued, and what could be finished.
    """
    _suggest_canary(services.engine, open_invocations, canary)
    worker = BatchWorker(
        queue=services.queue,
        engine=services.engine,
        config=services.config,
        deadline=deadline,
        process=services.process,
        manual_only=manual_only,
        poison_overdue=poison_overdue,
        telemetry=services.telemetry,
    )
    permit_id = services.queue.new_permit_id()
    # A failure of one does not stop the other: what the drain has in hand is recorded, whatever cannot be read.
    unread, drained = await asyncio.gather(
        _enumerate(services, open_invocations, deadline, worker),
        _run_worker(services, worker, permit_id, deadline, manual_only=manual_only),
        return_exceptions=True,
    )
    if isinstance(unread, BaseException):
        raise unread
    failures = list(unread.values())
    if isinstance(drained, DatabaseError) and not drained.is_outage:
        failures.append(drained)
    elif isinstance(drained, BaseException):
        raise drained
    if worker.done.fatal_error is not None:
        await _end_slice(services, worker.done, dispatch_id, permit_id)
    # A call that was refused, or a view that cannot be read, concerns one run; the others have to end all the same.
    finished = {
        invocation.id: await _finish(services, invocation.id, unread.get(invocation.id))
        for invocation in open_invocations
    }
    after = {invocation_id: found.invocation for invocation_id, found in finished.items()}
    # Each that ended makes room for another one in the next slice.
    worker.done.progressed |= more_open and any(found.ended_now for found in finished.values())
    if drained is False:
        # The next slice would be without a permit as well, and the two would ask for each other in turn.
        worker.done.progressed = False
    if worker.done.fatal_error is None:
        # Last of all: it asks for the next slice, which must not find this one's work still open.
        await _end_slice(services, worker.done, dispatch_id, permit_id)
    _log_ended(worker.done, deadline, after, dispatch_id, more_open=more_open)
    if services.telemetry is not None:
        _measure_breaker(services.telemetry, worker.done)
    if failures:
        raise failures[0]
    return after


async def _run_worker(
    services: Services, worker: BatchWorker, permit_id: str | None, deadline: Deadline, *, manual_only: bool
) -> bool:
    """Drains the queue, but not without a permit to call the engine; returns whether there was one."""
    if await services.queue.take_permit(permit_id, is_manual=manual_only, seconds=deadline.remaining()):
        await worker.run()
        return True
    log_event("engine_full", "All permits to call the engine are taken; this slice claims nothing")
    return False


def _measure_breaker(telemetry: Telemetry, done: WorkerStats) -> None:
    """Only what this slice has seen: one that met the engine neither way tells nothing new."""
    if done.fatal_error is not None or done.engine_paused:
        telemetry.breaker(is_open=True)
    elif done.batches:
        telemetry.breaker(is_open=False)


def is_open(invocation: dict[str, Any] | None) -> bool:
    """Whether there is still something to do for an invocation."""
    return invocation is not None and invocation["status"] in ("pending", "running")


def _suggest_canary(
    engine: EngineClient, open_invocations: Sequence[OpenInvocation], canary: MentorScenarios | None
) -> None:
    """A process that has just started knows nobody whom the engine answers; the database may."""
    if canary is not None and open_invocations:
        newest = open_invocations[-1]
        context = EvaluationContext(newest.id, newest.scheduled_for, engine_scope=f"dry:{newest.id}", dry_run=True)
        engine.suggest_canary(context, canary)


async def _enumerate(
    services: Services, open_invocations: Sequence[OpenInvocation], deadline: Deadline, worker: BatchWorker
) -> dict[str, DatabaseError]:
    """Enumerates one after the other; returns why some could not be read, by invocation id.

    Raises:
        DatabaseError: the database is away.
    """
    failures: dict[str, DatabaseError] = {}
    selector = MentorSelector(services.slices.with_longer_retries(), services.config)
    try:
        # Manual runs first: a person waits for them.
        for invocation in sorted(open_invocations, key=lambda invocation: invocation.trigger == "schedule"):
            if not invocation.enumeration.done and deadline.remaining() > 0:
                try:
                    await enumerate_mentors(
                        invocation,
                        selector=selector,
                        queue=services.queue,
                        batch_size=services.config.evaluation_batch_size,
                        deadline=deadline,
                        on_enqueued=worker.on_enqueued,
                    )
                except DatabaseError as error:
                    if error.is_outage:
                        raise
                    failures[invocation.id] = error
    finally:
        worker.on_enumeration_done()
    return failures


async def _finish(services: Services, invocation_id: str, unread: DatabaseError | None) -> FinishedInvocation:
    finished = await services.queue.finish(invocation_id, waits_for_view=isinstance(unread, MentorsViewError))
    if finished.ended_now and finished.invocation is not None:
        _log_finished(finished.invocation, finished.failures)
        if services.telemetry is not None:
            services.telemetry.ended(finished.invocation)
    return finished


async def _end_slice(services: Services, done: WorkerStats, dispatch_id: int | None, permit_id: str | None) -> None:
    error = done.fatal_error
    code = None
    if error is not None:
        code = "engine_rejected" if isinstance(error, EngineAccessError) else "engine_unavailable"
    await services.queue.end_slice(
        dispatch_id=dispatch_id,
        progressed=done.progressed,
        engine_answers=done.batches > 0,
        engine_error=code,
        engine_message=error.message if error else None,
        retry_after_seconds=error.retry_after if error else None,
        engine_permit_id=permit_id,
    )


def log_opened(invocation: dict[str, Any]) -> None:
    """Says that this call opened an invocation."""
    log_event(
        "invocation_opened",
        f"The {invocation['trigger']} run of {invocation['scheduled_for']} is {invocation['status']}",
        level=logging.WARNING if invocation["status"] == "skipped" else logging.INFO,
        **_logged(invocation),
    )


def _log_finished(invocation: dict[str, Any], causes: Sequence[dict[str, Any]]) -> None:
    failures = {cause["code"]: cause["count"] for cause in causes}
    duration = datetime.fromisoformat(invocation["finished_at"]) - datetime.fromisoformat(invocation["started_at"])
    log_event(
        "invocation_finished",
        f"The {invocation['trigger']} run of {invocation['scheduled_for']} {invocation['status']}",
        level=logging.INFO if invocation["status"] == "success" else logging.WARNING,
        **_logged(invocation),
        duration_ms=round(duration.total_seconds() * 1000),
        counts=invocation["counts"],
        failures=failures,
        other_failures=invocation["counts"]["failed"] - sum(failures.values()),
    )


def _logged(invocation: dict[str, Any]) -> dict[str, Any]:
    """What each line about an invocation as such says of it."""
    same = {name: invocation[name] for name in ("trigger", "status", "lateness_seconds", "error")}
    return {"invocation_id": invocation["id"], "slot": invocation["scheduled_for"], **same}


def _log_ended(
    done: WorkerStats,
    deadline: Deadline,
    after: dict[str, dict[str, Any] | None],
    dispatch_id: int | None,
    *,
    more_open: bool,
) -> None:
    more_to_do = more_open or any(is_open(invocation) for invocation in after.values())
    log_event(
        "slice_ended",
        f"Slice ended after {deadline.elapsed():.1f} s: {done.batches} batches, "
        + ("more to do" if more_to_do else "nothing left to do"),
        invocation_ids=list(after),
        dispatch_id=dispatch_id,
        batches=done.batches,
        counts=dict(done.outcomes),
        more_to_do=more_to_do,
        duration_ms=round(deadline.elapsed() * 1000),
    )
