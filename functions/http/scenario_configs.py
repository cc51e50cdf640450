"""`/api/v1/scenario-configs`: how scenario types are configured, for all mentors and for those of organizations."""

from typing import Annotated

from fastapi import APIRouter, Query

from functions.http import schemas
from functions.http.dependencies import TOKEN, Authenticated, Connected
from functions.http.problems import problems
from functions.runs.services import Services
from shared.errors import RequestError
from shared.scenario_table import ScenarioConfig

router = APIRouter(
    prefix="/api/v1/scenario-configs",
    tags=["scenario-configs"],
    dependencies=[TOKEN],
    responses=problems(400, 401, 403, 500, 503),
)


@router.get("")
async def list_scenario_configs(services: Connected) -> schemas.ScenarioConfigs:
    """Lists what each scenario type's rows say, what holds, and when it is due next."""
    await services.table.reload(services.reader_database)
    return schemas.ScenarioConfigs(
        evaluation_schedule=services.config.evaluation_schedule,
        evaluation_timezone=services.config.evaluation_timezone,
        data=_entries(services),
    )


@router.put("/{scenario_type}", responses=problems(404, 409, 413, 415, 422))
async def configure_scenario(
    services: Connected,
    caller: Authenticated,
    scenario_type: str,
    query: Annotated[schemas.ConfigQuery, Query()],
    change: schemas.ScenarioChange,
) -> ScenarioConfig:
    """Changes what a row says; it holds for runs that are opened from now on."""
    if all(each.type != scenario_type for each in services.config.scenario_types):
        raise RequestError(404, "not_found", f"expected a type of SCENARIO_TYPES, found {scenario_type}")
    changes = change.model_dump(exclude_unset=True)
    if not changes:
        raise RequestError(422, "invalid_field", "expected enabled, segments or schedule, found none of them")
    is_changed = await services.table.configure(
        services.reader_database, scenario_type, query.organization, changes, updated_by=caller.name
    )
    if not is_changed:
        detail = "the table scenario_evaluation_config is full; delete rows that say nothing (docs/operations.md)"
        raise RequestError(409, "too_many_rows", detail)
    key = (scenario_type, query.organization)
    return next(each for each in _entries(services) if (each.scenario_type, each.organization) == key)


def _entries(services: Services) -> list[ScenarioConfig]:
    return services.table.entries(services.config.schedule, services.now())
