"""`run_evaluation_batch`: sends each user of a batch to the engine; one user's failure costs only that user.

A call carries many users, so a call that fails says nothing yet about any one of them:

- A call that the engine refuses (400, 413, 422) is bisected until the refused user stands alone.
- Calls that keep failing (5xx, time-outs) are deferred until the other calls of the batch are done, then bisected as
  well. A user is failed only while the engine answers other calls. If it answers none it is down, and no user failed.
- A 503 is taken for an overload until shown otherwise: only a user who meets it in every attempt, while the canary
  passes after each, is failed.
- Pairs that the engine leaves out or calls retryable are retried user by user.
- Where the time may end before all that, at a pace (`ENGINE_MAX_CALLS_PER_MINUTE`) or in a poison batch, one call comes
  first: if it fails the canary has to pass, so that an outage fails no user and splits no batch.
- Users whose retries hit the deadline are `remaining`, and have not failed.

All of that repeats calls. For an engine that does not promise idempotency see single_calls.py instead.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from functions.runs.failure_isolation import FailureIsolation
from functions.runs.result_ledger import BatchResult, ResultLedger, Users
from functions.runs.single_calls import SingleCalls
from shared.concurrency import AdaptiveLimiter, gather_or_cancel
from shared.config import ScenarioEvaluationConfig
from shared.deadline import Deadline
from shared.engine_client import EngineClient
from shared.engine_protocol import EvaluationContext
from shared.errors import DeadlineExceededError, EngineError, EngineTransientError, InvalidEngineRequestError
from shared.evaluations import EvaluationBatch
from shared.logs import log_event

Step = Callable[[], Coroutine[Any, Any, None]]


async def run_evaluation_batch(
    batch: EvaluationBatch,
    *,
    engine: EngineClient,
    config: ScenarioEvaluationConfig,
    deadline: Deadline,
    on_calls: Callable[[int], None] = lambda change: None,
    on_begin: Callable[[], None] = lambda: None,
    fatal_error: Callable[[], EngineError | None] = lambda: None,
) -> BatchResult:
    """Evaluates a batch's pairs.

    On the last of `MAX_BATCH_DELIVERIES` pairs without a result at the deadline are failed, not released; after it no
    call is made. Nor is one for a dry run with an engine that supports none, and might notify.

    Args:
        on_calls: called with the number of first attempts to come, and with -1 for each that has ended.
        on_begin: called when a call is about to be made, and no other wait is left.
        fatal_error: returns what ended all calls of the slice; for calls that cannot be cancelled.

    Raises:
        DeadlineExceededError: the deadline passed before any user had all results; release the batch.
        EngineAccessError, EngineUnavailableError: the engine refuses access, or is down; release it as well. Where a
            call must not be repeated and some users have results, the error is returned beside them.
    """
    users = [user for user in batch.users if user.skip_reason is None]
    ledger = ResultLedger(batch.users)
    if batch.deliveries > config.max_batch_deliveries:
        error = EngineError("worker_lost", "the batch was delivered too often without a result")
        ledger.fail_by_last_error(users, error)
        return ledger.result()
    if batch.dry_run and not engine.protocol.dry_run:
        error = EngineError("dry_run_not_supported", "the engine supports no dry runs (ENGINE_SUPPORTS), and may act")
        ledger.fail_by_last_error(users, error)
        return ledger.result()
    context = EvaluationContext(batch.invocation_id, batch.scheduled_for, batch.engine_scope, batch.dry_run)
    late = EngineError("time_budget_exceeded", "the time budget ended before the engine answered")
    if not engine.may_repeat(dry_run=batch.dry_run):
        single = SingleCalls(ledger, engine, context, deadline, fatal_error=fatal_error, on_begin=on_begin)
        await single.evaluate(users, on_calls)
        _log_dropped(single.dropped)
        result = ledger.result()
        if single.fatal_error is not None:
            if len(result.remaining) == len(users):
                raise single.fatal_error
            return replace(result, fatal_error=single.fatal_error)
        if result.remaining:
            return _at_the_deadline(ledger, users, late if batch.deliveries >= config.max_batch_deliveries else None)
        return result
    isolation = FailureIsolation(ledger, engine, context, deadline, before_sending=on_begin)
    calls = list(_cut_into_calls(users, config.engine_users_per_call, config.engine_types_per_call))
    try:
        one_first = batch.is_poison or deadline.pace.seconds > 0
        deferred = await _make_first_attempts(calls, ledger, isolation, engine.limiter, on_calls, one_first=one_first)
        await gather_or_cancel(step() for step in deferred)
        await isolation.isolate()
    except DeadlineExceededError:
        return _at_the_deadline(ledger, users, late if batch.deliveries >= config.max_batch_deliveries else None)
    finally:
        _log_dropped(isolation.dropped)
    return ledger.result()


def _at_the_deadline(ledger: ResultLedger, users: Users, late: EngineError | None) -> BatchResult:
    """Returns what there is; fails the unresolved pairs where `late` is given."""
    if late is not None:
        ledger.fail_by_last_error(users, late)
    result = ledger.result()
    if not result.results:
        raise DeadlineExceededError("the time budget ended before any user had all results")
    return result


def _log_dropped(dropped: int) -> None:
    """Logs once for the batch: its calls may be as many as its users."""
    if dropped:
        log_event(
            "engine_results_dropped",
            "Engine results dropped: unreadable, or for pairs that were not in the call",
            dropped=dropped,
        )


async def _make_first_attempts(
    calls: Sequence[Users],
    ledger: ResultLedger,
    isolation: FailureIsolation,
    limiter: AdaptiveLimiter,
    on_calls: Callable[[int], None],
    *,
    one_first: bool,
) -> list[Step]:
    """Makes each call once, by as many workers as calls may be in flight: a task for each call would cost more.

    The workers of all batches share `limiter.workers`, so they rarely wait for each other at the limiter itself: a wait
    for each call costs a sixth of the throughput at 256 calls in flight.

    Returns the steps that failures left to be done, once all calls had their first attempt: most calls succeed.
    """
    left = len(calls)
    waiting = iter(calls)
    deferred: list[Step] = []

    async def work(most: int | None = None) -> None:
        nonlocal left
        async with limiter.workers:
            for users in islice(waiting, most):
                try:
                    response = await isolation.call(users)
                except EngineTransientError as error:
                    if most is not None:
                        await isolation.require_engine(users[0], error)
                    deferred.append(partial(isolation.retry_call, users, error))
                except InvalidEngineRequestError as error:
                    deferred.append(partial(isolation.bisect_rejected, users, error))
                else:
                    if unsettled := ledger.store_final(users, response):
                        deferred.append(partial(isolation.retry_users, unsettled, response))
                left -= 1
                on_calls(-1)

    on_calls(left)
    try:
        if one_first:
            await work(most=1)
        await gather_or_cancel(work() for _ in range(min(limiter.maximum, left)))
    finally:
        on_calls(-left)
    return deferred


def _cut_into_calls(users: Users, users_per_call: int, types_per_call: int | None) -> Iterator[Users]:
    """Yields the users and types of each call; no user is twice in one. Some users have all of theirs before others."""
    for start in range(0, len(users), users_per_call):
        part = users[start : start + users_per_call]
        most_types = max(len(user.scenario_types) for user in part)
        if types_per_call is None or most_types <= types_per_call:
            yield part
            continue
        for first in range(0, most_types, types_per_call):
            some = slice(first, first + types_per_call)
            yield [user._replace(scenario_types=types) for user in part if (types := user.scenario_types[some])]
