"""The API as its callers have it: the function as deployed on the real stack, with mentors and an engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.emulator.function import FunctionProcess
from tests.emulator.project import Project
from tests.integration.nightly.night import Night, night

API = "/api/v1/scheduler-invocations"


class Served:
    """The running function, and ways to call it."""

    def __init__(self, prepared: Night, function: FunctionProcess) -> None:
        self.night = prepared
        self.function = function

    @property
    def project(self) -> Project:
        return self.night.project

    async def call(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """One request with the admin token, or with another one; "" sends none. Checks what a cache is allowed."""
        token = self.project.admin_token if token is None else token
        headers = httpx.Headers(options.pop("headers", None), encoding="latin-1")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answer = await self.night.http.request(method, f"{self.function.url}{path}", headers=headers, **options)
        if path.startswith(API):
            assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == (
                "no-store",
                "nosniff",
            )
        return answer

    async def open_run(self, request: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Opens a run, and returns its invocation."""
        answer = await self.call("POST", API, json=request or {}, **options)
        assert answer.status_code in (201, 202), answer.text
        invocation: dict[str, Any] = answer.json()
        return invocation

    async def send_raw(self, request: bytes, *, then_leave: bool = False) -> bytes:
        """Sends these bytes over a connection of their own, and returns all that comes back until it is closed.

        Args:
            request: what a client library would refuse to send.
            then_leave: say that nothing more will be sent.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.function.port)
        try:
            # An answer may come, and the connection go, before the last byte was sent.
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                await writer.drain()
                if then_leave:
                    writer.write_eof()
            return await asyncio.wait_for(_read_all(reader), 60)
        finally:
            writer.close()

    def log_lines(self) -> list[dict[str, Any]]:
        """What the function logged, each line parsed: a line that is no JSON object fails the test."""
        return self.night.log_lines(self.function)

    def defects(self) -> list[dict[str, Any]]:
        """What the function calls an error in its log."""
        return [line for line in self.log_lines() if line["severity"] not in ("DEBUG", "INFO", "WARNING")]


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            received += chunk
    return bytes(received)


@contextlib.asynccontextmanager
async def served_by(project: Project, http: httpx.AsyncClient, **env: str) -> AsyncIterator[Served]:
    """The function on a project with twelve mentors and a slot that is due.

    Args:
        project: where.
        http: what calls are made with.
        env: settings beside the usual ones.
    """
    async with night(project, http) as prepared:
        await prepared.add_mentors(12)
        yield Served(prepared, await prepared.start_function(env))
