"""What `/openapi.json` says of the routes in `run_routes.py`.

They are answered without FastAPI; here are their parameters, bodies and answers for its description of all routes. What
is validated and what is described are the same types of `contract.py`. Nothing here is ever called.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query

from functions.contract import DispatchId, Health, Idle, InvocationSummary, LastRun, MaxAgeHours, Moment, StartRequest
from functions.openapi import problems
from functions.run_routes import DISPATCH_HEADER, SCHEDULE_TIME_HEADER

OPEN_TO_ALL: dict[str, Any] = {"security": []}

operations = APIRouter(generate_unique_id_function=lambda route: route.name)


@operations.post(
    "/",
    response_model=InvocationSummary | Idle,
    responses={
        200: {"description": "Nothing is left to do"},
        202: {"model": InvocationSummary | Idle, "description": "More is to be done; the next slice goes on"},
        **problems(422),
    },
)
def handle_start(
    body: Annotated[StartRequest | None, Body()] = None,
    schedule_time: Annotated[Moment | None, Header(alias=SCHEDULE_TIME_HEADER)] = None,
    dispatch_id: Annotated[DispatchId | None, Header(alias=DISPATCH_HEADER)] = None,
) -> None:
    """Opens the slot that is due if nobody has, then works on whatever is open. Answers the latest slot's run."""


@operations.get("/health", response_model=Health, responses=problems(open_to_all=True), openapi_extra=OPEN_TO_ALL)
def health() -> None:
    """It is up. Says nothing of the database, the engine or last night."""


@operations.get(
    "/health/last-run", response_model=LastRun, responses=problems(422, open_to_all=True), openapi_extra=OPEN_TO_ALL
)
def last_run(
    max_age_hours: Annotated[
        MaxAgeHours | None,
        Query(
            description="By default the longest gap around the current slot and two hours: 26 for a nightly schedule."
        ),
    ] = None,
) -> None:
    """The dead-man's check, for a monitor outside: 503 unless a night ended well in that time.

    A scheduled run with mentors, not dry, that ended `succeeded` or `partial`. Remembered for half a minute.
    """
