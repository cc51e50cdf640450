"""`POST /`: what pg_cron, Cloud Scheduler and curl call; and whether all is well."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response

from functions.contract import Health, Idle, Invocation, LastRun, Moment, StartRequest
from functions.last_run import default_max_age_hours
from functions.openapi import problems
from functions.scheduled_run import run_slice
from functions.wiring import CachedLastGoodRun, Connected
from shared.errors import RequestError
from shared.slots import to_slot
from shared.version import VERSION

MAX_MAX_AGE_HOURS = 24 * 366
SCHEDULE_TIME_HEADER = "X-CloudScheduler-ScheduleTime"
OPEN_TO_ALL: dict[str, Any] = {"security": []}

router = APIRouter()


@router.post(
    "/",
    responses={
        200: {"description": "Nothing is left to do"},
        202: {"model": Invocation | Idle, "description": "More is to be done; the next slice goes on"},
        **problems(422),
    },
)
async def handle_start(
    response: Response,
    work: Connected,
    body: Annotated[StartRequest | None, Body()] = None,
    schedule_time: Annotated[Moment | None, Header(alias=SCHEDULE_TIME_HEADER)] = None,
    dispatch_id: Annotated[int | None, Header(alias="X-Scheduler-Dispatch", ge=1, le=2**63 - 1)] = None,
) -> Invocation | Idle:
    """Opens the slot that is due if nobody has, then works on whatever is open. Answers the latest slot's run."""
    named_in, requested = "scheduled_for", body.scheduled_for if body else None
    if requested is None:
        named_in, requested = SCHEDULE_TIME_HEADER, schedule_time
    ended = await run_slice(
        work, requested_slot=to_slot(requested) if requested else None, named_in=named_in, dispatch_id=dispatch_id
    )
    response.status_code = 202 if ended.more_to_do else 200
    if ended.invocation is None:
        return Idle(status="idle")
    return Invocation.model_validate(ended.invocation | {"deduplicated": ended.deduplicated})


@router.get("/health", responses=problems(open_to_all=True), openapi_extra=OPEN_TO_ALL)
@router.head("/health", include_in_schema=False)  # uptime monitors like to ask so
async def health() -> Health:
    """It is up. Says nothing of the database, the engine or last night."""
    return Health(status="ok", version=VERSION)


@router.get("/health/last-run", responses=problems(422, open_to_all=True), openapi_extra=OPEN_TO_ALL)
@router.head("/health/last-run", include_in_schema=False)
async def last_run(
    work: Connected,
    last_good_run: CachedLastGoodRun,
    max_age_hours: Annotated[
        float | None,
        Query(
            gt=0,
            le=MAX_MAX_AGE_HOURS,
            description="By default the longest gap around the current slot and two hours: 26 for a nightly schedule.",
        ),
    ] = None,
) -> LastRun:
    """The dead-man's check, for a monitor outside: 503 unless a night ended well in that time.

    A scheduled run with mentors, not dry, that ended `succeeded` or `partial`. Remembered for half a minute.
    """
    good = await last_good_run.get(work.records.last_good_run)
    found = good.run
    hours = max_age_hours or default_max_age_hours(work.config.schedule, good.now)
    if found is None or good.now - datetime.fromisoformat(found["finished_at"]) > timedelta(hours=hours):
        last = f"the last one ended at {found['finished_at']}" if found else "found none at all"
        raise RequestError(
            503, "last_run_missing", f"expected a scheduled run that ended well in the last {hours:g} hours, {last}"
        )
    return LastRun(
        status="ok",
        max_age_hours=hours,
        scheduled_for=found["scheduled_for"],
        finished_at=found["finished_at"],
        run_status=found["status"],
    )
