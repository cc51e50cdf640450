"""An engine within the process: a fixed answer for every pair, and the ways in which calls go wrong."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import httpx

from shared.concurrency import AdaptiveLimiter
from shared.deadline import Deadline
from shared.engine_client import EngineClient
from shared.engine_protocol import BATCH, EngineProtocol
from shared.evaluations import EvaluationBatch, MentorScenarios
from shared.post_client import Connect, HttpResponse, HttpTimeoutError
from tests.unit.clock import ManualClock
from tests.unit.fake_post_client import reply

ENGINE_TIMEOUT = 10
ATTEMPTS = 3


def client_of(
    connect: Connect, clock: ManualClock, *, protocol: EngineProtocol = BATCH, concurrency: int
) -> EngineClient:
    """The real client over an engine within the process."""
    return EngineClient(
        "https://engine.example.org",
        "token",
        protocol=protocol,
        limiter=AdaptiveLimiter(concurrency),
        timeout_seconds=ENGINE_TIMEOUT,
        max_attempts=ATTEMPTS,
        sleep=clock.sleep,
        connect=connect,
    )


ANSWERS = ("triggered", "not_triggered", "suppressed", "failed")

Trouble = Callable[[Sequence[str]], httpx.Response | None]


class Call(NamedTuple):
    """One call that reached the engine."""

    users: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    body: dict[str, Any]


def truth(user_id: str, scenario_type: str) -> str:
    """What the engine says of a pair whenever it answers: fixed, and different from user to user."""
    return ANSWERS[sum((user_id + scenario_type).encode()) % len(ANSWERS)]


class FakeEngine:
    """Stands where the HTTP client would be; a call that times out takes its time on the clock.

    Args:
        poison: the status with which every call that names the user fails, 0 for a time-out.
        retryable, left_out: in how many of its answers a pair is `failed`, retryable; or missing.
        trouble: asked first for each call; what it answers is the answer.
    """

    def __init__(
        self,
        clock: ManualClock,
        *,
        poison: Mapping[str, int] | None = None,
        retryable: Mapping[tuple[str, str], int] | None = None,
        left_out: Mapping[tuple[str, str], int] | None = None,
        trouble: Trouble = lambda _: None,
    ) -> None:
        self.clock = clock
        self._poison = poison or {}
        self._retryable = Counter(retryable or {})
        self._left_out = Counter(left_out or {})
        self._trouble = trouble
        self.calls: list[Call] = []

    def connect(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> FakeEngine:
        return self

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        body = json.loads(content)
        users = tuple(asked["user_id"] for asked in body["evaluations"])
        pairs = tuple((asked["user_id"], name) for asked in body["evaluations"] for name in asked["scenario_types"])
        self.calls.append(Call(users, pairs, body))
        await asyncio.sleep(0)
        if (answer := self._trouble(users)) is not None:
            return reply(answer.status_code, content=answer.content, headers=answer.headers)
        statuses = [self._poison[user] for user in users if user in self._poison]
        if 0 in statuses:
            self.clock.advance(timeout_seconds)
            raise HttpTimeoutError()
        if statuses:
            return reply(statuses[0])
        results = [self._result(pair) for pair in pairs if not self._uses_up(self._left_out, pair)]
        return reply(200, json_body={"results": results})

    def _result(self, pair: tuple[str, str]) -> dict[str, object]:
        outcome = truth(*pair)
        result: dict[str, object] = {"user_id": pair[0], "scenario_type": pair[1], "outcome": outcome}
        if self._uses_up(self._retryable, pair):
            return result | {"outcome": "failed", "error": {"code": "busy", "message": "busy", "retryable": True}}
        if outcome == "failed":
            return result | {"error": {"code": "no_device", "message": "no device"}}
        return result | ({"notification_id": f"n-{pair[0]}-{pair[1]}"} if outcome == "triggered" else {})

    def _uses_up(self, left: Counter[tuple[str, str]], pair: tuple[str, str]) -> bool:
        left[pair] -= 1
        return left[pair] >= 0

    def calls_with(self, user_id: str) -> list[Call]:
        return [call for call in self.calls if user_id in call.users]

    def client(self, *, concurrency: int = 8) -> EngineClient:
        return client_of(self.connect, self.clock, concurrency=concurrency)

    def deadline(self, seconds: float = 100_000) -> Deadline:
        return Deadline(seconds, self.clock)


def make_users(count: int, types: tuple[str, ...] = ("a", "b")) -> tuple[MentorScenarios, ...]:
    return tuple(MentorScenarios(f"user-{n:03}", types) for n in range(count))


def make_batch(users: Sequence[MentorScenarios], *, deliveries: int = 1, is_poison: bool = False) -> EvaluationBatch:
    return EvaluationBatch(
        invocation_id="invocation-1",
        batch_no=1,
        users=tuple(users),
        deliveries=deliveries,
        read_count=deliveries,
        engine_scope="slot:2026-11-23T02:00Z",
        scheduled_for="2026-11-23T02:00:00+00:00",
        dry_run=False,
        is_poison=is_poison,
    )
