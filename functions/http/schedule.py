"""`/api/v1/schedule`: when runs are opened, and its pause and the engine's."""

from __future__ import annotations

from itertools import islice
from typing import Any

from fastapi import APIRouter

from functions.http import schemas
from functions.http.dependencies import TOKEN, Authenticated, Connected
from functions.http.problems import problems
from functions.runs.services import Services
from shared.errors import RequestError

NEXT_SLOTS = 5

router = APIRouter(
    prefix="/api/v1/schedule", tags=["schedule"], dependencies=[TOKEN], responses=problems(400, 401, 403, 500, 503)
)


@router.get("")
async def get_schedule(services: Connected, caller: Authenticated) -> schemas.ScheduleState:
    """Returns the schedule, the slots that will open, and what is paused."""
    return await _state(services, {}, caller.name)


@router.put("", responses=problems(413, 415, 422))
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


async def _state(services: Services, changes: dict[str, Any], actor: str) -> schemas.ScheduleState:
    found = await services.runs.pauses(changes, actor=actor)
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
