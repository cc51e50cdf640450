"""The endpoints of `/api/v1/scheduler-invocations`: each parses the request, calls, and returns the answer."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Header, Query, Response
from starlette.convertors import StringConvertor, register_url_convertor

from functions.http import schemas
from functions.http.cursors import cursor_of, mentor_of_cursor, position_of_cursor
from functions.http.dependencies import TOKEN, Authenticated, Connected
from functions.http.problems import header, problems
from functions.runs.adhoc import evaluate_now
from functions.runs.manual import start_run
from functions.runs.peer_mentors import read_mentors_page
from functions.runs.requests import BatchRequest, RunRequest
from functions.runs.services import Services
from shared.errors import RequestError
from shared.invocation import Id, Invocation, InvocationDetail
from shared.run_repository import Position, RunPage
from shared.schedule import missed_slots

PREFIX = "/api/v1/scheduler-invocations"
# What can be done with an invocation that an answer describes.
_LINKS = {
    name: {"operationId": f"{name}_invocation", "parameters": {"invocation_id": "$response.body#/id"}}
    for name in ("get", "change", "delete")
}
_OPENED = {"links": _LINKS, "headers": header("Location", "Where the invocation is.")}
_APPLIED = _OPENED["headers"] | header("Preference-Applied", "`respond-async`.")
KeyHeader = Annotated[
    schemas.IdempotencyKey | None,
    Header(
        alias="Idempotency-Key",
        description="Chosen by the caller, in quotes or not: a request that comes again with its key is done once.",
    ),
]


class _NotAnEndpoint(StringConvertor):
    """Matches ids, and not the endpoints beside them: PUT of one of those is 405, not a bad id."""

    regex = "(?!(?:active-peer-mentors|evaluation-batch)$)[^/]+"


register_url_convertor("not_an_endpoint", _NotAnEndpoint())

router = APIRouter(
    prefix=PREFIX, tags=["invocations"], dependencies=[TOKEN], responses=problems(400, 401, 403, 500, 503)
)


@router.get("", response_model_exclude_unset=True, responses=problems(422))
async def list_invocations(services: Connected, query: Annotated[schemas.ListQuery, Query()]) -> schemas.InvocationPage:
    """Lists invocations, the newest first. Invocations opened meanwhile do not move a cursor."""
    offset = _offset(query)
    after = position_of_cursor(query.cursor) if query.cursor is not None else None
    listed = await services.runs.list(
        statuses=query.status or None,
        trigger=query.trigger or None,
        triggered_by=query.triggered_by or None,
        scheduled_from=query.scheduled_from,
        scheduled_to=query.scheduled_to,
        user_id=str(query.user_id) if query.user_id else None,
        limit=query.limit,
        offset=offset,
        after=after,
    )
    following = cursor_of(listed.next.invoked_at, listed.next.id) if listed.next else None
    number = None if query.cursor is not None or query.user_id is not None else query.page or 1
    place = schemas.ListPagination(limit=query.limit, page=number, total=listed.total, next_cursor=following)
    page = schemas.InvocationPage(data=listed.items, pagination=place)
    if query.slots:
        page.slots = await _slots(services, listed, after)
    return page


@router.post(
    "",
    status_code=201,
    responses={
        200: {"model": Invocation, "description": "The invocation that this key had opened before", "links": _LINKS},
        201: {"description": "Opened, and worked on for one slice"} | _OPENED,
        202: {"model": Invocation, "description": "Opened; `Prefer: respond-async`"} | _OPENED | {"headers": _APPLIED},
        **problems(409, 413, 415, 422),
    },
)
async def create_invocation(
    services: Connected,
    caller: Authenticated,
    response: Response,
    request: Annotated[RunRequest | None, Body()] = None,
    idempotency_key: KeyHeader = None,
    prefer: Annotated[
        str | None, Header(description="`respond-async`: answer as soon as it is opened (RFC 7240).")
    ] = None,
) -> Invocation:
    """Opens a run now: all active mentors or chosen ones, dry or not, or what another invocation left unfinished."""
    preferences = [preference.partition(";")[0].strip().lower() for preference in (prefer or "").split(",")]
    respond_async = "respond-async" in preferences
    invocation, is_new = await start_run(
        services, request or RunRequest(), caller.name, idempotency_key=idempotency_key, respond_async=respond_async
    )
    response.status_code = 200
    if is_new:
        response.status_code = 202 if respond_async else 201
        response.headers["Location"] = f"{PREFIX}/{invocation.id}"
        if respond_async:
            response.headers["Preference-Applied"] = "respond-async"
    return invocation.model_copy(update={"deduplicated": not is_new})


@router.get("/active-peer-mentors", responses=problems(422))
async def list_active_peer_mentors(
    services: Connected, query: Annotated[schemas.MentorsQuery, Query()]
) -> schemas.MentorPage:
    """Lists the mentors that would be evaluated now, and for which scenario types."""
    after = mentor_of_cursor(query.cursor) if query.cursor is not None else None
    await services.table.refresh(services.reader_database)
    page = await read_mentors_page(services.reader_database, after=after, limit=query.limit)
    return schemas.MentorPage(
        data=[
            schemas.Mentor(
                user_id=UUID(mentor.user_id),
                segments=sorted(mentor.segments),
                scenario_types=[] if mentor.skip_reason else list(services.table.scenarios.types_for(mentor.segments)),
                skip_reason=mentor.skip_reason,
            )
            for mentor in page.mentors
        ],
        pagination=schemas.Pagination(limit=query.limit, next_cursor=cursor_of(page.next) if page.next else None),
        user_id_missing=page.without_user_id,
    )


@router.post("/evaluation-batch", responses=problems(409, 413, 415, 422, 502, 504))
async def evaluate_batch(
    services: Connected, caller: Authenticated, request: BatchRequest, idempotency_key: KeyHeader = None
) -> schemas.BatchResults:
    """Evaluates chosen mentors now. Only the engine records it, under the key; a dry run needs no key."""
    results = await evaluate_now(services, request, caller.name, idempotency_key)
    return schemas.BatchResults.model_validate({"results": [result._asdict() for result in results]})


@router.get("/{invocation_id:not_an_endpoint}", responses=problems(404, 422))
async def get_invocation(services: Connected, invocation_id: Id) -> InvocationDetail:
    """Returns one invocation with everything that is known of it."""
    found = await services.runs.get(str(invocation_id))
    if found is None:
        raise unknown_invocation(invocation_id)
    return found


@router.put(
    "/{invocation_id:not_an_endpoint}",
    responses={200: {"links": _LINKS}, **problems(404, 409, 413, 415, 422)},
)
async def change_invocation(
    services: Connected, caller: Authenticated, invocation_id: Id, change: schemas.InvocationChange
) -> Invocation:
    """Ends an open invocation, sets its note, or both; members that are not given stay as they are."""
    status = change.status if "status" in change.model_fields_set else None
    if change.error_message is not None and status != "failed":
        detail = "error_message: expected only with status: failed; `note` takes any other remark"
        raise RequestError(422, "invalid_field", detail, field="error_message")
    answer = await services.runs.update(
        str(invocation_id),
        status=status,
        error_message=change.error_message,
        set_note="note" in change.model_fields_set,
        note=change.note,
        actor=caller.name,
    )
    if answer is None:
        raise unknown_invocation(invocation_id)
    outcome, invocation = answer
    if outcome == "ended_otherwise":
        ended = f"status: expected an invocation that is open, found one that {invocation.status}"
        raise RequestError(409, "already_ended", ended, field="status")
    return invocation


@router.delete("/{invocation_id:not_an_endpoint}", status_code=204, responses=problems(404, 409, 422))
async def delete_invocation(services: Connected, caller: Authenticated, invocation_id: Id) -> None:
    """Removes an invocation that has ended from the API. Its slot and its key stay used."""
    outcome = await services.runs.delete(str(invocation_id), actor=caller.name)
    if outcome is None:
        raise unknown_invocation(invocation_id)
    if outcome == "open":
        raise RequestError(409, "still_open", "expected an invocation that has ended; cancel this one first")


def _offset(query: schemas.ListQuery) -> int:
    """Returns how many invocations come before the page; raises RequestError (422 `invalid_field`)."""
    offset = ((query.page or 1) - 1) * query.limit
    expected = None
    if query.page is not None and (query.cursor is not None or query.user_id is not None):
        expected = "neither cursor nor user_id beside it"
    elif offset > schemas.MAX_OFFSET:
        expected = f"at most {schemas.MAX_OFFSET:,} invocations before it, found {offset:,}; follow next_cursor instead"
    if expected is not None:
        raise RequestError(422, "invalid_field", f"page: expected {expected}", field="page")
    return offset


async def _slots(services: Services, listed: RunPage, after: Position | None) -> schemas.Slots:
    """Returns the slots of the page's time span that have no run, and the next slot."""
    now = services.now()
    until = datetime.fromisoformat(after.invoked_at) if after else now
    shown = [item.scheduled_for for item in listed.items if item.trigger == "schedule"]
    used = await services.runs.used_slots(min(shown), until) if shown else ()
    current = (services.config.evaluation_schedule, services.config.evaluation_timezone)
    return schemas.Slots(
        missed=missed_slots(used, current=current, now=None if after else now),
        next=services.config.schedule.current_and_next(now)[1],
    )


def unknown_invocation(invocation_id: object) -> RequestError:
    """Returns the error for an id that no invocation has."""
    return RequestError(404, "not_found", f"there is no invocation {invocation_id}")
