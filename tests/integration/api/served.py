"""The API as its callers have it: the function as deployed on the real stack, with mentors and an engine."""

from __future__ import annotations

import asyncio
import contextlib
import re
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

    async def send_raw(self, request: bytes, *, then_leave: bool = False) -> int | None:
        """Sends what a client library would refuse to send, over a connection of its own.

        Returns:
            The status of the answer; None: the connection was closed without one.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.function.port)
        received = b""
        try:
            # An answer may come, and the connection go, before the last byte was sent.
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                await writer.drain()
                if then_leave:
                    writer.write_eof()
            with contextlib.suppress(ConnectionError):
                while chunk := await asyncio.wait_for(reader.read(65536), 60):
                    received += chunk
        finally:
            writer.close()
        assert b"Traceback" not in received
        return status_of(received)

    def defects(self) -> list[dict[str, Any]]:
        """What the function calls an error in its log. A line that is no JSON object fails the test."""
        lines = self.night.log_lines(self.function)
        return [line for line in lines if line["severity"] not in ("DEBUG", "INFO", "WARNING")]


def status_of(answer: bytes) -> int | None:
    """The status of the first final answer; None if there is none."""
    found = re.search(rb"^HTTP/1\.1 ([2-5]\d\d) ", answer, re.MULTILINE)
    return int(found[1]) if found else None
