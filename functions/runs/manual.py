"""Runs that somebody asks for: everybody or chosen mentors, dry or not, or what another run left unfinished."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from functions.http.schemas import RunRequest
from functions.runs.run_log import log_database_error
from functions.runs.slice import Services, log_opened, process_open_runs
from shared.deadline import Deadline
from shared.errors import DatabaseError, RequestError
from shared.queue_repository import Enumeration, OpenInvocation
from shared.run_repository import OpenedRun

REFUSALS = {
    "other_request": (422, "idempotency_key_reused", "Idempotency-Key", "this key was used for another request"),
    "deleted": (409, "invocation_deleted", "Idempotency-Key", "the invocation of this key was deleted"),
    "retry_source_unknown": (422, "invalid_field", "retry_of", "expected the id of an invocation, found none with it"),
    "retry_source_open": (409, "retry_source_open", "retry_of", "this invocation is still open; cancel it, or wait"),
    "retry_already_open": (409, "retry_already_open", "retry_of", "another retry of this invocation is still open"),
    "nothing_to_retry": (409, "nothing_to_retry", "retry_of", "this invocation left nothing unfinished"),
    "retry_window_closed": (
        409,
        "retry_window_closed",
        "retry_of",
        "the engine may have forgotten what it did for this invocation (ENGINE_KEY_TTL_HOURS), and would notify twice",
    ),
}


@dataclass(frozen=True, slots=True)
class ManualRun:
    """A run that was asked for. `created`: by this call, and not by an earlier one with the same key."""

    invocation: dict[str, Any]
    created: bool


async def start_run(
    services: Services, request: RunRequest, *, idempotency_key: str | None, respond_async: bool
) -> ManualRun:
    """Opens the run and, unless the answer shall come at once, works one slice on it.

    Args:
        services: configuration and clients.
        request: which run.
        idempotency_key: the caller's, if it sent one.
        respond_async: open it only; the database asks for a slice.

    Raises:
        RequestError: 422 or 409: see `REFUSALS`, or a scenario type that is not configured.
        DatabaseError: nothing was opened.
    """
    _check(request, services.config.enabled_types())
    deadline = Deadline(services.config.time_budget_seconds)
    asked = _canonical(request)
    opened = await services.runs.open(
        str(uuid.uuid4()),
        request={"user_ids": asked["user_ids"], "scenario_types": asked["scenario_types"]},
        request_hash=hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest(),
        idempotency_key=idempotency_key,
        dry_run=asked["dry_run"],
        retry_of=asked["retry_of"],
        note=asked["note"],
        request_slice=respond_async,
    )
    if opened.invocation is None:
        status, code, field, detail = REFUSALS[opened.outcome]
        raise RequestError(status, code, f"{field}: {detail}", field=field)
    if opened.outcome == "same":
        return ManualRun(opened.invocation, created=False)
    log_opened(opened.invocation)
    if respond_async:
        return ManualRun(opened.invocation, created=True)
    async with services.measuring("manual"):
        return ManualRun(await _work_on(services, opened, opened.invocation, asked, deadline), created=True)


def _check(request: RunRequest, enabled: tuple[str, ...]) -> None:
    if request.retry_of is not None and (request.user_ids is not None or request.scenario_types is not None):
        raise RequestError(
            422, "invalid_field", "retry_of: expected neither user_ids nor scenario_types beside it", field="retry_of"
        )
    check_types(request.scenario_types, enabled)


def check_types(scenario_types: list[str] | None, enabled: tuple[str, ...]) -> None:
    """Refuses scenario types that are not configured.

    Raises:
        RequestError: 422 `invalid_field`.
    """
    unknown = [name for name in scenario_types or () if name not in enabled]
    if unknown:
        raise RequestError(
            422,
            "invalid_field",
            f"scenario_types: expected some of {', '.join(enabled)}, found {', '.join(unknown[:5])}",
            field="scenario_types",
        )


def _canonical(request: RunRequest) -> dict[str, Any]:
    """The request in one spelling: what is the same run has the same digest."""
    return {
        "user_ids": sorted({str(user_id) for user_id in request.user_ids}) if request.user_ids else None,
        "scenario_types": sorted(set(request.scenario_types)) if request.scenario_types else None,
        "dry_run": request.dry_run,
        "retry_of": str(request.retry_of) if request.retry_of else None,
        "note": request.note,
    }


async def _work_on(
    services: Services, opened: OpenedRun, invocation: dict[str, Any], asked: dict[str, Any], deadline: Deadline
) -> dict[str, Any]:
    row = {"trigger": invocation["trigger"], "enumeration_cursor": None, "enumeration_done": False}
    enumeration = Enumeration.from_row(row | {"retry_of": asked["retry_of"], "request": asked})
    mine = OpenInvocation(invocation["id"], invocation["scheduled_for"], invocation["trigger"], enumeration)
    try:
        await process_open_runs(services, [mine], deadline=deadline, canary=opened.canary, manual_only=True)
        return await services.runs.get(invocation["id"]) or invocation
    except DatabaseError as error:
        # The run is there and goes on by itself: an error would make the caller open another.
        log_database_error(
            error,
            f"A manual run was opened and could not be worked on: {error}",
            invocation_id=invocation["id"],
        )
        return invocation
