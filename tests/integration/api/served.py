"""The API as its callers have it: the function as deployed on the real stack, with mentors and an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.emulator.function import FunctionProcess
from tests.integration.nightly.night import Night

API = "/api/v1/scheduler-invocations"
ONE_MIB = 1024 * 1024


@dataclass
class Served:
    """The running function, and ways to call it."""

    night: Night
    function: FunctionProcess

    async def call(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """One request with the admin token, or with another one; "" sends none. Checks what a cache is allowed."""
        token = self.night.project.admin_token if token is None else token
        headers = httpx.Headers(options.pop("headers", None), encoding="latin-1")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answer = await self.night.http.request(method, f"{self.function.url}{path}", headers=headers, **options)
        if path.startswith(API):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
        return answer

    async def open_run(self, request: dict[str, Any] | None = None, **options: Any) -> str:
        """Opens a run, and returns its id."""
        answer = await self.call("POST", API, json=request or {}, **options)
        assert answer.status_code in (201, 202), answer.text
        return str(answer.json()["id"])

    def defects(self) -> list[dict[str, Any]]:
        """What the function calls an error in its log. A line that is no JSON object fails the test."""
        lines = self.night.log_lines(self.function)
        return [line for line in lines if line["severity"] not in ("DEBUG", "INFO", "WARNING")]
