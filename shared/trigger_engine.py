"""The scenario trigger engine's HTTP client: one call, its retry policy, and a careful reader of its answers.

The contract is docs/engine-contract.md. Nothing an engine sends is trusted: answers are bounded in size and time,
redirects are not followed, and what was not asked for is dropped.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, cast

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_base, wait_random_exponential

from shared.errors import (
    EngineError,
    EngineRefusedCallError,
    EngineRejectedError,
    EngineTransientError,
    OutOfTimeError,
)
from shared.evaluations import MentorScenarios, Outcome
from shared.http_transport import ResponseTooLargeError
from shared.load_control import ConcurrencyLimiter
from shared.observability import log_event, traceparent
from shared.time_budget import TimeBudget

OUTCOMES = frozenset({"triggered", "not_triggered", "suppressed", "failed"})
REJECTED_STATUSES = frozenset({401, 403, 404})
TRANSIENT_STATUSES = frozenset({408, 429})
OVERLOAD_STATUSES = frozenset({429, 503})
MAX_ERROR_LENGTH = 300
# A mistake in a header must not put a programme to sleep for a day.
MAX_RETRY_AFTER_SECONDS = 3600.0

_SECONDS = re.compile(r"[0-9]{1,18}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_EMAIL = re.compile(r"[^\s@<>,;:]+@[^\s@<>,;:]+")
_NOT_A_CODE = re.compile(r"[^a-z0-9_.-]+")


class Item(NamedTuple):
    """The engine's answer for one pair."""

    outcome: Outcome
    notification_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    retryable: bool = False


Answer = dict[tuple[str, str], Item]


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """What all calls of one invocation have in common; see `EvaluationBatch`."""

    invocation_id: str
    scheduled_for: str
    engine_scope: str
    dry_run: bool


class WaitRetryAfter(wait_base):
    """Waits as long as the engine asked, where it did, and else as `otherwise` says."""

    def __init__(self, otherwise: wait_base) -> None:
        self._otherwise = otherwise

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, EngineError) else None
        return self._otherwise(retry_state) if asked is None else asked


class TriggerEngine:
    """Asks the engine about users.

    Args:
        url: the engine's base URL.
        token: its bearer token.
        transport: sends the requests; any httpx transport.
        limiter: shared by all calls of this process.
        timeout_seconds: for one call, the whole answer included.
        max_attempts: calls that are tried before a transient failure is believed.
        sleep: waits between attempts; replaced in tests.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        transport: httpx.AsyncBaseTransport,
        limiter: ConcurrencyLimiter,
        timeout_seconds: float,
        max_attempts: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = httpx.URL(f"{url}/v1/evaluations")
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "scenario-evaluation-scheduler",
        }
        self._transport = transport
        self._limiter = limiter
        self._timeout_seconds = timeout_seconds
        self._max_attempts = max_attempts
        self._sleep = sleep
        self.answers = 0
        """Calls that the engine took or refused on their own account so far: two readings tell whether it is down."""
        self._witness: tuple[EvaluationContext, MentorScenarios] | None = None

    def retrying(self, budget: TimeBudget) -> AsyncRetrying:
        """The retry policy: exponential back-off with full jitter, Retry-After wins, never past the time budget."""
        return AsyncRetrying(
            retry=retry_if_exception_type(EngineTransientError),
            wait=WaitRetryAfter(wait_random_exponential(multiplier=0.2, max=8)),
            stop=stop_after_attempt(self._max_attempts) | stop_before_delay(budget.remaining()),
            sleep=self._sleep,
            reraise=True,
        )

    async def evaluate(
        self, context: EvaluationContext, users: Sequence[MentorScenarios], budget: TimeBudget
    ) -> Answer:
        """Asks about `users`, once.

        Returns:
            What the engine said of each pair that was asked for; pairs that it left out are missing.

        Raises:
            EngineTransientError: the call failed; worth repeating as `retrying` says.
            EngineRefusedCallError: the engine will not take this call.
            EngineRejectedError: the engine will not take any call.
            OutOfTimeError: the time budget ended.
        """
        async with self._limiter.permit() as permit:
            try:
                answer = await self._send(context, users, budget)
            except EngineRefusedCallError:
                self.answers += 1
                self.suggest_witness(context, users[0])
                raise
            except EngineError as error:
                permit.overloaded = error.overloaded
                raise
        self.answers += 1
        self._witness = (context, users[0])
        return answer

    def suggest_witness(self, context: EvaluationContext, user: MentorScenarios) -> None:
        """Names somebody whom the engine answered in the past, for a process that has seen no answer yet."""
        if self._witness is None:
            self._witness = (context, user)

    async def still_answers_its_witness(self, budget: TimeBudget) -> bool:
        """Whether the engine answers the user whom it answered last; False if none is known.

        A dry run, so that asking about her again can neither act nor change what was recorded.

        Raises:
            EngineRejectedError: the engine will not take any call.
            OutOfTimeError: the time budget ended.
        """
        if self._witness is None:
            return False
        context, user = self._witness
        dry = replace(context, dry_run=True, engine_scope=f"dry:{context.invocation_id}")
        try:
            await self.evaluate(dry, [user], budget)
        except EngineTransientError:
            return False
        except EngineRefusedCallError:
            return True
        return True

    async def _send(self, context: EvaluationContext, users: Sequence[MentorScenarios], budget: TimeBudget) -> Answer:
        remaining = budget.remaining()
        if remaining <= 0:
            raise OutOfTimeError("the time budget ended before the call")
        request = httpx.Request(
            "POST",
            self._url,
            headers={**self._headers, "traceparent": traceparent()},
            content=_body(context, users),
            extensions={"timeout": httpx.Timeout(min(self._timeout_seconds, remaining)).as_dict()},
        )
        try:
            response = await self._transport.handle_async_request(request)
            await response.aread()
        except httpx.TimeoutException as error:
            if remaining < self._timeout_seconds:
                raise OutOfTimeError("the time budget ended during the call") from error
            raise EngineTransientError(
                "engine_timeout", f"no answer within {self._timeout_seconds:g} s", overloaded=True
            ) from error
        except ResponseTooLargeError as error:
            raise EngineTransientError("engine_bad_answer", "the answer is longer than this client reads") from error
        except httpx.TransportError as error:
            raise EngineTransientError("engine_unreachable", type(error).__name__) from error
        return _read(response, users)


def _body(context: EvaluationContext, users: Sequence[MentorScenarios]) -> bytes:
    scope = context.engine_scope
    return json.dumps(
        {
            "invocation_id": context.invocation_id,
            "scheduled_for": context.scheduled_for,
            "dry_run": context.dry_run,
            "evaluations": [
                {"user_id": user_id, "scenario_types": types, "idempotency_key_prefix": f"{scope}:{user_id}"}
                for user_id, types in users
            ],
        },
        separators=(",", ":"),
    ).encode()


def _read(response: httpx.Response, users: Sequence[MentorScenarios]) -> Answer:
    status = response.status_code
    if status == 200:
        return _read_results(response.content, users)
    code = f"engine_http_{status}"
    if status in TRANSIENT_STATUSES or status >= 500:
        raise EngineTransientError(
            code,
            f"the engine answered {status}",
            retry_after=_retry_after(response.headers.get("Retry-After")),
            overloaded=status in OVERLOAD_STATUSES,
        )
    if status in REJECTED_STATUSES or 300 <= status < 400:
        raise EngineRejectedError(code, f"the engine answered {status}: check its URL and token")
    if status >= 400:
        raise EngineRefusedCallError(code, f"the engine answered {status}")
    raise EngineTransientError("engine_bad_answer", f"expected status 200, found {status}")


def _retry_after(value: str | None) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3); None where it makes no sense."""
    if not value:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(value)
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)


