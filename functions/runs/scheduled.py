"""The scheduled run: opens the slot that is due, and works one slice on all open runs.

The next step follows from the state in the database, never from the arrival of a call. So a slice may start at any
time, beside others, and may be killed anywhere: the next one reads the state and continues.
"""

from __future__ import annotations

from datetime import datetime

from functions.runs.alerting import send_due_alerts
from functions.runs.run_log import log_ended, log_opened
from functions.runs.services import Services
from functions.runs.slice import process_open_runs
from shared.deadline import Deadline
from shared.errors import DatabaseError, RequestError
from shared.invocation import InvocationSummary


async def run_slice(
    services: Services, requested_slot: datetime | None, triggered_by: str, *, named_in: str, dispatch_id: int | None
) -> tuple[InvocationSummary | None, bool]:
    """Opens the due slot unless it is open, then works on what is open, for one time budget.

    Args:
        requested_slot: the slot that the caller named, a whole UTC minute.
        triggered_by: kept with the run that this call opens.
        named_in: the member or header that names it, for the error.

    Returns:
        The slot's invocation, None where the slot has none and is not due; and whether something is still open.

    Raises:
        RequestError: 422 `not_a_slot`: the requested slot is neither due nor was ever opened.
        DatabaseError: see `process_open_runs`.
    """
    async with services.measuring("schedule"):
        deadline = Deadline(services.config.time_budget_seconds)
        slot = await services.slices.open_slot(services.now(), requested_slot, triggered_by)
        for ended in slot.ended:
            log_ended(ended.invocation, ended.failures, ended.ended_by)
        if slot.not_a_slot:
            detail = f"{named_in}: expected the slot that is due or one that was opened before, "
            detail += f"found {requested_slot:%Y-%m-%dT%H:%MZ}"
            raise RequestError(422, "not_a_slot", detail, field=named_in)
        invocation = slot.invocation
        if slot.opened and invocation is not None:
            log_opened(invocation)
            if services.telemetry is not None:
                services.telemetry.opened(invocation)
        failure: DatabaseError | None = None
        after: dict[str, InvocationSummary | None] = {}
        if slot.open:
            try:
                after = await process_open_runs(
                    services,
                    slot.open,
                    deadline=deadline,
                    canary=slot.canary,
                    engine_answered_recently=slot.engine_answered_recently,
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
        if invocation is not None:
            latest = after.get(str(invocation.id)) or invocation
            invocation = latest.model_copy(update={"deduplicated": not slot.opened})
        return invocation, slot.more_open or any(found.is_open for found in after.values() if found)
