"""What slices have in common: the clients that they work with, and the steps from open invocations to ended ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from functions.drain import Drain, Drained, Process
from functions.enumeration import enumerate_mentors
from functions.roster import Roster
from shared.alert_webhook import AlertWebhook
from shared.config import ScenarioEvaluationConfig
from shared.database import READER_CONNECTIONS, SLICE_CONNECTIONS, Database, connect
from shared.errors import DatabaseError, EngineRejectedError, MentorsViewError
from shared.evaluations import MentorScenarios
from shared.invocation_records import InvocationRecords
from shared.invocations import FinishedInvocation, Invocations, OpenInvocation
from shared.load_control import ConcurrencyLimiter
from shared.observability import log_event
from shared.time_budget import TimeBudget
from shared.trigger_engine import EvaluationContext, TriggerEngine

if TYPE_CHECKING:
    from shared.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Work:
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
    invocations: Invocations
    records: InvocationRecords
    engine: TriggerEngine
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    process: Process = field(default_factory=Process)
    webhook: AlertWebhook | None = None
    telemetry: Telemetry | None = None

    def measuring(self, trigger: str) -> AbstractAsyncContextManager[None]:
        """Measures a slice, where anybody does; see `Telemetry.slice`."""
        return nullcontext() if self.telemetry is None else self.telemetry.slice(trigger)


def build_work(config: ScenarioEvaluationConfig) -> Work:
    """Builds the clients; nothing is sent yet."""
    secret_key = config.supabase_secret_key.get_secret_value()
    slices = Database(connect(config.supabase_url, secret_key, connections=SLICE_CONNECTIONS))
    readers = Database(connect(config.supabase_url, secret_key, connections=READER_CONNECTIONS))
    telemetry = None
    if config.otel_exporter_otlp_endpoint is not None:
        # OpenTelemetry is heavy, and only imported where a collector is named.
        from shared.telemetry import telemetry_for

        telemetry = telemetry_for(f"{config.scenario_engine_url}/v1/evaluations")
    engine = TriggerEngine(
        config.scenario_engine_url,
        config.scenario_engine_token.get_secret_value(),
        limiter=ConcurrencyLimiter(config.engine_max_concurrency),
        timeout_seconds=config.engine_timeout_seconds,
        max_attempts=config.engine_max_attempts,
        telemetry=telemetry,
    )
    invocations = Invocations(slices.patient(), config)
    webhook = None
    if config.alert_webhook_url is not None:
        webhook = AlertWebhook(config.alert_webhook_url, config.alert_webhook_secret)
    records = InvocationRecords(readers, config)
    return Work(config, slices, readers, invocations, records, engine, webhook=webhook, telemetry=telemetry)


async def work_off(
    work: Work,
    open_invocations: Sequence[OpenInvocation],
    *,
    budget: TimeBudget,
    witness: MentorScenarios | None,
    more_open: bool = False,
    manual_only: bool = False,
    poison_overdue: bool = False,
    dispatch_id: int | None = None,
) -> dict[str, dict[str, Any] | None]:
    """Enumerates, drains, finishes, and hands back.

    Args:
        work: configuration and clients.
        open_invocations: what is to be enumerated and finished; the queue may hold others' batches as well.
        budget: how long this may take.
        witness: somebody whom the engine has answered before, if anybody.
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
    _suggest_witness(work.engine, open_invocations, witness)
    drain = Drain(
        invocations=work.invocations,
        engine=work.engine,
        config=work.config,
        budget=budget,
        process=work.process,
        manual_only=manual_only,
        poison_overdue=poison_overdue,
        telemetry=work.telemetry,
    )
    permit_id = work.invocations.new_permit_id()
    # A failure of one does not stop the other: what the drain has in hand is recorded, whatever cannot be read.
    unread, drained = await asyncio.gather(
        _enumerate(work, open_invocations, budget, drain),
        _drain(work, drain, permit_id, budget, manual_only=manual_only),
        return_exceptions=True,
    )
    if isinstance(unread, BaseException):
        raise unread
    failures = list(unread.values())
    if isinstance(drained, DatabaseError) and not drained.is_outage:
        failures.append(drained)
    elif isinstance(drained, BaseException):
        raise drained
    if drain.done.stopped_by is not None:
        await _hand_back(work, drain.done, dispatch_id, permit_id)
    # A call that was refused, or a view that cannot be read, concerns one run; the others have to end all the same.
    finished = {
        invocation.id: await _finish(work, invocation.id, unread.get(invocation.id)) for invocation in open_invocations
    }
    after = {invocation_id: found.invocation for invocation_id, found in finished.items()}
    # Each that ended makes room for another one in the next slice.
    drain.done.progressed |= more_open and any(found.ended_now for found in finished.values())
    if drained is False:
        # The next slice would be without a permit as well, and the two would ask for each other in turn.
        drain.done.progressed = False
    if drain.done.stopped_by is None:
        # Last of all: it asks for the next slice, which must not find this one's work still open.
        await _hand_back(work, drain.done, dispatch_id, permit_id)
    _log_ended(drain.done, budget, after, dispatch_id, more_open=more_open)
    if work.telemetry is not None:
        _measure_breaker(work.telemetry, drain.done)
    if failures:
        raise failures[0]
    return after


