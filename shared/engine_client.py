"""The scenario trigger engine's HTTP client: one call, and the policy for repeating it.

The contract is docs/engine-contract.md; answers are bounded in size and time, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from tenacity.stop import stop_after_attempt, stop_before_delay, stop_never

from shared.concurrency import AdaptiveLimiter
from shared.deadline import Deadline
from shared.engine_health import EngineHealth
from shared.engine_protocol import BATCH, EngineProtocol, EvaluationContext
from shared.engine_response import CHECK_ACCESS, EngineResponse
from shared.errors import (
    DeadlineExceededError,
    EngineAccessError,
    EngineError,
    EngineOutcomeUnknownError,
    EngineTransientError,
    EngineUnavailableError,
    InvalidEngineRequestError,
)
from shared.evaluations import MentorScenarios
from shared.http_client import HttpClient
from shared.logs import traceparent
from shared.post_client import Connect, HttpBodyError, HttpError, HttpResponse, HttpTimeoutError

if TYPE_CHECKING:
    from shared.telemetry import EngineCall, Telemetry

# JSON takes up to thirty times its length in memory while it is read, and many answers may be read at a time. Any error
# page fits the first, any honest result the second.
ANSWER_BYTES = 1024 * 1024
ANSWER_BYTES_PER_PAIR = 4096
# Part of a call's time-out, so that a time-out says which of the two was slow: connecting or answering.
CONNECT_SECONDS = 5.0
CONNECT_SHARE = 0.9
# A Retry-After for all calls is waited for within a slice up to this share of the time that is left.
MAX_WAIT_FRACTION = 0.5
BACK_OFF = wait_random_exponential(multiplier=0.2, max=8)


def wait_before_retry(state: RetryCallState) -> float:
    """Returns the engine's Retry-After where there is one, and otherwise the pause of `BACK_OFF`, in seconds."""
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.retry_after if isinstance(error, EngineError) else None
    return BACK_OFF(state) if retry_after is None else retry_after


