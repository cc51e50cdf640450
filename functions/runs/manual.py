"""Manual runs: all active mentors or chosen ones, dry or not, or a retry of what another run left unfinished."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from functions.runs.requests import RunRequest
from functions.runs.run_log import log_database_error, log_opened
from functions.runs.services import Services
from functions.runs.slice import process_open_runs
from shared.deadline import Deadline
from shared.errors import DatabaseError, RequestError
from shared.invocation import Invocation
from shared.run_repository import OpenedRun
from shared.slice_repository import Enumeration, OpenInvocation

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
        "the engine may have forgotten the keys of this invocation (ENGINE_KEY_TTL_HOURS), and would notify twice",
    ),
}


@dataclass(frozen=True, slots=True)
class ManualRun:
    """A manual run. `created`: by this call, and not by an earlier one with the same key."""

    invocation: Invocation
    created: bool


async def start_run(
    services: Services, request: RunRequest, *, idempotency_key: str | None, respond_async: bool
) -> ManualRun:
    """Opens the run and, unless `respond_async` is set, works one slice on it.

    Args:
        services: configuration and clients.
        request: the run.
        idempotency_key: the caller's, if it sent one.
        respond_async: open it only; the database requests a slice.

    Raises:
        RequestError: 422 or 409: see `REFUSALS`, or a scenario type that is not configured.
        DatabaseError: nothing was opened.
    """
    _check(request, services.config.enabled_types())
    deadline = Deadline(services.config.time_budget_seconds)
    canonical = _canonical(request)
    opened = await services.runs.open(
        str(uuid.uuid4()),
        request={"user_ids": canonical["user_ids"], "scenario_types": canonical["scenario_types"]},
        request_hash=hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest(),
        idempotency_key=idempotency_key,
        dry_run=canonical["dry_run"],
        retry_of=canonical["retry_of"],
        note=canonical["note"],
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
        return ManualRun(await _work_on(services, opened, opened.invocation, canonical, deadline), created=True)


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
    """Returns the request in one spelling, so that equal requests have equal digests."""
    return {
        "user_ids": sorted({str(user_id) for user_id in request.user_ids}) if request.user_ids else None,
        "scenario_types": sorted(set(request.scenario_types)) if request.scenario_types else None,
        "dry_run": request.dry_run,
        "retry_of": str(request.retry_of) if request.retry_of else None,
        "note": request.note,
    }


async def _work_on(
    services: Services, opened: OpenedRun, invocation: Invocation, canonical: dict[str, Any], deadline: Deadline
) -> Invocation:
    row = {"trigger": invocation.trigger, "enumeration_cursor": None, "enumeration_done": False}
    enumeration = Enumeration.from_row(row | {"retry_of": canonical["retry_of"], "request": canonical})
    invocation_id = str(invocation.id)
    mine = OpenInvocation(invocation_id, invocation.scheduled_for.isoformat(), invocation.trigger, enumeration)
    try:
        await process_open_runs(services, [mine], deadline=deadline, canary=opened.canary, manual_only=True)
        return await services.runs.get(invocation_id) or invocation
    except DatabaseError as error:
        # The run exists and later slices continue it: an error would make the caller open another.
        log_database_error(
            error,
            f"Manual run opened, but its first slice failed: {error}",
            invocation_id=invocation_id,
        )
        return invocation
