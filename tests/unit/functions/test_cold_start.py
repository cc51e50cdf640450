"""What a process that has just started imports before it answers: no time is measured here, but what it is spent on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import pytest

from functions.invocation_routes import PREFIX
from tests.unit.environment import REQUIRED

IDLE = json.dumps({"opened": False, "not_a_slot": False, "invocation": None, "open": [], "witness": None}).encode()
# FastAPI and what only it needs here; a fifth of a second and more.
FASTAPI = {"fastapi", "opentelemetry", "functions.api", "functions.contract"}
# What the clients of the database and the engine are made of; a tenth of a second.
CLIENTS = {"pydantic", "pydantic_core", "postgrest", "yarl", "httpx", "tenacity", "functions.work"}

Told = list[tuple[int | None, set[str]]]


@pytest.fixture
async def idle_data_api() -> AsyncIterator[str]:
    """The URL of a Data API in which nothing is due and nothing open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + IDLE)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def fresh_process(*requests: str, data_api: str = "http://127.0.0.1:9") -> Told:
    """What a new process answers, and what it has imported after its own import and after each request."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.unit.functions.fresh_process", *requests),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, **REQUIRED, "SUPABASE_URL": data_api},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return [(status, set(modules)) for status, modules in json.loads(output.splitlines()[-1])]


async def test_to_say_that_it_is_up_takes_neither_fastapi_nor_the_clients() -> None:
    (_, imported), (status, afterwards), (head_status, at_the_end) = await fresh_process("GET /health", "HEAD /health")
    assert (status, head_status) == (200, 200)
    for modules in (imported, afterwards, at_the_end):
        assert "functions.run_routes" in modules
        assert modules & (FASTAPI | CLIENTS) == set()


async def test_the_dashboards_page_takes_neither_as_well() -> None:
    told = await fresh_process("GET /dashboard", "GET /dashboard/app.js")
    assert [status for status, _ in told] == [None, 200, 200]
    assert all(modules & (FASTAPI | CLIENTS) == set() for _, modules in told)


async def test_to_start_a_night_takes_no_fastapi(idle_data_api: str) -> None:
    _, (status, afterwards) = await fresh_process("POST /", data_api=idle_data_api)
    assert status == 200
    assert "functions.scheduled_run" in afterwards
    assert afterwards & FASTAPI == set()


async def test_to_be_asked_for_the_last_night_takes_no_fastapi() -> None:
    """Nobody answers in the place of this one's database."""
    _, (status, afterwards) = await fresh_process("GET /health/last-run")
    assert status == 503
    assert afterwards & FASTAPI == set()


async def test_a_caller_who_is_refused_takes_no_fastapi() -> None:
    _, (status, afterwards) = await fresh_process("PUT /health")
    assert status == 405
    assert afterwards & (FASTAPI | CLIENTS) == set()


@pytest.mark.parametrize("request_", ["GET /openapi.json", "GET /docs", f"GET {PREFIX}/x", "GET /nowhere"])
async def test_whoever_asks_for_the_rest_gets_it_at_once(request_: str) -> None:
    _, (status, afterwards) = await fresh_process(request_)
    assert status == (404 if "nowhere" in request_ else 422 if "/x" in request_ else 200)
    assert afterwards >= FASTAPI
