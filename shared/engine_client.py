"""The scenario trigger engine's HTTP client: one call, and the policy for repeating it.

The contract is docs/engine-contract.md; answers are bounded in size and time, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    stop_never,
)
from tenacity.wait import wait_base, wait_random_exponential

from shared.concurrency import AdaptiveLimiter
from shared.deadline import Deadline
from shared.engine_response import EngineResponse, read_response
from shared.errors import (
    DeadlineExceededError,
    EngineError,
    EngineTransientError,
    EngineUnavailableError,
    InvalidEngineRequestError,
)
from shared.evaluations import MentorScenarios
from shared.http_client import HttpClient
from shared.logs import traceparent
from shared.post_client import Connect, HttpBodyError, HttpError, HttpTimeoutError

if TYPE_CHECKING:
    from shared.telemetry import EngineCall, Telemetry

# JSON takes up to thirty times its length in memory while it is read, and many answers may be read at a time. Any error
# page fits the first, any honest result the second.
ANSWER_BYTES = 1024 * 1024
ANSWER_BYTES_PER_PAIR = 4096
# Part of a call's time-out, so that a time-out says which of the two was slow: connecting or answering.
CONNECT_SECONDS = 5.0
CONNECT_SHARE = 0.9
# What the engine asks everybody to wait is waited for within a slice up to this share of the time that is left.
MAX_WAIT_FRACTION = 0.5


@dataclass(frozen=True)
class EvaluationContext:
    """What all calls of one invocation have in common; see `EvaluationBatch`."""

    invocation_id: str
    scheduled_for: str
    engine_scope: str
    dry_run: bool

    def body(self, users: Sequence[MentorScenarios]) -> bytes:
        """Returns the body of a call about these users, as the contract says."""
        return orjson.dumps(
            {
                "invocation_id": self.invocation_id,
                "scheduled_for": self.scheduled_for,
                "dry_run": self.dry_run,
                "evaluations": [
                    {
                        "user_id": user_id,
                        "scenario_types": scenario_types,
                        "idempotency_key_prefix": f"{self.engine_scope}:{user_id}",
                    }
                    for user_id, scenario_types, _ in users
                ],
            }
        )


class WaitRetryAfter(wait_base):
    """Waits as long as the engine asked, where it did, and else as `otherwise` says."""

    def __init__(self, otherwise: wait_base) -> None:
        self._otherwise = otherwise

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, EngineError) else None
        return self._otherwise(retry_state) if asked is None else asked


class EngineClient:
    """Asks the engine about users.

    Args:
        url: the engine's base URL.
        token: its bearer token.
        limiter: shared by all calls of this process.
        timeout_seconds: for one call, the whole answer included.
        max_attempts: calls that are tried before a transient failure is believed.
        telemetry: measures the calls; None: nothing does.
        sleep: waits between attempts; replaced in tests.
        connect: makes the HTTP client.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        limiter: AdaptiveLimiter,
        timeout_seconds: float,
        max_attempts: int,
        telemetry: Telemetry | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        connect: Connect = HttpClient,
    ) -> None:
        self._telemetry = telemetry
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "scenario-evaluation-scheduler",
        }
        connect_seconds = min(CONNECT_SECONDS, CONNECT_SHARE * timeout_seconds)
        self._client = connect(f"{url}/v1/evaluations", headers, connect_seconds=connect_seconds)
        self.limiter = limiter
        self._timeout_seconds = timeout_seconds
        self.max_attempts = max_attempts
        self._sleep = sleep
        self.answers = 0
        """Calls that the engine took or refused on their own account so far: two readings tell whether it is down."""
        self._canary: tuple[EvaluationContext, MentorScenarios] | None = None
        # On the time budgets' clock.
        self._not_before = -math.inf

    def retrying(self, deadline: Deadline, *, until_deadline: bool = False) -> AsyncRetrying:
        """The retry policy: exponential back-off with full jitter, Retry-After wins, never past the time budget.

        Args:
            deadline: the time budget.
            until_deadline: never before its end either.
        """
        enough = stop_never if until_deadline else stop_after_attempt(self.max_attempts)
        return AsyncRetrying(
            retry=retry_if_exception_type(EngineTransientError),
            wait=WaitRetryAfter(wait_random_exponential(multiplier=0.2, max=8)),
            stop=enough | stop_before_delay(deadline.remaining()),
            sleep=self._sleep,
            retry_error_callback=self._give_up,
        )

    def _give_up(self, state: RetryCallState) -> None:
        """Raises the last failure, which says whether it was too late for another attempt rather than one too many."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, EngineTransientError):
            error.deadline_exceeded = state.attempt_number < self.max_attempts
        if error is not None:
            raise error

    async def evaluate(
        self, context: EvaluationContext, users: Sequence[MentorScenarios], deadline: Deadline
    ) -> EngineResponse:
        """Asks about `users`, once, as soon as the engine is willing.

        Args:
            context: what all calls of the invocation have in common.
            users: whom to ask about.
            deadline: how long this may take.

        Returns:
            What the engine said of each pair that was asked for; pairs that it left out are missing.

        Raises:
            EngineTransientError: the call failed; worth repeating as `retrying` says.
            InvalidEngineRequestError: the engine will not take this call.
            EngineAccessError: the engine will not take any call.
            EngineUnavailableError: the engine asks everybody to wait for longer than this slice should.
            DeadlineExceededError: the time budget ended.
        """
        async with self.limiter.permit() as permit:
            if self._not_before > deadline.clock():
                await self._wait_until_allowed(deadline)
            measured = nullcontext() if self._telemetry is None else self._telemetry.engine_call(len(users))
            try:
                with measured as call:
                    answer = await self._send(context, users, deadline, call)
            except InvalidEngineRequestError:
                self.answers += 1
                self.suggest_canary(context, users[0])
                raise
            except EngineError as error:
                permit.overloaded = error.overloaded
                if error.is_global and error.retry_after is not None:
                    self._apply_retry_after(error.retry_after, error, deadline)
                raise
        self.answers += 1
        self._canary = (context, users[0])
        return answer

    async def _wait_until_allowed(self, deadline: Deadline) -> None:
        """Whoever was asked to wait, all do: the engine does not tell one call of ours from another."""
        while (pause := self._not_before - deadline.clock()) > 0:
            if pause >= deadline.remaining():
                raise DeadlineExceededError("the time budget ends before the engine wants to be asked again")
            await self._sleep(pause)

    def _apply_retry_after(self, seconds: float, error: EngineError, deadline: Deadline) -> None:
        remaining = deadline.remaining()
        self._not_before = max(self._not_before, deadline.clock() + min(seconds, remaining))
        if seconds > MAX_WAIT_FRACTION * remaining:
            # That is for the breaker to keep, which all workers share, and which knows when it is over.
            raise EngineUnavailableError(
                error.code, f"the engine asks everybody to wait: {error.message}", retry_after=seconds
            ) from error

    def suggest_canary(self, context: EvaluationContext, user: MentorScenarios) -> None:
        """Names somebody whom the engine answered in the past, for a process that has seen no answer yet."""
        if self._canary is None:
            self._canary = (context, user)

    async def canary_responds(self, deadline: Deadline) -> bool:
        """Whether the engine answers the user whom it answered last; False if none is known.

        A dry run, so that asking about her again can neither act nor change what was recorded.

        Args:
            deadline: how long this may take.

        Raises:
            EngineAccessError: the engine will not take any call.
            EngineUnavailableError: the engine asks everybody to wait for longer than this slice should.
            DeadlineExceededError: the time budget ended.
        """
        if self._canary is None:
            return False
        context, user = self._canary
        dry = replace(context, dry_run=True, engine_scope=f"dry:{context.invocation_id}")
        try:
            await self.evaluate(dry, [user], deadline)
        except EngineTransientError:
            return False
        except InvalidEngineRequestError:
            pass
        return True

    async def _send(
        self, context: EvaluationContext, users: Sequence[MentorScenarios], deadline: Deadline, call: EngineCall | None
    ) -> EngineResponse:
        remaining = deadline.remaining()
        if remaining <= 0:
            raise DeadlineExceededError("the time budget ended before the call")
        pairs = sum(len(user.scenario_types) for user in users)
        try:
            answer = await self._client.post(
                context.body(users),
                {"traceparent": traceparent() if call is None else call.traceparent},
                timeout_seconds=min(self._timeout_seconds, remaining),
                max_bytes=ANSWER_BYTES + ANSWER_BYTES_PER_PAIR * pairs,
            )
            if answer.status == 200 and answer.unreadable is not None:
                raise answer.unreadable
        except HttpTimeoutError as error:
            if remaining < self._timeout_seconds and not error.is_connecting:
                raise DeadlineExceededError("the time budget ended during the call") from error
            slow = str(error) if error.is_connecting else f"no answer within {self._timeout_seconds:g} s"
            raise EngineTransientError("engine_timeout", slow, overloaded=True) from error
        except HttpBodyError as error:
            raise EngineTransientError("engine_bad_answer", str(error)) from error
        except HttpError as error:
            raise EngineTransientError("engine_unreachable", str(error)) from error
        if call is not None:
            call.answered(answer.status)
        return read_response(answer, users)
