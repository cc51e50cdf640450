"""A caller of the API, with the admin token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from tests.emulator.function import FunctionProcess
from tests.integration.scheduled_runs.harness import Harness, Pair

PATH = "/api/v1/scheduler-invocations"

Json = dict[str, Any]


class Caller:
    def __init__(self, harness: Harness, function: FunctionProcess) -> None:
        self._harness = harness
        self.function = function

    async def call(
        self, method: str, path: str, *, token: str | None = None, headers: Any = None, **options: Any
    ) -> httpx.Response:
        """One request with the admin token, or with another one; "" sends none. Checks what a cache is allowed."""
        sent = httpx.Headers(headers, encoding="latin-1")
        if token != "":
            sent["Authorization"] = f"Bearer {token or self._harness.project.admin_token}"
        answer = await self._harness.http.request(method, f"{self.function.url}{path}", headers=sent, **options)
        if path.startswith("/api/"):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
        return answer

    async def send(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        return await self.call(method, f"{PATH}{path}", **options)

    async def ask(self, body: object = None, *, key: str | None = None, prefer: str | None = None) -> httpx.Response:
        headers = {name: value for name, value in (("Idempotency-Key", key), ("Prefer", prefer)) if value}
        return await self.send("POST", headers=headers, json={} if body is None else body)

    async def run(self, body: object = None) -> Json:
        """A run that this call opens and works on: as it is afterwards."""
        answer = await self.ask(body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def see(self, invocation_id: str) -> Json:
        return await self._read(f"/{invocation_id}")

    async def cancel(self, invocation_id: str) -> httpx.Response:
        return await self.send("PUT", f"/{invocation_id}", json={"status": "cancelled"})

    async def delete(self, invocation_id: str) -> httpx.Response:
        return await self.send("DELETE", f"/{invocation_id}")

    async def page(self, path: str = "", **query: Any) -> Json:
        return await self._read(path, params=query)

    async def _read(self, path: str, **options: Any) -> Json:
        answer = await self.send("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def history(self, user_id: str) -> dict[str, dict[str, str | None]]:
        """What came of one mentor: outcome by scenario type, by invocation."""
        return {
            item["id"]: {result["scenario_type"]: result["outcome"] for result in item["results"]}
            for item in (await self.page(user_id=user_id, limit=100))["data"]
        }


async def a_caller(harness: Harness, env: Mapping[str, str] | None = None, **options: Any) -> Caller:
    return Caller(harness, await harness.start_function(env, **options))


def asked_since(harness: Harness, call: int) -> list[Pair]:
    """Pairs that the engine was asked about after this many calls."""
    return [pair for record in harness.engine.calls[call:] for pair in record.pairs]


def keys_since(harness: Harness, call: int) -> set[str]:
    """Keys that the engine saw after this many calls."""
    return {key for record in harness.engine.calls[call:] for key in record.keys}


async def let_no_slot_be_due(harness: Harness) -> None:
    """As after a run: a slice finds only what was asked for."""
    await harness.execute(
        b"update scheduler.settings set slot_high_water_mark = now(), next_due_at = now() + interval '1 day'"
    )