async def _drain(work: Work, drain: Drain, permit_id: str | None, budget: TimeBudget, *, manual_only: bool) -> bool:
    """Drains the queue, but not without a permit to call the engine; returns whether there was one."""
    if await work.invocations.take_permit(permit_id, is_manual=manual_only, seconds=budget.remaining()):
        await drain.run()
        return True
    log_event("engine_full", "All permits to call the engine are taken; this slice claims nothing")
    return False


def _measure_breaker(telemetry: Telemetry, done: Drained) -> None:
    """Only what this slice has seen: one that met the engine neither way tells nothing new."""
    if done.stopped_by is not None or done.engine_paused:
        telemetry.breaker(is_open=True)
    elif done.batches:
        telemetry.breaker(is_open=False)


def is_open(invocation: dict[str, Any] | None) -> bool:
    """Whether there is still something to do for an invocation."""
    return invocation is not None and invocation["status"] in ("pending", "running")


def _suggest_witness(
    engine: TriggerEngine, open_invocations: Sequence[OpenInvocation], witness: MentorScenarios | None
) -> None:
    """A process that has just started knows nobody whom the engine answers; the database may."""
    if witness is not None and open_invocations:
        newest = open_invocations[-1]
        context = EvaluationContext(newest.id, newest.scheduled_for, engine_scope=f"dry:{newest.id}", dry_run=True)
        engine.suggest_witness(context, witness)


async def _enumerate(
    work: Work, open_invocations: Sequence[OpenInvocation], budget: TimeBudget, drain: Drain
) -> dict[str, DatabaseError]:
    """Enumerates one after the other; returns why some could not be read, by invocation id.

    Raises:
        DatabaseError: the database is away.
    """
    failures: dict[str, DatabaseError] = {}
    roster = Roster(work.slices.patient(), work.config)
    try:
        # Manual runs first: a person waits for them.
        for invocation in sorted(open_invocations, key=lambda invocation: invocation.triggered_by == "schedule"):
            if not invocation.enumeration.done and budget.remaining() > 0:
                try:
                    await enumerate_mentors(
                        invocation,
                        roster=roster,
                        invocations=work.invocations,
                        batch_size=work.config.evaluation_batch_size,
                        budget=budget,
                        on_queued=drain.note_queued,
                    )
                except DatabaseError as error:
                    if error.is_outage:
                        raise
                    failures[invocation.id] = error
    finally:
        drain.note_all_queued()
    return failures


async def _finish(work: Work, invocation_id: str, unread: DatabaseError | None) -> FinishedInvocation:
    finished = await work.invocations.finish(invocation_id, waits_for_view=isinstance(unread, MentorsViewError))
    if finished.ended_now and finished.invocation is not None:
        _log_finished(finished.invocation, finished.failures)
        if work.telemetry is not None:
            work.telemetry.ended(finished.invocation)
    return finished


async def _hand_back(work: Work, done: Drained, dispatch_id: int | None, permit_id: str | None) -> None:
    error = done.stopped_by
    code = None
    if error is not None:
        code = "engine_rejected" if isinstance(error, EngineRejectedError) else "engine_unavailable"
    await work.invocations.hand_back(
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
        f"The {invocation['triggered_by']} run of {invocation['scheduled_for']} is {invocation['status']}",
        level=logging.WARNING if invocation["status"] == "skipped" else logging.INFO,
        **_logged(invocation),
    )


def _log_finished(invocation: dict[str, Any], causes: Sequence[dict[str, Any]]) -> None:
    failures = {cause["code"]: cause["count"] for cause in causes}
    duration = datetime.fromisoformat(invocation["finished_at"]) - datetime.fromisoformat(invocation["started_at"])
    log_event(
        "invocation_finished",
        f"The {invocation['triggered_by']} run of {invocation['scheduled_for']} {invocation['status']}",
        level=logging.INFO if invocation["status"] == "succeeded" else logging.WARNING,
        **_logged(invocation),
        duration_ms=round(duration.total_seconds() * 1000),
        counts=invocation["counts"],
        failures=failures,
        other_failures=invocation["counts"]["failed"] - sum(failures.values()),
    )


def _logged(invocation: dict[str, Any]) -> dict[str, Any]:
    """What each line about an invocation as such says of it."""
    same = {name: invocation[name] for name in ("triggered_by", "status", "lateness_seconds", "error")}
    return {"invocation_id": invocation["id"], "slot": invocation["scheduled_for"], **same}


def _log_ended(
    done: Drained,
    budget: TimeBudget,
    after: dict[str, dict[str, Any] | None],
    dispatch_id: int | None,
    *,
    more_open: bool,
) -> None:
    more_to_do = more_open or any(is_open(invocation) for invocation in after.values())
    log_event(
        "slice_ended",
        f"Slice ended after {budget.elapsed():.1f} s: {done.batches} batches, "
        + ("more to do" if more_to_do else "nothing left to do"),
        invocation_ids=list(after),
        dispatch_id=dispatch_id,
        batches=done.batches,
        counts=dict(done.outcomes),
        more_to_do=more_to_do,
        duration_ms=round(budget.elapsed() * 1000),
    )
