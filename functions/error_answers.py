"""What is answered when a request fails, whichever route it was for: each error of ours as a problem.

A defect is answered without its words; the log holds them under the trace id that the answer names.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.responses import JSONResponse

from functions.problems import problem
from shared.errors import (
    DatabaseError,
    DatabaseRefusedError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    MentorsViewError,
    RequestError,
)
from shared.observability import log_event, log_exception, trace_id

RETRY_AFTER_SECONDS = 10


def answer_for(error: Exception) -> JSONResponse:
    """The answer, and a log line for what is not the caller's doing."""
    if isinstance(error, RequestError):
        return problem(error.status, error.code, error.detail, field=error.field, headers=error.headers)
    if isinstance(error, DatabaseError):
        return _answer_for_database(error)
    log_exception("internal_error", "A defect: this request was answered with 500", error)
    return problem(500, "internal_error", f"an error of ours; the log has it under trace id {trace_id()}")


def _answer_for_database(error: DatabaseError) -> JSONResponse:
    log_database_error(error, str(error))
    retry_after = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if isinstance(error, DatabaseTimeoutError):
        return problem(
            503,
            "database_timeout",
            f"the database answers, but did not finish a call in time ({error.code}: its statement or lock timeout); "
            "whatever was under way goes on by itself",
            headers=retry_after,
        )
    if isinstance(error, DatabaseUnavailableError):
        return problem(
            503,
            "database_unavailable",
            "the database does not answer; whatever was under way goes on when it does",
            headers=retry_after,
        )
    if isinstance(error, MentorsViewError):
        return problem(500, "mentors_view_invalid", str(error))
    code = _refusal_code(error)
    if code == "invalid_api_key":
        return problem(500, "database_key_rejected", "the Data API refuses this function's SUPABASE_SECRET_KEY")
    return problem(
        500, "database_refused", f"the Data API refused a call ({code}); the log has it under trace id {trace_id()}"
    )


def log_database_error(error: DatabaseError, message: str, **where: Any) -> None:
    """Logs a failed call to the database under the event that says what it was.

    Args:
        error: the failure.
        message: for a person.
        where: fields that say what was under way.
    """
    if isinstance(error, DatabaseTimeoutError):
        log_event("database_timeout", message, level=logging.ERROR, **where, error_code=error.code)
    elif isinstance(error, DatabaseUnavailableError):
        log_event("database_unavailable", message, level=logging.ERROR, **where)
    elif isinstance(error, MentorsViewError):
        log_event("mentors_view_invalid", message, level=logging.ERROR, **where)
    else:
        log_event("database_refused", message, level=logging.ERROR, **where, error_code=_refusal_code(error))


def _refusal_code(error: DatabaseError) -> str:
    return error.code if isinstance(error, DatabaseRefusedError) else "unknown"
