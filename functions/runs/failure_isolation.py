"""Isolates the users whose calls fail: bisection, single retries, the canary.

A user is marked failed only while other calls, or the canary, succeed. Otherwise the engine is down. Where the engine
supports no dry run there is no canary: `EngineClient.canary_responds` goes by its other answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from functions.runs.result_ledger import ResultLedger, Users
from shared.concurrency import gather_or_cancel
from shared.deadline import Deadline
from shared.engine_client import EngineClient
from shared.engine_protocol import EvaluationContext
from shared.engine_response import EngineResponse
from shared.errors import (
    DeadlineExceededError,
    EngineError,
    EngineTransientError,
    InvalidEngineRequestError,
)
from shared.evaluations import MentorScenarios

# Users tried one by one before an engine that answered none is taken to be down.
PROBES = 3
# How often a user has to meet a 503 while the canary passes right after. Other workers may overload the engine as well:
# if it takes every second call, one user in 65,000 is failed by such bad luck.
BUSY_ATTEMPTS = 8
TOO_BUSY = "engine_http_503"

Call = Callable[[Users], Coroutine[Any, Any, EngineResponse]]


class _UnsettledError(EngineTransientError):
    """The engine answered, but left a pair out or called it retryable."""


class FailureIsolation:
    """Makes a batch's calls, stores their results in `ledger`, and finds the users whose calls keep failing.

    `before_sending`: see `EngineClient.evaluate`.
    """

    def __init__(
        self,
        ledger: ResultLedger,
        engine: EngineClient,
        context: EvaluationContext,
        deadline: Deadline,
        *,
        before_sending: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._context = context
        self._deadline = deadline
        self._on_sending = before_sending
        self._answers_seen = self._answers_when_sent = engine.health.answers
        # Users whose calls outlived their retries.
        self._failing: list[Users] = []
        # The deadline passed before some user had all attempts of the retry policy.
        self._deadline_hit = False
        # Results that match no pair of their call, or that cannot be read.
        self.dropped = 0

    def _before_sending(self) -> None:
        self._answers_when_sent = self._engine.health.answers
        self._on_sending()

    async def call(self, users: Users) -> EngineResponse:
        """Calls the engine once; raises as `EngineClient.evaluate` does."""
        try:
            response = await self._engine.evaluate(
                self._context, users, self._deadline, before_sending=self._before_sending
            )
        except EngineError as error:
            self._ledger.note_failed_call(users, error)
            if isinstance(error, EngineTransientError):
                self.dropped += error.dropped
            raise
        self.dropped += response.dropped
        return response

    async def retry_call(self, users: Users, first: EngineTransientError) -> None:
        """Repeats a call whose first attempt failed: tenacity around every call would cost more than most calls do."""
        await self._evaluate(users, partial(self._call_after, first))

    async def bisect_rejected(self, users: Users, error: InvalidEngineRequestError, call: Call | None = None) -> None:
        """Halves a call that the engine refuses, until the refused user stands alone; only that user fails."""
        if len(users) == 1:
            self._ledger.fail(users[0], error)
        else:
            await gather_or_cancel(self._evaluate(half, call or self._call_with_retries) for half in _halves(users))

    async def retry_users(self, users: Users, response: EngineResponse) -> None:
        """Repeats the pairs that `response` left open, user by user."""
        await gather_or_cancel(self._retry_user(user, response) for user in users)

    async def require_engine(self, user: MentorScenarios, error: EngineTransientError) -> None:
        """Raises EngineUnavailableError if the engine answers no call since the failed one, nor its canary."""
        is_silent = self._engine.health.answers == self._answers_when_sent
        if is_silent and self._engine.has_canary and not error.is_global:
            await self._engine.require_others(error, user, self._deadline)

    async def isolate(self) -> None:
        """Bisects the calls that outlived their retries, until every user has a result.

        Raises:
            EngineUnavailableError: the engine answers no user, nor the canary.
            DeadlineExceededError: the deadline passed before some user had all attempts.
        """
        while self._failing:
            failing, self._failing = self._failing, []
            if self._engine.health.answers == self._answers_seen:
                await self._probe_engine([user for users in failing for user in users])
            self._answers_seen = self._engine.health.answers
            await gather_or_cancel(self._bisect_failing(self._ledger.unresolved(users)) for users in failing)
        if self._deadline_hit:
            raise DeadlineExceededError("the time budget ended before some user had all attempts")

    async def _evaluate(self, users: Users, call: Call) -> None:
        try:
            response = await call(users)
        except EngineTransientError:
            self._failing.append(users)
        except InvalidEngineRequestError as error:
            await self.bisect_rejected(users, error, call)
        else:
            await self._handle_response(users, response)

    async def _handle_response(self, users: Users, response: EngineResponse) -> None:
        await self.retry_users(self._ledger.store_final(users, response), response)

    async def _bisect_failing(self, users: Users) -> None:
        if len(users) == 1:
            await self._probe_user(users[0])
        elif users:
            # Without retries: a half that fails is halved again, which is a retry as well.
            await gather_or_cancel(self._evaluate(half, self.call) for half in _halves(users))

    async def _call_with_retries(self, users: Users) -> EngineResponse:
        return await self._engine.retrying(self._deadline)(self.call, users)

    async def _call_after(self, first: EngineTransientError, users: Users) -> EngineResponse:
        """Calls with retries; `first` counts as the first attempt, also for the halves of a call refused later."""
        return await self._engine.repeat(first, partial(self.call, users), self._deadline)

    async def _retry_user(self, user: MentorScenarios, response: EngineResponse) -> None:
        """Repeats the pairs that `response` left open; those that stay open fail by the engine's last result."""
        unsettled, is_first = [user], True

        async def attempt() -> None:
            nonlocal response, unsettled, is_first
            # The call that left them open was the first attempt: the policy counts it, and waits before the next.
            if not is_first:
                response = await self.call(unsettled)
                unsettled = self._ledger.store_final(unsettled, response)
            is_first = False
            if unsettled:
                raise _UnsettledError("engine_missing_result", "the engine left this pair out")

        try:
            await self._engine.retrying(self._deadline)(attempt)
        except _UnsettledError as error:
            if error.deadline_exceeded:
                self._deadline_hit = True
                return
            for left in unsettled:
                self._ledger.store_last(left, response, error)
        except EngineTransientError:
            self._failing.append(unsettled)
        except InvalidEngineRequestError as error:
            self._ledger.fail(unsettled[0], error)

    async def _probe_engine(self, users: Users) -> None:
        """Tries a few users one by one: if one call succeeds, the engine is not down.

        Raises:
            EngineUnavailableError: it answers none of them, nor the canary.
        """
        failures: list[tuple[EngineTransientError, MentorScenarios]] = []
        # At random: a batch whose probes all happen to be poison is released, and draws others the next time.
        for user in random.sample(users, min(PROBES, len(users))):
            try:
                response = await self.call([user])
            except EngineTransientError as error:
                failures.append((error, user))
            except InvalidEngineRequestError:
                return
            else:
                await self._handle_response([user], response)
                return
        await self._engine.require_others(*failures[-1], self._deadline)

    async def _probe_user(self, user: MentorScenarios) -> None:
        """Fails a user whose every attempt fails while the canary passes after each: poison, not an outage.

        After a 503 for both the engine is overloaded; the user is retried until the deadline.
        """
        failures = 0

        async def attempt() -> EngineResponse | None:
            nonlocal failures
            while True:
                try:
                    return await self.call([user])
                except EngineTransientError as error:
                    is_busy = error.code == TOO_BUSY and not error.is_global
                    if not is_busy:
                        await self._engine.require_others(error, user, self._deadline)
                    elif not await self._engine.canary_responds(user, self._deadline):
                        failures = 0
                        raise
                    failures += 1
                    if failures >= (BUSY_ATTEMPTS if is_busy else self._engine.max_attempts):
                        return None
                    if not is_busy:
                        raise

        try:
            response: EngineResponse | None = await self._engine.retrying(self._deadline, until_deadline=True)(attempt)
        except EngineTransientError:
            self._deadline_hit = True
        except InvalidEngineRequestError as error:
            self._ledger.fail(user, error)
        else:
            if response is None:
                self._ledger.fail_by_last_error([user], EngineError(TOO_BUSY, "the engine answered 503"))
            else:
                await self._handle_response([user], response)


def _halves(users: Users) -> tuple[Users, Users]:
    middle = len(users) // 2
    return users[:middle], users[middle:]
