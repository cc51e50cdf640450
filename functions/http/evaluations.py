"""`GET …/:id/evaluations`: the stored results of a run, a page at a time as JSON or all of them as CSV."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from functions.http import schemas
from functions.http.cursors import cursor_of, pair_of_cursor
from functions.http.dependencies import TOKEN, Connected
from functions.http.invocations import PREFIX, unknown_invocation
from functions.http.problems import problems
from shared.errors import RequestError
from shared.invocation import Id
from shared.run_repository import EvaluationsPage, Pair

JSON, CSV = "application/json", "text/csv"
# Results of one Data API call.
CSV_PAGE = 10_000
COLUMNS = ("user_id", "scenario_type", "outcome", "attempts", "error_code", "error_message", "notification_id")
# Who opens the file in a spreadsheet has to know that it is not about every pair.
HEADINGS = tuple("outcome (not_triggered and not_evaluated are left out)" if c == "outcome" else c for c in COLUMNS)
# Spreadsheets take a cell that begins with one of these for a formula (OWASP, "CSV Injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

router = APIRouter(
    prefix=PREFIX, tags=["invocations"], dependencies=[TOKEN], responses=problems(400, 401, 403, 500, 503)
)


class _Read(Protocol):
    async def __call__(self, limit: int, after: Pair | None) -> EvaluationsPage: ...


@router.get(
    "/{invocation_id}/evaluations",
    response_model=schemas.EvaluationPage,
    responses={
        200: {
            "description": "A page; with `Accept: text/csv` all results of a run that has ended.",
            "content": {CSV: {"schema": {"type": "string"}}},
        },
        **problems(404, 406, 409, 422),
    },
)
async def list_evaluations(
    services: Connected,
    invocation_id: Id,
    query: Annotated[schemas.EvaluationsQuery, Query()],
    # Not in the document: there it is said by the media types of the answer (OpenAPI, "Parameter Object").
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> schemas.EvaluationPage | Response:
    """Lists the results that are stored: all but `not_triggered` and `not_evaluated`, which are only counted."""
    kind = parse_accept_header(accept, MIMEAccept).best_match([JSON, CSV])
    if kind is None:
        raise RequestError(406, "not_acceptable", f"Accept: expected {JSON} or {CSV}", field="Accept")

    async def read(limit: int, after: Pair | None) -> EvaluationsPage:
        page = await services.runs.evaluations(
            str(invocation_id),
            outcomes=query.outcome or None,
            code=query.code,
            scenario_type=query.scenario_type,
            limit=limit,
            after=after,
        )
        if page is None:
            raise unknown_invocation(invocation_id)
        return page

    if kind == CSV:
        return await _stream(read, invocation_id, query)
    limit = query.limit or 100
    page = await read(limit, pair_of_cursor(query.cursor) if query.cursor is not None else None)
    following = cursor_of(str(page.next.user_id), page.next.scenario_type) if page.next else None
    return schemas.EvaluationPage(
        data=[schemas.PairResult.model_validate(item) for item in page.items],
        pagination=schemas.Pagination(limit=limit, next_cursor=following),
    )


async def _stream(read: _Read, invocation_id: Id, query: schemas.EvaluationsQuery) -> StreamingResponse:
    """Begins the answer with its first page read, so that most errors have a status of their own."""
    for name in ("limit", "cursor"):
        if getattr(query, name) is not None:
            raise RequestError(422, "invalid_field", f"{name}: expected only with pages of JSON", field=name)
    first = await read(CSV_PAGE, None)
    if first.is_open:
        detail = "expected an invocation that has ended: its results are still coming; read pages of JSON meanwhile"
        raise RequestError(409, "still_open", detail)

    async def lines(page: EvaluationsPage) -> AsyncIterator[str]:
        yield _lines([HEADINGS])
        while True:
            yield _lines(_cells(item) for item in page.items)
            if page.next is None:
                return
            # A failure breaks the connection: the answer has begun, and must not look whole.
            page = await read(CSV_PAGE, page.next)

    name = f'attachment; filename="evaluations-{invocation_id}.csv"'
    return StreamingResponse(lines(first), media_type=f"{CSV}; charset=utf-8", headers={"Content-Disposition": name})


def _cells(item: Mapping[str, Any]) -> list[str]:
    cells = ("" if item[column] is None else str(item[column]) for column in COLUMNS)
    return [f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell for cell in cells]


def _lines(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
