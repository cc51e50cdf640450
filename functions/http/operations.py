"""What an operator does beside runs: the schedule's pause and the engine's, who changed what, and a test alert."""

from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query

from functions.http import schemas
from functions.http.cursors import cursor_of, position_of_cursor
from functions.http.dependencies import TOKEN, Authenticated, Connected
from functions.http.problems import problems
from functions.runs import alerting
from functions.runs.services import Services
from shared.audit import read_audit
from shared.errors import RequestError
from shared.pauses import pauses_after

NEXT_SLOTS = 5

router = APIRouter(
    prefix="/api/v1", tags=["operation"], dependencies=[TOKEN], responses=problems(400, 401, 403, 500, 503)
)


@router.get("/schedule")
async def get_schedule(services: Connected, caller: Authenticated) -> schemas.ScheduleState:
    """Returns the schedule, the slots that will open, and what is paused."""
    return await _state(services, {}, caller.name)


@router.put("/schedule", responses=problems(413, 415, 422))
async def change_schedule(
    services: Connected, caller: Authenticated, change: schemas.ScheduleChange
) -> schemas.ScheduleState:
    """Pauses or resumes the schedule, or ends the engine's pause. An open run goes on, and manual runs are opened."""
    changes = change.model_dump(mode="json", exclude_unset=True)
    if not changes:
        raise RequestError(422, "invalid_field", "expected paused or retry_engine, found none of them")
    for field in ("until", "reason"):
        if field in changes and not change.paused:
            raise RequestError(422, "invalid_field", f"{field}: expected only beside paused: true", field=field)
    return await _state(services, changes, caller.name)


@router.get("/scheduler-audit", responses=problems(422))
async def list_audit(services: Connected, query: Annotated[schemas.AuditQuery, Query()]) -> schemas.AuditPage:
    """Lists what people and clients changed, the newest first. Entries written meanwhile do not move a cursor."""
    entries = await read_audit(
        services.reader_database,
        invocation_id=str(query.invocation_id) if query.invocation_id else None,
        actor=query.actor,
        action=query.action,
        limit=query.limit + 1,  # to learn whether another page follows
        after=position_of_cursor(query.cursor) if query.cursor is not None else None,
    )
    page = list(entries[: query.limit])
    following = cursor_of(page[-1].at.isoformat(), str(page[-1].id)) if len(entries) > len(page) else None
    return schemas.AuditPage(data=page, pagination=schemas.Pagination(limit=query.limit, next_cursor=following))


@router.post("/test-alert", responses=problems(409, 502))
async def send_test_alert(services: Connected, caller: Authenticated) -> schemas.Delivery:
    """Sends one message to the webhook of alerts now."""
    await alerting.send_test_alert(services, triggered_by=caller.name)
    return schemas.Delivery(delivered=True)


async def _state(services: Services, changes: dict[str, Any], actor: str) -> schemas.ScheduleState:
    found = await pauses_after(services.reader_database, changes, actor=actor)
    if found is None:
        detail = f"until: expected a time within the next ten years, found {changes['until']}"
        raise RequestError(422, "invalid_field", detail, field="until")
    config, pause = services.config, found.pause
    first = found.clock if pause is None else pause.until
    return schemas.ScheduleState(
        evaluation_schedule=config.evaluation_schedule,
        evaluation_timezone=config.evaluation_timezone,
        next_slots=[] if first is None else list(islice(config.schedule.starting_at(first), NEXT_SLOTS)),
        pause=pause,
        engine_pause=found.engine_pause,
    )
