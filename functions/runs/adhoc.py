"""Evaluates one batch now and returns its results: `run_evaluation_batch` without an invocation.

Nothing is recorded in the database. The engine keeps what it triggered under the caller's key, so repeating the call
causes no second notification.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC

from functions.runs.evaluation_batch import run_evaluation_batch
from functions.runs.manual import check_dry_run, refusal_of_types
from functions.runs.peer_mentors import ActivePeerMentor, fetch_active_among
from functions.runs.requests import BatchRequest
from functions.runs.result_ledger import BatchResult
from functions.runs.run_log import log_failed_users
from functions.runs.services import Services
from shared.deadline import Deadline
from shared.errors import (
    DatabaseError,
    DeadlineExceededError,
    EngineAccessError,
    EngineError,
    EngineUnavailableError,
    RequestError,
)
from shared.evaluations import (
    MENTOR_NOT_ACTIVE,
    SCENARIO_NOT_APPLICABLE,
    EvaluationBatch,
    EvaluationResult,
    MentorScenarios,
)
from shared.logs import log_event
from shared.scenario_config import Scenarios

RETRY_AFTER_SECONDS = 30
# Of the time budget, waiting for a permit to call the engine; the calls take what remains.
MAX_WAIT_FRACTION = 0.5
PERMIT_PAUSE_SECONDS = 1.0


async def evaluate_now(
    services: Services, request: BatchRequest, triggered_by: str, key: str | None
) -> list[EvaluationResult]:
    """Evaluates chosen mentors under an idempotency key; returns one result for each pair.

    Pairs are skipped for mentors that are not active or whose segments cannot be used, and for types that the caller
    named and that do not apply.

    Raises:
        RequestError: 422: too many mentors, an unknown type, no key; 502 `engine_rejected`; 503 `engine_unavailable`,
            `engine_busy`; 504 `time_budget_exceeded`.
    """
    config = services.config
    user_ids = [str(user_id) for user_id in request.user_ids]
    if len(user_ids) > config.evaluation_batch_size:
        expected = f"expected at most {config.evaluation_batch_size} mentors, found {len(user_ids)}"
        raise RequestError(422, "invalid_field", f"user_ids: {expected}", field="user_ids")
    if key is None and not request.dry_run:
        expected = "expected a key, so that a repeated request notifies no user twice; a dry run needs none"
        raise RequestError(422, "idempotency_key_missing", f"Idempotency-Key: {expected}", field="Idempotency-Key")
    await services.table.refresh(services.reader_database)
    if refusal := refusal_of_types(services.table.scenarios, request):
        raise refusal
    check_dry_run(services, dry_run=request.dry_run)

    deadline = Deadline(config.time_budget_seconds)
    active = await fetch_active_among(services.reader_database, user_ids)
    users = tuple(_plan(services.table.scenarios, user_ids, active, request.scenario_types))
    detail = f"not finished after {config.time_budget_seconds} s; send this again with the same key, or fewer mentors"
    too_late = RequestError(504, "time_budget_exceeded", detail)
    try:
        async with services.measuring("batch"), _permit_to_call(services, deadline), services.gate.shared(deadline):
            evaluated = await run_evaluation_batch(
                _batch(services, users, None if request.dry_run else key),
                engine=services.engine,
                config=config,
                deadline=deadline,
            )
    except EngineAccessError as error:
        raise RequestError(502, "engine_rejected", f"the engine refuses access ({error.code})") from error
    except EngineUnavailableError as error:
        detail = f"the engine is unavailable ({error.code}); no user failed, send this again with the same key"
        wait = {"Retry-After": str(math.ceil(error.retry_after or RETRY_AFTER_SECONDS))}
        raise RequestError(503, "engine_unavailable", detail, headers=wait) from error
    except DeadlineExceededError as error:
        raise too_late from error
    if evaluated.remaining and services.engine.may_repeat(dry_run=request.dry_run):
        raise too_late
    results = evaluated.results + list(_unsent(evaluated, users))
    log_event(
        "batch_evaluated",
        f"Evaluation batch: {len(results)} evaluations",
        triggered_by=triggered_by,
        dry_run=request.dry_run,
        counts=dict(Counter(result.outcome for result in results)),
        duration_ms=round(deadline.elapsed() * 1000),
    )
    log_failed_users(results)
    return results


def _unsent(evaluated: BatchResult, users: tuple[MentorScenarios, ...]) -> Iterator[EvaluationResult]:
    """Yields results of the remaining users, as failed: to send the request again would repeat the others' calls."""
    stop = evaluated.fatal_error or EngineError("time_budget_exceeded", "the time budget ended before the call")
    for user_id, scenario_types, skip_reason, _ in users:
        if user_id in evaluated.remaining:
            for pair in ((user_id, scenario_type) for scenario_type in scenario_types):
                if skip_reason is None:
                    yield EvaluationResult(*pair, "failed", 0, stop.code, stop.message)
                else:
                    yield EvaluationResult(*pair, "skipped", 0, skip_reason)


@asynccontextmanager
async def _permit_to_call(services: Services, deadline: Deadline) -> AsyncIterator[None]:
    """Holds a permit to call the engine, where `ENGINE_MAX_CONCURRENCY_TOTAL` is set; waits for it half of the time."""
    permit_id = services.slices.new_permit_id()
    try:
        while not await services.slices.take_permit(permit_id, deadline, is_manual=True):
            may_wait = deadline.remaining() - (1 - MAX_WAIT_FRACTION) * deadline.seconds
            if may_wait <= 0:
                detail = "engine concurrency limit reached, and no call was made for this request; "
                detail += "send it again with the same key"
                raise RequestError(503, "engine_busy", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
            await asyncio.sleep(min(PERMIT_PAUSE_SECONDS, may_wait))
        yield
    finally:
        if permit_id is not None:
            try:
                await services.slices.end_slice(
                    dispatch_id=None, progressed=False, engine_answers=False, engine_permit_id=permit_id
                )
            except DatabaseError as error:
                # The results are returned all the same.
                log_event("engine_permit_left", f"Permit not returned; it expires: {error}", level=logging.WARNING)


def _plan(
    scenarios: Scenarios, user_ids: list[str], active: list[ActivePeerMentor], named: list[str] | None
) -> Iterator[MentorScenarios]:
    chosen = frozenset(named) if named else None
    types = scenarios.enabled_types(chosen)
    mentors = {mentor.user_id: mentor for mentor in active}
    for user_id in user_ids:
        mentor = mentors.get(user_id)
        if mentor is None or mentor.skip_reason is not None:
            yield MentorScenarios(user_id, types, MENTOR_NOT_ACTIVE if mentor is None else mentor.skip_reason)
            continue
        applicable = scenarios.types_for(mentor.segments, chosen)
        if applicable:
            yield MentorScenarios(user_id, applicable)
        others = tuple(name for name in types if name not in applicable)
        if chosen is not None and others:
            yield MentorScenarios(user_id, others, SCENARIO_NOT_APPLICABLE)


def _batch(services: Services, users: tuple[MentorScenarios, ...], key: str | None) -> EvaluationBatch:
    # Requests with the same key must look the same to the engine.
    batch_id = str(uuid.uuid4() if key is None else uuid.uuid5(uuid.NAMESPACE_OID, f"adhoc:{key}"))
    return EvaluationBatch(
        invocation_id=batch_id,
        batch_no=1,
        users=users,
        deliveries=1,
        read_count=1,
        engine_scope=f"dry:{batch_id}" if key is None else f"adhoc:{key}",
        scheduled_for=services.now().astimezone(UTC).isoformat(timespec="seconds"),
        dry_run=key is None,
    )
