"""Every error and its answer: RFC 9457 `application/problem+json`.

The answer to a defect names a trace id, under which the log has the error's text.
"""

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Match

from functions.runs.run_log import log_database_error
from shared.errors import DatabaseError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError, RequestError
from shared.logs import current_trace, log_exception
from shared.sanitize import sanitize

# This project's words around one piece of a caller's text.
MAX_DETAIL_LENGTH = 400
MAX_FIELD_LENGTH = 200
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def header(name: str, description: str, *, required: bool = True) -> dict[str, Any]:
    """Returns a header of an answer, as the document describes it."""
    return {name: {"description": description, "required": required, "schema": {"type": "string"}}}


# The dead-man's check answers 503 without a Retry-After: when a run will have ended well is not known.
_HEADERS = {401: header("WWW-Authenticate", "`Bearer`."), 503: header("Retry-After", "Seconds.", required=False)}


def problem(
    status: int, code: str, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Returns an RFC 9457 answer; see `RequestError`. `detail` and `field`, which may hold a caller's text, are cut."""
    content: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    content |= {"code": code, "detail": sanitize(detail, limit=MAX_DETAIL_LENGTH)}
    if field is not None:
        content["field"] = sanitize(field, limit=MAX_FIELD_LENGTH)
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` of a route or a router that may answer with these errors."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "headers": _HEADERS.get(status, {}),
        }
        for status in statuses
    }


def to_response(error: Exception) -> JSONResponse:
    """Returns the answer to an error, and logs one that is not the caller's doing."""
    if isinstance(error, RequestError):
        return problem(error.status, error.code, error.detail, field=error.field, headers=error.headers)
    if not isinstance(error, DatabaseError):
        log_exception("internal_error", "A defect: this request failed", error)
        return problem(500, "internal_error", f"internal error; the log has it under trace id {current_trace().id}")
    log_database_error(error, str(error))
    if isinstance(error, DatabaseUnavailableError):
        detail = "the database does not answer; work under way continues when it does"
        if isinstance(error, DatabaseTimeoutError):
            detail = (
                f"the database answers, but did not finish a call in time ({error.code}: its statement or lock "
                "timeout); work under way continues by itself"
            )
        return problem(503, error.event, detail, headers={"Retry-After": "10"})
    if isinstance(error, MentorsViewError):
        return problem(500, error.event, str(error))
    code = getattr(error, "code", "unknown")
    if code == "invalid_api_key":
        return problem(500, "database_key_rejected", "the Data API refuses this function's SUPABASE_SECRET_KEY")
    detail = f"the Data API refused a call ({code}); the log has it under trace id {current_trace().id}"
    return problem(500, error.event, detail)


async def answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
    """Handles what Starlette and FastAPI raise themselves; raises again why the body could not be read to its end."""
    if isinstance(error.__cause__, RequestError | ClientDisconnect):
        raise error.__cause__  # FastAPI makes a 400 of whatever reading a body raises
    if error.status_code == 404:
        return problem(404, "not_found", f"there is nothing at {request.scope['path']}")
    if error.status_code == 405:
        # Of all routes at this path: Starlette's own `Allow` has the methods of one.
        routes, scopes = request.app.routes, {method: {**request.scope, "method": method} for method in _METHODS}
        served = {method for method, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in routes)}
        allowed = {"Allow": ", ".join(sorted(served | {"HEAD"} if "GET" in served else served))}
        return problem(405, "method_not_allowed", f"{request.method} is not served here", headers=allowed)
    return problem(400, "malformed_json", "expected a JSON object, found a body that cannot be read as JSON")


async def answer_validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answers what no model of `schemas.py` accepts: 422 `unknown_field` or `invalid_field`, or 400 for no JSON."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(400, "malformed_json", "expected a JSON object, found text that is not JSON")
    # The first part of the place is where it stands: body, header, query or path.
    field = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "extra_forbidden":
        return problem(422, "unknown_field", f"{field}: expected no such member", field=field)
    expected = first["msg"].removeprefix("Value error, ")
    return problem(422, "invalid_field", f"{field or 'body'}: {expected}", field=field or "body")