def _give_up(max_attempts: int, state: RetryCallState) -> None:
    """Raises the last failure, and marks whether the deadline ended the attempts rather than their maximum."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, EngineTransientError):  # nothing else is retried
        error.deadline_exceeded = state.attempt_number < max_attempts
        raise error


def _without_token(answer: HttpResponse, spellings: Iterable[bytes]) -> HttpResponse:
    """Removes the token from the body of a refusal: some gateways quote the header, and an excerpt is stored."""
    if answer.status < 300:
        return answer
    content = answer.content
    for spelling in spellings:
        content = content.replace(spelling, b"[token]")
    return answer._replace(content=content)


class EngineClient:
    """Evaluates users by calls to the engine; `timeout_seconds` is for one call, the whole answer included."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        protocol: EngineProtocol = BATCH,
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
        self._client = connect(url + protocol.path, headers, connect_seconds=connect_seconds)
        spellings = {token, json.dumps(token)[1:-1]}
        spellings |= {spelling.replace("/", r"\/") for spelling in spellings}
        self._token_spellings = sorted((spelling.encode() for spelling in spellings), key=len, reverse=True)
        self.protocol = protocol
        self.limiter = limiter
        self.timeout_seconds = timeout_seconds
        self.max_attempts = max_attempts
        self._sleep = sleep
        self.health = EngineHealth()
        self._canary: tuple[EvaluationContext, MentorScenarios] | None = None
        self._not_before = -math.inf  # on the time budgets' clock

    def retrying(self, deadline: Deadline, *, until_deadline: bool = False) -> AsyncRetrying:
        """Returns the retry policy: back-off with full jitter, Retry-After wins; with `until_deadline` no maximum."""
        enough = stop_never if until_deadline else stop_after_attempt(self.max_attempts)
        return AsyncRetrying(
            retry=retry_if_exception_type(EngineTransientError),
            wait=wait_before_retry,
            stop=enough | stop_before_delay(deadline.remaining()),
            sleep=self._sleep,
            retry_error_callback=partial(_give_up, self.max_attempts),
        )

    async def repeat(
        self, first: EngineTransientError, call: Callable[[], Awaitable[EngineResponse]], deadline: Deadline
    ) -> EngineResponse:
        """Repeats a call as `retrying` says, with the failure of its first attempt counted."""
        failures = [first]

        async def attempt() -> EngineResponse:
            if failures:
                raise failures.pop()
            return await call()

        return await self.retrying(deadline)(attempt)

    def may_repeat(self, *, dry_run: bool) -> bool:
        """Returns whether a call that may have reached the engine may be made again."""
        return self.protocol.idempotency or dry_run

    async def evaluate(
        self,
        context: EvaluationContext,
        users: Sequence[MentorScenarios],
        deadline: Deadline,
        *,
        before_sending: Callable[[], None] = lambda: None,
    ) -> EngineResponse:
        """Makes one call about `users`, at the deadline's pace and after any Retry-After that this process was given.

        `before_sending`: called when only the call itself is left to be done; what it raises prevents the call.

        Raises:
            EngineTransientError: the call failed; worth repeating as `retrying` says.
            EngineOutcomeUnknownError: the call failed, and must not be repeated.
            InvalidEngineRequestError: the engine refuses this call.
            EngineAccessError: the engine refuses every call.
            EngineUnavailableError: the engine's Retry-After for all calls is longer than this slice should wait.
            DeadlineExceededError: the time budget ended.
        """
        async with self.limiter.permit() as permit:
            pace = deadline.pace
            while max(self._not_before, pace.next_at) > deadline.clock():  # another call may be given a Retry-After
                await deadline.wait_for_turn(self._not_before, self._sleep)
            before_sending()
            pace.next_at = deadline.clock() + pace.seconds
            measured = nullcontext() if self._telemetry is None else self._telemetry.engine_call(len(users))
            try:
                with measured as call:
                    answer = await self._send(context, users, deadline, call)
            except InvalidEngineRequestError:
                self.health.note_answer(deadline)
                self.suggest_canary(context, users[0])
                raise
            except EngineTransientError as error:
                permit.overloaded = error.overloaded
                if error.is_global and error.retry_after is not None:
                    self._apply_retry_after(error.retry_after, error, deadline)
                if error.may_have_acted and not self.may_repeat(dry_run=context.dry_run):
                    raise EngineOutcomeUnknownError(error) from error
                raise
            except EngineAccessError as error:
                is_about_pair = self.protocol.is_single and error.code == "engine_http_404"
                if is_about_pair and self.health.answers_others(users[0].user_id, deadline):
                    raise InvalidEngineRequestError(error.code, error.message.removesuffix(CHECK_ACCESS)) from error
                raise
        self.health.note_answer(deadline)
        self._canary = (context, users[0])
        return answer

    def _apply_retry_after(self, seconds: float, error: EngineError, deadline: Deadline) -> None:
        remaining = deadline.remaining()
        self._not_before = max(self._not_before, deadline.clock() + min(seconds, remaining))
        if seconds > MAX_WAIT_FRACTION * remaining:
            # Left to the circuit breaker, which all workers share.
            message = f"the engine requests a pause: {error.message}"
            raise EngineUnavailableError(error.code, message, retry_after=seconds) from error

    def suggest_canary(self, context: EvaluationContext, user: MentorScenarios) -> None:
        """Sets the canary of a process that has seen no answer yet."""
        if self._canary is None:
            self._canary = (context, user)

    @property
    def has_canary(self) -> bool:
        """Returns whether a user is known whose dry run shows whether the engine answers."""
        return self.protocol.dry_run and self._canary is not None

    async def require_others(self, error: EngineTransientError, failing: MentorScenarios, deadline: Deadline) -> None:
        """Returns if the engine answers others than the failing user: poison, not an outage; otherwise it is down.

        Raises:
            EngineUnavailableError: it is down.
            EngineAccessError, DeadlineExceededError: met by the canary.
        """
        if error.is_global or not await self.canary_responds(failing, deadline):
            raise EngineUnavailableError(
                error.code, f"the engine answers no call: {error.message}", retry_after=error.retry_after
            ) from error

    async def canary_responds(self, failing: MentorScenarios, deadline: Deadline) -> bool:
        """Returns whether the engine answers a dry run of the canary, the user that it answered last, if there is one.

        Where it supports no dry run, its other answers have to show whether only `failing` fails. Raises what
        `evaluate` raises about all calls, and `DeadlineExceededError`.
        """
        if not self.protocol.dry_run:
            return self.health.answers_others(failing.user_id, deadline)
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
        body, headers = self.protocol.request(context, users)
        headers["traceparent"] = traceparent() if call is None else call.traceparent
        try:
            answer = await self._client.post(
                body,
                headers,
                timeout_seconds=min(self.timeout_seconds, remaining),
                max_bytes=ANSWER_BYTES + ANSWER_BYTES_PER_PAIR * pairs,
            )
            if call is not None:
                call.answered(answer.status)
            return self.protocol.read(_without_token(answer, self._token_spellings), context, users)
        except HttpTimeoutError as error:
            is_sent = not error.is_connecting
            if is_sent and remaining < self.timeout_seconds:
                late = "the time budget ended during the call"
                if self.may_repeat(dry_run=context.dry_run):
                    raise DeadlineExceededError(late) from error
                raise EngineTransientError("time_budget_exceeded", late) from error
            slow = f"no answer within {self.timeout_seconds:g} s" if is_sent else str(error)
            raise EngineTransientError("engine_timeout", slow, overloaded=True, may_have_acted=is_sent) from error
        except HttpBodyError as error:
            raise EngineTransientError("engine_bad_answer", str(error)) from error
        except HttpError as error:
            raise EngineTransientError(
                "engine_unreachable", str(error), may_have_acted=not error.is_connecting
            ) from error
