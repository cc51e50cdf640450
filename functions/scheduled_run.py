"""The scheduled run: opens the slot that is due, and works one slice on whatever is open.

What must happen follows from the state in the database, never from this call having arrived. So a slice may be started
by anybody at any time, beside others, and may be killed anywhere: the next one looks and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from functions.alerting import send_due_alerts
from functions.work import Work, is_open, log_opened, work_off
from shared.errors import DatabaseError, RequestError
from shared.time_budget import TimeBudget


@dataclass(frozen=True, slots=True)
class Slice:
    """What a slice leaves behind.

    Args:
        invocation: the slot's invocation as a list shows it; None: the slot has none and is not due.
        deduplicated: the slot had been opened before this call.
        more_to_do: something is still open.
    """

    invocation: dict[str, Any] | None
    deduplicated: bool
    more_to_do: bool


async def run_slice(
    work: Work,
    *,
    requested_slot: datetime | None = None,
    named_in: str = "scheduled_for",
    dispatch_id: int | None = None,
) -> Slice:
    """Opens the due slot if nobody has, then works on whatever is open, for one time budget.

    Args:
        work: configuration and clients.
        requested_slot: the slot that the caller named, a whole UTC minute.
        named_in: the member or header that names it, for the error.
        dispatch_id: the dispatch that this slice answers, if one.

    Raises:
        RequestError: 422 `not_a_slot`: the requested slot is neither due nor was ever opened.
        DatabaseError: the database is away or refuses, or the mentors' view cannot be read; see `work_off`.
    """
    async with work.measuring("schedule"):
        return await _run_slice(work, requested_slot, named_in, dispatch_id)


async def _run_slice(work: Work, requested_slot: datetime | None, named_in: str, dispatch_id: int | None) -> Slice:
    budget = TimeBudget(work.config.time_budget_seconds)
    slot = await work.invocations.open_slot(work.now(), requested_slot)
    if slot.not_a_slot:
        raise RequestError(
            422,
            "not_a_slot",
            f"{named_in}: expected the slot that is due or one that was opened before, "
            f"found {requested_slot:%Y-%m-%dT%H:%MZ}",
            field=named_in,
        )
    if slot.opened and slot.invocation is not None:
        log_opened(slot.invocation)
        if work.telemetry is not None:
            work.telemetry.opened(slot.invocation)
    failure: DatabaseError | None = None
    after: dict[str, dict[str, Any] | None] = {}
    if slot.open:
        try:
            after = await work_off(
                work,
                slot.open,
                budget=budget,
                witness=slot.witness,
                more_open=slot.more_open,
                poison_overdue=slot.poison_overdue,
                dispatch_id=dispatch_id,
            )
        except DatabaseError as error:
            if error.is_outage:
                raise
            failure = error
    if work.webhook is not None and (slot.open or slot.alert_due):
        await send_due_alerts(work, work.webhook)
    if failure is not None:
        raise failure
    invocation = slot.invocation
    if invocation is not None:
        invocation = after.get(invocation["id"]) or invocation
    return Slice(
        invocation,
        deduplicated=not slot.opened,
        more_to_do=slot.more_open or any(is_open(invocation) for invocation in after.values()),
    )
