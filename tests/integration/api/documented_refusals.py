"""What schemathesis would call a failure and is none: it loads this file as its hooks."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure

# Rules that a JSON schema cannot say, because they are about what exists, what is configured, or two fields together.
REFUSALS_OF_VALID_DATA = {
    ("not_a_slot", "scheduled_for"),
    ("not_a_slot", "X-CloudScheduler-ScheduleTime"),
    ("invalid_field", "cursor"),
    ("invalid_field", "error_message"),
    ("invalid_field", "include_unknown"),
    ("invalid_field", "organization"),
    ("invalid_field", "page"),
    ("invalid_field", "reason"),
    ("invalid_field", "retry_of"),
    ("invalid_field", "scenario_types"),
    ("invalid_field", "schedule"),
    ("invalid_field", "segments"),
    ("invalid_field", "until"),
    ("idempotency_key_missing", "Idempotency-Key"),
    ("idempotency_key_reused", "Idempotency-Key"),
}


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    kind = type(failure).__name__
    # functions-framework routes by a pattern whose dot is no line feed: such a path never reaches the function.
    if "%0A" in str(response.request.url) and (response.status_code, response.text) == (404, "Not Found"):
        return kind != "UndefinedContentType"
    if response.headers.get("content-type") != ["application/problem+json"]:
        return True
    problem = response.json()
    # A run ended well before: only requests about the last moments are answered 503.
    if problem["code"] in ("last_run_missing", "paused"):
        return kind not in ("ServerError", "RejectedPositiveData")
    return kind != "RejectedPositiveData" or (problem["code"], problem.get("field")) not in REFUSALS_OF_VALID_DATA
