"""The application: its routes, and how their errors are answered.

Everything that goes wrong is answered as RFC 9457 `application/problem+json` with a stable `code`, and never with an
internal message; a defect of ours carries the trace id under which the log holds it. What a route raises itself, a
`RequestError`, is answered by the border.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from functions import invocation_routes, run_routes
from functions.border import Border
from functions.last_run import LastGoodRun
from functions.openapi import describe, methods_at, show_docs
from functions.problems import problem
from functions.work import Work
from shared.auth import TokenCheck
from shared.errors import DatabaseError, DatabaseRefusedError, DatabaseUnavailableError
from shared.failed_checks import FailedCheckLimit
from shared.observability import log_event, trace_id
from shared.version import VERSION

RETRY_AFTER_SECONDS = 10


def create_app(
    connect: Callable[[], Work],
    tokens: TokenCheck,
    *,
    failed_checks: FailedCheckLimit | None = None,
    trusted_proxy_count: int = 0,
) -> FastAPI:
    """Builds the application.

    Args:
        connect: answers what a slice works with; called for each request, so it should remember.
        tokens: who may call.
        failed_checks: see `Border`.
        trusted_proxy_count: see `Border`.
    """
    app = FastAPI(
        title="Scenario evaluation scheduler",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.add_middleware(Border, tokens=tokens, failed_checks=failed_checks, trusted_proxy_count=trusted_proxy_count)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(DatabaseError, _answer_database_error)
    app.state.connect = connect
    app.state.last_good_run = LastGoodRun()
    app.include_router(run_routes.router)
    app.include_router(invocation_routes.router)
    app.add_api_route("/docs", show_docs, include_in_schema=False)
    return app


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # Starlette hands over what was registered
    code, detail = {
        400: ("malformed_json", "expected a JSON object, found a body that cannot be read as JSON"),
        404: ("not_found", f"there is nothing at {request.scope['path']}"),
        405: ("method_not_allowed", f"{request.method} is not served here"),
    }.get(error.status_code, ("bad_request", "the request cannot be read"))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette knows the methods of the first route only.
        headers["Allow"] = ", ".join(methods_at(request.app, request.scope))
    return problem(error.status_code, code, detail, headers=headers)


async def _answer_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(400, "malformed_json", "expected a JSON object, found text that is not JSON")
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "header", "query", "path"))
    if first["type"] == "extra_forbidden":
        return problem(422, "unknown_field", f"{field}: expected no such member", field=field)
    expected = first["msg"].removeprefix("Value error, ")
    return problem(422, "invalid_field", f"{field or 'body'}: {expected}", field=field or "body")


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
