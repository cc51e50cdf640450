"""Manual runs: all active mentors or chosen ones, dry or not, or a retry of what another run left unfinished."""

from __future__ import annotations

import hashlib
import json
import uuid

from functions.runs.requests import BatchRequest, RunRequest
from functions.runs.run_log import log_database_error, log_opened
from functions.runs.services import Services
from functions.runs.slice import process_open_runs
from shared.deadline import Deadline
from shared.errors import DatabaseError, RequestError
from shared.invocation import Invocation
from shared.scenario_config import Scenarios

REFUSALS = {
    "other_request": (422, "idempotency_key_reused", "Idempotency-Key", "this key was used for another request"),
    "deleted": (409, "invocation_deleted", "Idempotency-Key", "the invocation of this key was deleted"),
    "retry_source_unknown": (422, "invalid_field", "retry_of", "expected the id of an invocation, found none with it"),
    "retry_source_open": (
        409,
        "retry_source_open",
        "retry_of",
        "this invocation is still open, or a worker may still record of it; cancel it, or wait",
    ),
    "retry_already_open": (
        409,
        "retry_already_open",
        "retry_of",
        "another retry of this invocation, or of a retry of it, is still open",
    ),
    "nothing_to_retry": (
        409,
        "nothing_to_retry",
        "retry_of",
        "this invocation and its retries have left nothing unfinished",
    ),
    "retry_window_closed": (
        409,
        "retry_window_closed",
        "retry_of",
        "the engine may have forgotten the keys of this invocation (ENGINE_KEY_TTL_HOURS), and would notify twice",
    ),
}


async def start_run(
    services: Services, request: RunRequest, triggered_by: str, *, idempotency_key: str | None, respond_async: bool
) -> tuple[Invocation, bool]:
    """Opens the run and works one slice on it, or with `respond_async` has the database request a slice.

    Returns:
        The run, and whether this call opened it: not an earlier one with the same key.

    Raises:
        RequestError: 422 or 409: see `REFUSALS`, a scenario type that is not configured, or a dry run that the engine
            does not support.
        DatabaseError: nothing was opened.
    """
    if request.retry_of is not None and (request.user_ids is not None or request.scenario_types is not None):
        detail = "retry_of: expected neither user_ids nor scenario_types beside it"
        raise RequestError(422, "invalid_field", detail, field="retry_of")
    if request.include_unknown and request.retry_of is None:
        detail = "include_unknown: expected only together with retry_of"
        raise RequestError(422, "invalid_field", detail, field="include_unknown")
    await _check_dry_run_of_retry(services, request)
    deadline = Deadline(services.config.time_budget_seconds)
    members = request.model_dump(mode="json")
    while True:
        # By the table that the process knows: it is only read where it has changed.
        refusal = refusal_of_types(services.table.scenarios, request)
        opened = await services.runs.open(
            str(uuid.uuid4()),
            request={name: members[name] for name in ("user_ids", "scenario_types", "include_unknown")},
            request_hash=hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest(),
            idempotency_key=idempotency_key,
            dry_run=request.dry_run,
            retry_of=members["retry_of"],
            note=request.note,
            reason=request.reason,
            triggered_by=triggered_by,
            requested_by=request.triggered_by,
            request_slice=respond_async,
            is_refused=refusal is not None,
        )
        if opened.outcome != "scenarios_changed":
            break
    if opened.outcome == "types_refused" and refusal is not None:
        raise refusal
    invocation = opened.invocation
    if invocation is None:
        status, code, field, detail = REFUSALS[opened.outcome]
        raise RequestError(status, code, f"{field}: {detail}", field=field)
    if opened.outcome == "same":
        return invocation, False
    log_opened(invocation)
    if respond_async or opened.work is None:
        return invocation, True
    run_id = str(invocation.id)
    async with services.measuring("manual"):
        try:
            await process_open_runs(
                services,
                [opened.work],
                deadline=deadline,
                canary=opened.canary,
                engine_answered_recently=opened.engine_answered_recently,
                manual_only=True,
            )
            return await services.runs.get(run_id) or invocation, True
        except DatabaseError as error:
            # The run exists and later slices continue it: an error would make the caller open another.
            log_database_error(error, f"Manual run opened, but its first slice failed: {error}", invocation_id=run_id)
            return invocation, True


def refusal_of_types(scenarios: Scenarios, request: RunRequest | BatchRequest) -> RequestError | None:
    """Returns the error for types that are not enabled: 422 `invalid_field`, or where none is 409.

    A retry may be of types that are off: it skips them.
    """
    enabled = scenarios.enabled_types()
    if isinstance(request, RunRequest) and request.retry_of is not None:
        return None
    if not enabled:
        return RequestError(409, "no_enabled_scenarios", "expected an enabled scenario type, found all switched off")
    if unknown := [name for name in request.scenario_types or () if name not in enabled]:
        detail = f"scenario_types: expected some of {', '.join(enabled)}, found {', '.join(unknown[:5])}"
        return RequestError(422, "invalid_field", detail, field="scenario_types")
    return None


def check_dry_run(services: Services, *, dry_run: bool) -> None:
    """Refuses a dry run that the engine does not support, and might act on: 422 `dry_run_not_supported`."""
    if dry_run and not services.engine.protocol.dry_run:
        detail = "dry_run: expected false: the engine supports no dry runs (ENGINE_SUPPORTS)"
        raise RequestError(422, "dry_run_not_supported", detail, field="dry_run")


async def _check_dry_run_of_retry(services: Services, request: RunRequest) -> None:
    """Refuses dry runs as `check_dry_run` does; a retry of a dry run is one."""
    check_dry_run(services, dry_run=request.dry_run)
    if request.retry_of is not None and not services.engine.protocol.dry_run:
        source = await services.runs.get(str(request.retry_of))
        check_dry_run(services, dry_run=source is not None and source.dry_run)
