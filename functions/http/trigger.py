"""`POST /`, called by pg_cron, Cloud Scheduler and curl; `/health` and `/health/last-run` for monitors."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response

from functions.http import schemas
from functions.http.dependencies import TOKEN, Authenticated, Connected, Recognized
from functions.http.problems import problems
from functions.runs.freshness import default_max_age_hours
from functions.runs.scheduled import run_slice
from shared.auth import Role
from shared.errors import RequestError
from shared.invocation import Moment
from shared.schedule import to_slot
from shared.version import VERSION

SCHEDULE_TIME_HEADER = "X-CloudScheduler-ScheduleTime"

router = APIRouter(responses=problems(400, 500, 503))


@router.post(
    "/",
    dependencies=[TOKEN],
    responses={
        200: {"description": "Nothing is left to do"},
        202: {
            "model": schemas.RunSummary | schemas.Idle,
            "description": "More is to be done; the next slice continues",
        },
        **problems(401, 403, 413, 415, 422),
    },
)
async def handle_start(
    services: Connected,
    caller: Authenticated,
    response: Response,
    body: Annotated[schemas.StartRequest | None, Body()] = None,
    schedule_time: Annotated[Moment | None, Header(alias=SCHEDULE_TIME_HEADER)] = None,
    dispatch_id: Annotated[int | None, Header(alias="X-Scheduler-Dispatch", ge=1, le=2**63 - 1)] = None,
) -> schemas.RunSummary | schemas.Idle:
    """Opens the due slot unless it is open, then works one slice on what is open. Returns the latest slot's run."""
    named_in, requested = "scheduled_for", body.scheduled_for if body else None
    if requested is None:
        named_in, requested = SCHEDULE_TIME_HEADER, schedule_time
    slot = to_slot(requested) if requested else None
    triggered_by = caller.name
    if caller.role is Role.INVOKE:
        # Both clocks have an invoke token; these headers, which any caller may send, only say which of them it is.
        triggered_by = "pg_cron" if dispatch_id is not None else "cloud_scheduler" if schedule_time else caller.name
    invocation, more_to_do = await run_slice(services, slot, triggered_by, named_in=named_in, dispatch_id=dispatch_id)
    if more_to_do:
        response.status_code = 202
    if invocation is None:
        return schemas.Idle(status="idle")
    return schemas.RunSummary.of(invocation, services.now())


@router.get("/health", response_model_exclude_unset=True)
async def health(request: Request, caller: Recognized) -> schemas.Health:
    """Returns 200 while the function is up; checks neither database nor engine. A token is optional."""
    known = asdict(request.app.state.fingerprint) if caller else {}
    return schemas.Health(status="ok", version=VERSION, **known)


@router.get("/health/last-run", responses=problems(422))
async def last_run(
    services: Connected,
    max_age_hours: Annotated[
        schemas.MaxAgeHours | None,
        Query(description="By default the longest gap around the current slot and two hours: 26 for a daily schedule."),
    ] = None,
) -> schemas.LastRun:
    """Returns 503 unless a scheduled run ended well in that time: a dead-man's check for an external monitor.

    Such a run is not dry, and ended `success` or `partial`. A pause is no excuse, but has a code of its own, `paused`.
    The answer is cached for half a minute.
    """
    last_success = await services.last_success.get(services.runs.last_success)
    found, now = last_success.run, last_success.now
    hours = max_age_hours or default_max_age_hours(services.config.schedule, now)
    if found is None or now - found.finished_at > timedelta(hours=hours):
        last = f"the last one ended at {found.finished_at.isoformat()}" if found else "found none at all"
        detail = f"expected a scheduled run that ended well in the last {hours:g} hours, {last}"
        if last_success.paused_at is not None:
            raise RequestError(503, "paused", f"{detail}; paused since {last_success.paused_at.isoformat()}")
        raise RequestError(503, "last_run_missing", detail)
    return schemas.LastRun(
        status="ok",
        max_age_hours=hours,
        scheduled_for=found.scheduled_for,
        finished_at=found.finished_at,
        run_status=found.status,
    )
