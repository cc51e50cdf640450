"""Evaluates a batch pair by pair, for an engine that may act again where a call is repeated.

A call that may have reached the engine is never made again: its pair has failed as `outcome_unknown`. What surely did
not act (no connection, 408, 429, 503) is repeated. A user with a result has begun, and is finished in this slice: what
is not sent of the user's when it stops fails by what stopped it. So users that are left to a later slice are untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice

from functions.runs.result_ledger import ResultLedger, Users
from shared.concurrency import gather_or_cancel
from shared.deadline import Deadline
from shared.engine_client import EngineClient
from shared.engine_protocol import EvaluationContext
from shared.engine_response import EngineResponse
from shared.errors import (
    DeadlineExceededError,
    EngineError,
    EngineOutcomeUnknownError,
    EngineTransientError,
    EngineUnavailableError,
    InvalidEngineRequestError,
)
from shared.evaluations import MentorScenarios

TIME_IS_UP = EngineError("time_budget_exceeded", "the time budget ended before the call")


class SingleCalls:
    """Makes a batch's calls and stores their results in `ledger`.

    Args:
        fatal_error: returns what ended all calls of the slice, if something did.
        on_begin: called when the first call is about to be made.
    """

    def __init__(
        self,
        ledger: ResultLedger,
        engine: EngineClient,
        context: EvaluationContext,
        deadline: Deadline,
        *,
        fatal_error: Callable[[], EngineError | None],
        on_begin: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._context = context
        self._deadline = deadline
        self._fatal_error_of_slice = fatal_error
        self._on_begin = on_begin
        self._begun: set[str] = set()
        self.fatal_error: EngineError | None = None
        # Answers about another pair than the call's.
        self.dropped = 0

    async def evaluate(self, users: Users, on_calls: Callable[[int], None]) -> None:
        """Evaluates users side by side until the deadline, or until `fatal_error` is set; raises neither.

        The first one alone while no answer of the engine is known, so that an outage costs no other.
        """
        left = sum(len(user.scenario_types) for user in users)
        waiting = iter(users)

        async def work(most: int | None = None) -> None:
            nonlocal left
            async with self._engine.limiter.workers:
                for user in islice(waiting, most):
                    is_finished = await self._evaluate_user(user)
                    left -= len(user.scenario_types)
                    on_calls(-len(user.scenario_types))
                    if not is_finished:
                        return

        on_calls(left)
        try:
            if not self._engine.health.answered_recently(self._deadline):
                await work(most=1)
            await gather_or_cancel(work() for _ in range(min(self._engine.limiter.maximum, len(users))))
        finally:
            on_calls(-left)

    async def _evaluate_user(self, user: MentorScenarios) -> bool:
        """Evaluates a user's pairs one after the other; returns whether nothing stopped it."""
        try:
            for scenario_type in user.scenario_types:
                await self._evaluate_pair(user._replace(scenario_types=(scenario_type,)), user)
        except DeadlineExceededError:
            stop = TIME_IS_UP
        except EngineError as error:
            stop = self.fatal_error = self.fatal_error or error
        else:
            return True
        finally:
            if user.user_id in self._begun:
                self._deadline.pace.owed -= len(user.scenario_types)
        if self._has_results(user):
            for unsent in self._ledger.unresolved([user]):
                self._ledger.fail(unsent, stop)
        return False

    def _has_results(self, user: MentorScenarios) -> bool:
        return self._ledger.unresolved([user]) != [user]

    async def _evaluate_pair(self, pair: MentorScenarios, user: MentorScenarios) -> None:
        try:
            response = await self._call_with_retries(pair, user)
        except InvalidEngineRequestError as error:
            self._ledger.fail(pair, error)
        except EngineOutcomeUnknownError as error:
            self._ledger.fail(pair, error)
            if self._deadline.remaining() > 0:  # otherwise it may be the deadline that cut the call off
                await self._engine.require_others(error.cause, pair, self._deadline)
        except EngineTransientError as error:
            if error.deadline_exceeded:
                raise DeadlineExceededError("the time budget ended before the next attempt") from error
            if not error.code.startswith("engine_http"):  # without a connection it is not the pair's
                raise EngineUnavailableError(error.code, f"the engine is away: {error.message}") from error
            await self._engine.require_others(error, pair, self._deadline)
            self._ledger.fail(pair, error)
        else:
            self._ledger.store_final([pair], response)

    async def _call_with_retries(self, pair: MentorScenarios, user: MentorScenarios) -> EngineResponse:
        try:
            return await self._call(pair, user)
        except EngineTransientError as first:
            return await self._engine.repeat(first, partial(self._call, pair, user), self._deadline)

    async def _call(self, pair: MentorScenarios, user: MentorScenarios) -> EngineResponse:
        def before_sending() -> None:
            if (fatal := self.fatal_error or self._fatal_error_of_slice()) is not None:
                raise fatal
            pace, is_new = self._deadline.pace, user.user_id not in self._begun
            owed = pace.owed + (len(user.scenario_types) if is_new else 0)
            # All of them one after the other, this one now, and an answer to the last.
            needed = (owed - 1) * pace.seconds + self._engine.timeout_seconds
            if not self._has_results(user) and self._deadline.remaining() <= needed:
                raise DeadlineExceededError("too little time is left for another user")
            if is_new:
                pace.owed = owed
                self._begun.add(user.user_id)
                self._on_begin()

        try:
            return await self._engine.evaluate(self._context, [pair], self._deadline, before_sending=before_sending)
        except (EngineTransientError, EngineOutcomeUnknownError, InvalidEngineRequestError) as error:
            self._ledger.note_failed_call([pair], error)
            if isinstance(error, EngineOutcomeUnknownError):
                self.dropped += error.cause.dropped
            raise
