"""A caller that keeps to the engine contract, unless a test makes it not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid5

import httpx

from tests.scripted_engine import Pair, ScriptedEngine

TYPES = ("inactivity_30_days", "milestone_reached", "onboarding_incomplete")


def some_users(count: int) -> list[str]:
    return [str(uuid5(UUID(int=0), f"user {n}")) for n in range(count)]


class Caller:
    invocation_id = str(UUID(int=7))
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def __init__(self, engine: ScriptedEngine, token: str | None = None) -> None:
        self.headers = {
            "authorization": f"Bearer {token or engine.token}",
            "content-type": "application/json",
            "traceparent": self.traceparent,
        }
        # No test waits for this to pass: it makes one that hangs by mistake fail.
        self._client = httpx.AsyncClient(base_url=engine.url, timeout=30)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def call(
        self, users: Sequence[str], *, scope: str = "slot:2026-11-23T02:00Z", dry_run: bool = False
    ) -> httpx.Response:
        return await self.send_evaluations(
            [
                {"user_id": user, "scenario_types": list(TYPES), "idempotency_key_prefix": f"{scope}:{user}"}
                for user in users
            ],
            dry_run=dry_run,
        )

    async def send_evaluations(self, evaluations: list[dict[str, Any]], *, dry_run: bool = False) -> httpx.Response:
        call = {
            "invocation_id": self.invocation_id,
            "scheduled_for": "2026-11-23T02:00:00Z",
            "dry_run": dry_run,
            "evaluations": evaluations,
        }
        return await self.send(json.dumps(call).encode())

    async def send(self, body: bytes) -> httpx.Response:
        return await self._client.post("/v1/evaluations", content=body, headers=self.headers)

    def stream(self, users: Sequence[str]) -> Any:
        """The call as a stream, for answers that one cannot or should not read to the end."""
        call = {
            "dry_run": False,
            "evaluations": [
                {"user_id": user, "scenario_types": list(TYPES), "idempotency_key_prefix": f"s:{user}"}
                for user in users
            ],
        }
        return self._client.stream("POST", "/v1/evaluations", json=call, headers=self.headers)

    @staticmethod
    def outcomes(response: httpx.Response) -> dict[Pair, str]:
        assert response.status_code == 200, response.text
        return {(item["user_id"], item["scenario_type"]): item["outcome"] for item in response.json()["results"]}
