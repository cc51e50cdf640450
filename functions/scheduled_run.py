"""One slice of work: open the due slot, enumerate, drain, finish or hand back.

What must happen follows from the state in the database, never from this call having arrived. So a slice may be started
by anybody at any time, beside others, and may be killed anywhere: the next one looks and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from functions.drain import Drain
from functions.enumeration import enumerate_mentors
from shared.config import ScenarioEvaluationConfig
from shared.database import Database
from shared.errors import EngineRejectedError, RequestError
from shared.invocations import Invocations, OpenedSlot
from shared.observability import log_event
from shared.side_by_side import side_by_side
from shared.time_budget import TimeBudget
from shared.trigger_engine import EvaluationContext, TriggerEngine

ENDED = frozenset({"succeeded", "partial", "failed", "cancelled", "skipped"})


@dataclass(frozen=True, slots=True)
class Slice:
    """What a slice leaves behind.

    Args:
        invocation: the slot's invocation as callers see it; None: the slot has none and is not due.
        deduplicated: the slot had been opened before this call.
        more_to_do: something is still open.
    """

    invocation: dict[str, Any] | None
    deduplicated: bool
    more_to_do: bool


@dataclass(frozen=True, slots=True)
class Work:
    """What a slice works with; built once for a process.

    Args:
        now: this machine's clock; the database's clock overrules it.
    """

    config: ScenarioEvaluationConfig
    database: Database
    invocations: Invocations
    engine: TriggerEngine
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


async def run_slice(work: Work, *, requested_slot: datetime | None = None, dispatch_id: int | None = None) -> Slice:
    """Opens the due slot if nobody has, then works on whatever is open, for one time budget.

    Args:
        work: configuration and clients.
        requested_slot: the slot that the caller named, a whole UTC minute.
        dispatch_id: the dispatch that this slice answers, if one.

    Raises:
        RequestError: 422 `not_a_slot`: the requested slot is neither due nor was ever opened.
        DatabaseError: the database is away or refuses; whatever was in hand becomes visible again.
    """
    budget = TimeBudget(work.config.time_budget_seconds)
    slot = await work.invocations.open_slot(work.now(), requested_slot)
    if slot.not_a_slot:
        raise RequestError(
            422,
            "not_a_slot",
            "expected scheduled_for to name the slot that is due or one that was opened before, "
            f"found {requested_slot:%Y-%m-%dT%H:%MZ}",
            field="scheduled_for",
        )
    _log_opened(slot)
    if not slot.open:
        return Slice(slot.invocation, deduplicated=not slot.opened, more_to_do=False)

    _suggest_witness(work.engine, slot)
    drain = Drain(invocations=work.invocations, engine=work.engine, config=work.config, budget=budget)
    steps: list[Awaitable[object]] = [_enumerate(work, slot, budget, drain)]
    if not slot.engine_paused:
        steps.append(drain.run())
    await side_by_side(steps)
    if drain.done.stopped_by is not None:
        await _hand_back(work, drain, dispatch_id=dispatch_id)
    after = {row.id: await _finish(work, row.id) for row in slot.open}
    more_to_do = any(invocation is not None and invocation["status"] not in ENDED for invocation in after.values())
    if drain.done.stopped_by is None:
        # Last of all: it asks for the next slice, which must not find this one's work still open.
        await _hand_back(work, drain, dispatch_id=dispatch_id)
    invocation = slot.invocation
    if invocation is not None:
        invocation = after.get(invocation["id"]) or invocation
    log_event(
        "slice_ended",
        f"Slice ended after {budget.elapsed():.1f} s: {drain.done.batches} batches, "
        + ("more to do" if more_to_do else "nothing left to do"),
        invocation_id=invocation["id"] if invocation else None,
        slot=invocation["scheduled_for"] if invocation else None,
        dispatch_id=dispatch_id,
        batches=drain.done.batches,
        counts=dict(drain.done.outcomes),
        more_to_do=more_to_do,
        duration_ms=round(budget.elapsed() * 1000),
    )
    return Slice(invocation, deduplicated=not slot.opened, more_to_do=more_to_do)


def _suggest_witness(engine: TriggerEngine, slot: OpenedSlot) -> None:
    """A process that has just started knows nobody whom the engine answers; the database may."""
    if slot.witness is not None:
        newest = slot.open[-1]
        context = EvaluationContext(newest.id, newest.scheduled_for, engine_scope=f"dry:{newest.id}", dry_run=True)
        engine.suggest_witness(context, slot.witness)


async def _enumerate(work: Work, slot: OpenedSlot, budget: TimeBudget, drain: Drain) -> None:
    try:
        for invocation in slot.open:
            if not invocation.enumeration_done and budget.remaining() > 0:
                await enumerate_mentors(
                    invocation,
                    database=work.database,
                    invocations=work.invocations,
                    config=work.config,
                    budget=budget,
                    on_queued=drain.note_queued,
                )
    finally:
        drain.note_all_queued()


async def _finish(work: Work, invocation_id: str) -> dict[str, Any] | None:
    finished = await work.invocations.finish(invocation_id)
    if finished.ended_now and finished.invocation is not None:
        _log_finished(finished.invocation)
    return finished.invocation


async def _hand_back(work: Work, drain: Drain, *, dispatch_id: int | None) -> None:
    error = drain.done.stopped_by
    code = None
    if error is not None:
        code = "engine_rejected" if isinstance(error, EngineRejectedError) else "engine_unavailable"
    await work.invocations.hand_back(
        dispatch_id=dispatch_id,
        progressed=drain.done.progressed,
        engine_answers=drain.done.batches > 0,
        engine_error=code,
        retry_after_seconds=error.retry_after if error else None,
    )


def _log_opened(slot: OpenedSlot) -> None:
    invocation = slot.invocation
    if slot.opened and invocation is not None:
        log_event(
            "invocation_opened",
            f"Slot {invocation['scheduled_for']} is {invocation['status']}",
            level=logging.WARNING if invocation["status"] == "skipped" else logging.INFO,
            invocation_id=invocation["id"],
            slot=invocation["scheduled_for"],
            status=invocation["status"],
            lateness_seconds=invocation["lateness_seconds"],
            error=invocation["error"],
        )


def _log_finished(invocation: dict[str, Any]) -> None:
    log_event(
        "invocation_finished",
        f"Slot {invocation['scheduled_for']} {invocation['status']}",
        level=logging.INFO if invocation["status"] == "succeeded" else logging.WARNING,
        invocation_id=invocation["id"],
        slot=invocation["scheduled_for"],
        status=invocation["status"],
        duration_ms=_milliseconds_between(invocation["started_at"], invocation["finished_at"]),
        lateness_seconds=invocation["lateness_seconds"],
        counts=invocation["counts"],
        failures={cause["code"]: cause["count"] for cause in invocation["failures"]},
        error=invocation["error"],
    )


def _milliseconds_between(start: str, end: str) -> int:
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000)
