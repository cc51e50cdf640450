"""`run_evaluation_batch`: each user of a batch to the engine, and one user's failure costs only that user.

A call carries many users, so a call that fails says nothing yet about any one of them:

- What the engine refuses (400, 413, 422) is bisected until the refused user stands alone.
- What keeps failing (5xx, time-outs) is put aside until the rest of the batch is through, and then bisected as well.
  A user is failed only while the engine answers others. If it answers none of them it is down, and no user failed.
- A 503 is an overload until the contrary is shown: only a user who is turned away in every attempt, while the canary
  passes after each, is failed.
- What the engine leaves out or calls retryable is asked again, user by user.
- Users whose attempts the deadline cuts short are in the rest, and have not failed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from shared.concurrency import gather_or_cancel
from shared.deadline import Deadline
from shared.engine_client import EngineClient, EvaluationContext
from shared.engine_response import EngineResponse, Pair
from shared.errors import (
    DeadlineExceededError,
    EngineError,
    EngineTransientError,
    EngineUnavailableError,
    InvalidEngineRequestError,
)
from shared.evaluations import EvaluationBatch, EvaluationResult, MentorScenarios, Outcome
from shared.logs import log_event

# How many users are tried one by one before an engine that answered none is held to be down.
PROBES = 3
# How often a user has to be turned away by 503 while the canary passes right after. Other workers may overload the
# engine as well: if it takes every second call, one user in 65,000 is failed by such bad luck.
BUSY_ATTEMPTS = 8
TOO_BUSY = "engine_http_503"

Users = Sequence[MentorScenarios]
Call = Callable[[Users], Coroutine[Any, Any, EngineResponse]]


class _UnsettledError(EngineTransientError):
    """The engine answered, but not for good."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of a batch.

    Args:
        results: one for each pair of every user but those of `remaining`, in the batch's order.
        remaining: users for whom the time did not suffice; not all of them.
    """

    results: list[EvaluationResult]
    remaining: tuple[str, ...] = ()


async def run_evaluation_batch(
    batch: EvaluationBatch,
    *,
    engine: EngineClient,
    deadline: Deadline,
    users_per_call: int,
    types_per_call: int | None = None,
    max_deliveries: int,
    on_calls: Callable[[int], None] = lambda change: None,
) -> BatchResult:
    """Evaluates a batch's pairs.

    Args:
        batch: who is to be evaluated for what.
        engine: the scenario trigger engine.
        deadline: how long this may take.
        users_per_call: how many users share a call.
        types_per_call: how many of a user's scenario types, at most; None: all of them.
        max_deliveries: on the last of so many deliveries what cannot be evaluated in time is failed, not given back;
            after it nothing is tried any more.
        on_calls: called with the number of first attempts to come, and with -1 for each that has ended.

    Returns:
        What came of it. Users without all of their results when the time budget ends are in the rest.

    Raises:
        DeadlineExceededError: the time budget ended before any user had all results; the batch is to be given back.
        EngineAccessError: the engine turns us away altogether.
        EngineUnavailableError: the engine is down for everyone.
    """
    evaluator = _BatchEvaluator(batch, engine, deadline)
    if batch.deliveries > max_deliveries:
        evaluator.fail_unresolved("worker_lost", "the batch was delivered too often without a result")
        return evaluator.result()
    try:
        await evaluator.evaluate(list(_cut_into_calls(evaluator.users, users_per_call, types_per_call)), on_calls)
    except DeadlineExceededError:
        if batch.deliveries >= max_deliveries:
            evaluator.fail_unresolved("time_budget_exceeded", "the time budget ended before the engine answered")
        result = evaluator.result()
        if not result.results:
            raise
        return result
    finally:
        # Once for the batch: its calls may be as many as its users.
        if evaluator.dropped:
            log_event(
                "engine_results_dropped",
                "Engine results that match no pair of the call, or cannot be read, were dropped",
                dropped=evaluator.dropped,
            )
    return evaluator.result()


class _BatchEvaluator:
    """The state of one batch's evaluation: what is resolved, and whose calls keep failing."""

    def __init__(self, batch: EvaluationBatch, engine: EngineClient, deadline: Deadline) -> None:
        self.users = [user for user in batch.users if user.skip_reason is None]
        self._engine = engine
        self._deadline = deadline
        self._context = EvaluationContext(batch.invocation_id, batch.scheduled_for, batch.engine_scope, batch.dry_run)
        # In the batch's order; None: not resolved yet.
        self._results: dict[Pair, EvaluationResult | None] = {
            (user_id, scenario_type): None
            for user_id, scenario_types, _ in batch.users
            for scenario_type in scenario_types
        }
        # Calls that carried a pair and left it without a result: empty for as long as all goes well.
        self._attempts: Counter[Pair] = Counter()
        self._last_errors: dict[Pair, EngineError] = {}
        # What the first attempts left to be done.
        self._deferred: list[Callable[[], Coroutine[Any, Any, None]]] = []
        # Users whose calls outlived their retries.
        self._failing: list[Users] = []
        # The deadline came before some user was asked often enough to be failed.
        self._deadline_hit = False
        # Results that match no pair of the call, or that cannot be read.
        self.dropped = 0
        for user in batch.users:
            if user.skip_reason is not None:
                self._record(user, "skipped", user.skip_reason)

    def result(self) -> BatchResult:
        """Returns the results of users who have all of theirs, and the other users."""
        resolved = [result for result in self._results.values() if result is not None]
        if len(resolved) == len(self._results):
            return BatchResult(resolved)
        remaining = dict.fromkeys(user_id for (user_id, _), result in self._results.items() if result is None)
        return BatchResult([result for result in resolved if result.user_id not in remaining], tuple(remaining))

    def fail_unresolved(self, code: str, message: str) -> None:
        """Fails every pair without a result, by its own last error where it has one."""
        otherwise = EngineError(code, message)
        for user in self._unresolved(self.users):
            for scenario_type in user.scenario_types:
                error = self._last_errors.get((user.user_id, scenario_type), otherwise)
                self._fail(user._replace(scenario_types=(scenario_type,)), error)

    async def evaluate(self, calls: Sequence[Users], on_calls: Callable[[int], None]) -> None:
        """Makes the calls, then sees to what they left open; raises as `run_evaluation_batch` does."""
        answers = self._engine.answers
        await self._make_first_attempts(calls, on_calls)
        await gather_or_cancel(step() for step in self._deferred)
        while self._failing:
            failing, self._failing = self._failing, []
            if self._engine.answers == answers:
                await self._probe_engine([user for users in failing for user in users])
            answers = self._engine.answers
            await gather_or_cancel(self._bisect_failing(self._unresolved(users)) for users in failing)
        if self._deadline_hit:
            raise DeadlineExceededError("the time budget ended before some user was asked often enough")

    async def _make_first_attempts(self, calls: Sequence[Users], on_calls: Callable[[int], None]) -> None:
        """As many workers as calls may be in flight, each taking the next call: a task a call would cost more."""
        left = len(calls)
        waiting = iter(calls)

        async def services() -> None:
            nonlocal left
            for users in waiting:
                await self._first_attempt(users)
                left -= 1
                on_calls(-1)

        on_calls(left)
        try:
            await gather_or_cancel(services() for _ in range(min(self._engine.limiter.maximum, left)))
        finally:
            on_calls(-left)

    async def _first_attempt(self, users: Users) -> None:
        """What it leaves open waits until all calls have had theirs: most leave nothing."""
        try:
            answer = await self._call(users)
        except EngineTransientError as error:
            self._deferred.append(partial(self._evaluate, users, partial(self._retry, error)))
        except InvalidEngineRequestError as error:
            self._deferred.append(partial(self._bisect_refused, users, error, self._call_with_retries))
        else:
            if unsettled := self._store_final(users, answer):
                self._deferred.append(partial(self._retry_users, unsettled, answer))

    async def _evaluate(self, users: Users, call: Call) -> None:
        try:
            answer = await call(users)
        except EngineTransientError:
            self._failing.append(users)
        except InvalidEngineRequestError as error:
            await self._bisect_refused(users, error, call)
        else:
            await self._handle_response(users, answer)

    async def _bisect_refused(self, users: Users, error: InvalidEngineRequestError, call: Call) -> None:
        if len(users) == 1:
            self._fail(users[0], error)
        else:
            await gather_or_cancel(self._evaluate(half, call) for half in _halves(users))

    async def _bisect_failing(self, users: Users) -> None:
        if len(users) == 1:
            await self._probe_user(users[0])
        elif users:
            # Without retries: a half that fails is halved again, which is a retry as well.
            await gather_or_cancel(self._evaluate(half, self._call) for half in _halves(users))

    async def _handle_response(self, users: Users, answer: EngineResponse) -> None:
        """Records what is final; asks again, user by user, about the rest."""
        await self._retry_users(self._store_final(users, answer), answer)

    def _store_final(self, users: Users, answer: EngineResponse) -> list[MentorScenarios]:
        """Records the pairs that are final; returns the users with others, and those."""
        if answer.is_final and not self._attempts:
            self._results.update(answer.results)
            return []
        unsettled: list[MentorScenarios] = []
        for user in users:
            left: list[str] = []
            for scenario_type in user.scenario_types:
                pair = (user.user_id, scenario_type)
                result = answer.results[pair]
                if result is None or pair in answer.retryable:
                    self._attempts[pair] += 1
                    left.append(scenario_type)
                else:
                    self._results[pair] = result._replace(attempts=self._attempts.get(pair, 0) + 1)
            if left:
                unsettled.append(user._replace(scenario_types=tuple(left)))
        return unsettled

    async def _retry_users(self, users: Users, answer: EngineResponse) -> None:
        await gather_or_cancel(self._retry_user(user, answer) for user in users)

    async def _retry_user(self, user: MentorScenarios, answer: EngineResponse) -> None:
        """Asks again about pairs that `answer` left open; what stays open fails by the engine's last word on it."""
        unsettled, is_first = [user], True

        async def attempt() -> None:
            nonlocal answer, unsettled, is_first
            # The call that left them open was the first attempt: the policy counts it, and waits before the next.
            if not is_first:
                answer = await self._call(unsettled)
                unsettled = self._store_final(unsettled, answer)
            is_first = False
            if unsettled:
                raise _UnsettledError("engine_missing_result", "the engine left this pair out")

        try:
            await self._engine.retrying(self._deadline)(attempt)
        except _UnsettledError as error:
            if error.deadline_exceeded:
                self._deadline_hit = True
                return
            for user in unsettled:
                self._fail(user, error)
                for scenario_type in user.scenario_types:
                    pair = (user.user_id, scenario_type)
                    if (said := answer.results[pair]) is not None:
                        self._results[pair] = said._replace(attempts=self._attempts[pair])
        except EngineTransientError:
            self._failing.append(unsettled)
        except InvalidEngineRequestError as error:
            self._fail(unsettled[0], error)

    async def _probe_engine(self, users: Users) -> None:
        """Tries a few users one by one: if one gets through, the engine is not down.

        Raises:
            EngineUnavailableError: it answers none of them, nor the canary.
        """
        failures: list[EngineTransientError] = []
        # By chance: a batch whose probes all happen to be poison is given back, and has better luck the next time.
        for user in random.sample(users, min(PROBES, len(users))):
            try:
                answer = await self._call([user])
            except EngineTransientError as error:
                failures.append(error)
            except InvalidEngineRequestError:
                return
            else:
                await self._handle_response([user], answer)
                return
        await self._require_canary(failures[-1])

    async def _require_canary(self, error: EngineTransientError) -> None:
        """Returns if the canary passes, and so tells poison from an outage; else the engine is down."""
        if error.is_global or not await self._engine.canary_responds(self._deadline):
            raise EngineUnavailableError(
                error.code, f"the engine answers nobody: {error.message}", retry_after=error.retry_after
            ) from error

    async def _probe_user(self, user: MentorScenarios) -> None:
        """Fails a user whose every attempt fails while the canary passes after each: poison, and not an outage.

        After a 503 that neither gets past the engine is overloaded, which is waited out for as long as there is time.
        """
        failures = 0

        async def attempt() -> EngineResponse | None:
            nonlocal failures
            while True:
                try:
                    return await self._call([user])
                except EngineTransientError as error:
                    is_busy = error.code == TOO_BUSY and not error.is_global
                    if not is_busy:
                        await self._require_canary(error)
                    elif not await self._engine.canary_responds(self._deadline):
                        failures = 0
                        raise
                    failures += 1
                    if failures >= (BUSY_ATTEMPTS if is_busy else self._engine.max_attempts):
                        return None
                    if not is_busy:
                        raise

        try:
            answer: EngineResponse | None = await self._engine.retrying(self._deadline, until_deadline=True)(attempt)
        except EngineTransientError:
            self._deadline_hit = True
        except InvalidEngineRequestError as error:
            self._fail(user, error)
        else:
            if answer is None:
                self._fail(user, self._last_errors[user.user_id, user.scenario_types[0]])
            else:
                await self._handle_response([user], answer)

    async def _call_with_retries(self, users: Users) -> EngineResponse:
        return await self._engine.retrying(self._deadline)(self._call, users)

    async def _retry(self, first: EngineTransientError, users: Users) -> EngineResponse:
        """Goes on after a first failure: tenacity around every call would cost more than most calls do."""
        failures = [first]

        async def attempt() -> EngineResponse:
            if failures:
                raise failures.pop()
            return await self._call(users)

        return await self._engine.retrying(self._deadline)(attempt)

    async def _call(self, users: Users) -> EngineResponse:
        try:
            answer = await self._engine.evaluate(self._context, users, self._deadline)
        except EngineError as error:
            pairs = [(user.user_id, scenario_type) for user in users for scenario_type in user.scenario_types]
            self._attempts.update(pairs)
            self._last_errors.update(dict.fromkeys(pairs, error))
            raise
        self.dropped += answer.dropped
        return answer

    def _unresolved(self, users: Users) -> list[MentorScenarios]:
        return [
            MentorScenarios(user.user_id, unresolved)
            for user in users
            if (unresolved := tuple(t for t in user.scenario_types if self._results[user.user_id, t] is None))
        ]

    def _fail(self, user: MentorScenarios, error: EngineError) -> None:
        self._record(user, "failed", error.code, error.message)

    def _record(self, user: MentorScenarios, outcome: Outcome, code: str, message: str | None = None) -> None:
        """The same for each of a user's pairs, after the calls that were made about it."""
        for scenario_type in user.scenario_types:
            pair = (user.user_id, scenario_type)
            attempts = self._attempts.get(pair, 0)
            self._results[pair] = EvaluationResult(*pair, outcome, attempts, code, message)


def _cut_into_calls(users: Users, users_per_call: int, types_per_call: int | None) -> Iterator[Users]:
    """The users and types of each call; no user is twice in one."""
    most_types = max((len(user.scenario_types) for user in users), default=0)
    step = types_per_call or max(most_types, 1)
    for first in range(0, most_types, step):
        part = users
        if step < most_types:
            some = slice(first, first + step)
            part = [user._replace(scenario_types=types) for user in users if (types := user.scenario_types[some])]
        for start in range(0, len(part), users_per_call):
            yield part[start : start + users_per_call]


def _halves(users: Users) -> tuple[Users, Users]:
    middle = len(users) // 2
    return users[:middle], users[middle:]
