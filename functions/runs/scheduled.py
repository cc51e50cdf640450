"""The scheduled run: opens the slot that is due, and works one slice on whatever is open.

What must happen follows from the state in the database, never from this call having arrived. So a slice may be started
by anybody at any time, beside others, and may be killed anywhere: the next one looks and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from functions.runs.alerting import send_due_alerts
from functions.runs.slice import Services, is_open, log_opened, process_open_runs
from shared.deadline import Deadline
from shared.errors import DatabaseError, RequestError


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
    services: Services,
    *,
    requested_slot: datetime | None = None,
    named_in: str = "scheduled_for",
    dispatch_id: int | None = None,
) -> Slice:
    """Opens the due slot if nobody has, then works on whatever is open, for one time budget.

    Args:
        services: configuration and clients.
        requested_slot: the slot that the caller named, a whole UTC minute.
        named_in: the member or header that names it, for the error.
        dispatch_id: the dispatch that this slice answers, if one.

    Raises:
        RequestError: 422 `not_a_slot`: the requested slot is neither due nor was ever opened.
        DatabaseError: the database is away or refuses, or the mentors' view cannot be read; see `process_open_runs`.
    """
    async with services.measuring("schedule"):
        return await _run_slice(services, requested_slot, named_in, dispatch_id)


async def _run_slice(
    services: Services, requested_slot: datetime | None, named_in: str, dispatch_id: int | None
) -> Slice:
    deadline = Deadline(services.config.time_budget_seconds)
    slot = await services.queue.open_slot(services.now(), requested_slot)
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
        if services.telemetry is not None:
            services.telemetry.opened(slot.invocation)
    failure: DatabaseError | None = None
    after: dict[str, dict[str, Any] | None] = {}
    if slot.open:
        try:
            after = await process_open_runs(
                services,
                slot.open,
                deadline=deadline,
                canary=slot.canary,
                more_open=slot.more_open,
                poison_overdue=slot.poison_overdue,
                dispatch_id=dispatch_id,
            )
        except DatabaseError as error:
            if error.is_outage:
                raise
            failure = error
    if services.webhook is not None and (slot.open or slot.alert_due):
        await send_due_alerts(services, services.webhook)
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
