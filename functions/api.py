"""The routes and their errors.

Everything that goes wrong is answered as RFC 9457 `application/problem+json` with a stable `code`, and never with an
internal message; a defect of ours carries the trace id under which the log holds it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict
from starlette.exceptions import HTTPException

from functions.border import Border, problem
from functions.scheduled_run import Work, run_slice
from shared.auth import TokenCheck
from shared.errors import DatabaseError, DatabaseRefusedError, DatabaseUnavailableError, RequestError
from shared.observability import log_event, trace_id
from shared.slots import to_slot
from shared.version import VERSION

RETRY_AFTER_SECONDS = 10
SCHEDULE_TIME_HEADER = "X-CloudScheduler-ScheduleTime"


def _require_text(value: object) -> object:
    """pydantic would take a number for seconds since 1970."""
    if not isinstance(value, str):
        raise ValueError("expected an RFC 3339 time with an offset")  # noqa: TRY004  # pydantic reports ValueError
    return value


class StartRequest(BaseModel):
    """The body of `POST /`; an empty one asks for whatever is due."""

    model_config = ConfigDict(extra="forbid")

    scheduled_for: Annotated[AwareDatetime, BeforeValidator(_require_text)] | None = None


def create_app(connect: Callable[[], Awaitable[Work]], tokens: TokenCheck) -> FastAPI:
    """Builds the application.

    Args:
        connect: answers what a slice works with; called for each request, so it should remember.
        tokens: who may call.
    """
    app = FastAPI(
        title="Scenario evaluation scheduler",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Border, tokens=tokens)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(RequestError, _answer_request_error)
    app.add_exception_handler(DatabaseError, _answer_database_error)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": VERSION}

    @app.post("/")
    async def handle_start(
        body: Annotated[StartRequest | None, Body()] = None,
        x_cloudscheduler_scheduletime: Annotated[str | None, Header()] = None,
        x_scheduler_dispatch: Annotated[int | None, Header(ge=1, le=2**63 - 1)] = None,
    ) -> JSONResponse:
        requested_slot = None
        if body and body.scheduled_for:
            requested_slot = _slot_of(body.scheduled_for, "scheduled_for")
        elif x_cloudscheduler_scheduletime:
            requested_slot = _slot_of(_parse_time(x_cloudscheduler_scheduletime), SCHEDULE_TIME_HEADER)
        ended = await run_slice(await connect(), requested_slot=requested_slot, dispatch_id=x_scheduler_dispatch)
        if ended.invocation is None:
            content: dict[str, Any] = {"status": "idle"}
        else:
            content = ended.invocation | {"deduplicated": ended.deduplicated}
        return JSONResponse(content, HTTPStatus.ACCEPTED if ended.more_to_do else HTTPStatus.OK)

    return app


def _parse_time(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _invalid(SCHEDULE_TIME_HEADER, "expected an RFC 3339 time with an offset")
    return moment


def _slot_of(moment: datetime, field: str) -> datetime:
    try:
        return to_slot(moment)
    except OverflowError as error:
        raise _invalid(field, "expected a time between the years 1 and 9999 in UTC") from error


def _invalid(field: str, expected: str) -> RequestError:
    return RequestError(422, "invalid_field", f"{field}: {expected}", field=field)


async def _answer_request_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)  # noqa: S101  # Starlette hands over what was registered
    return problem(error.status, error.code, error.detail, field=error.field, headers=error.headers)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    code, detail = {
        404: ("not_found", f"there is nothing at {request.url.path}"),
        405: ("method_not_allowed", f"{request.method} is not served here"),
    }.get(error.status_code, ("bad_request", "the request cannot be read"))
    return problem(error.status_code, code, detail, headers=dict(error.headers or {}))


async def _answer_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(400, "malformed_json", "expected a JSON object, found text that is not JSON")
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "header", "query", "path"))
    if first["type"] == "extra_forbidden":
        return problem(422, "unknown_field", f"{field}: expected no such member", field=field)
    return problem(422, "invalid_field", f"{field or 'body'}: {first['msg']}", field=field or "body")


async def _answer_database_error(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, DatabaseUnavailableError):
        log_event("database_unavailable", str(error), level=logging.ERROR)
        return problem(
            503,
            "database_unavailable",
            "the database does not answer; whatever was under way goes on when it does",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    code = error.code if isinstance(error, DatabaseRefusedError) else "unknown"
    log_event("database_refused", str(error), level=logging.ERROR, error_code=code)
    if code == "invalid_api_key":
        return problem(500, "database_key_rejected", "the Data API refuses this function's SUPABASE_SECRET_KEY")
    return problem(
        500, "database_refused", f"the Data API refused a call ({code}); the log has it under trace id {trace_id()}"
    )