def _read_results(content: bytes, users: Sequence[MentorScenarios]) -> Answer:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EngineTransientError("engine_bad_answer", f"expected JSON: {type(error).__name__}") from error
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise EngineTransientError("engine_bad_answer", "expected an object with a list of results")
    asked = {(user_id, scenario_type) for user_id, types in users for scenario_type in types}
    answer: Answer = {}
    dropped = 0
    for result in results:
        pair = _pair_of(result)
        item = _item_of(result) if pair in asked and pair not in answer else None
        if pair is None or item is None:
            dropped += 1
        else:
            answer[pair] = item
    if dropped:
        log_event(
            "engine_results_dropped", "The engine sent results that nobody asked for or can read", dropped=dropped
        )
    return answer


def _pair_of(result: object) -> tuple[str, str] | None:
    if not isinstance(result, dict):
        return None
    user_id, scenario_type = result.get("user_id"), result.get("scenario_type")
    return (user_id, scenario_type) if isinstance(user_id, str) and isinstance(scenario_type, str) else None


def _item_of(result: dict[str, Any]) -> Item | None:
    outcome = result.get("outcome")
    if not isinstance(outcome, str) or outcome not in OUTCOMES:
        return None
    if outcome != "failed":
        notification_id = result.get("notification_id")
        return Item(
            cast("Outcome", outcome),
            notification_id=harmless(str(notification_id)) if isinstance(notification_id, str | int) else None,
        )
    error = result.get("error")
    error = error if isinstance(error, dict) else {}
    code, message = error.get("code"), error.get("message")
    return Item(
        "failed",
        error_code=_NOT_A_CODE.sub("_", _EMAIL.sub("address", code.lower()))[:64]
        if isinstance(code, str) and code
        else "engine_failed",
        error_message=harmless(message) if isinstance(message, str) else None,
        retryable=error.get("retryable") is True,
    )


def harmless(text: str) -> str:
    """Foreign text, fit to be stored and shown: one line, valid UTF-8, bounded, without e-mail addresses."""
    text = text[: 4 * MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
    return _EMAIL.sub("[address]", _CONTROL.sub(" ", text))[:MAX_ERROR_LENGTH]
