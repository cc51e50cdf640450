"""What a process that has just started imports before it answers: no time is measured here, but what it is spent on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import pytest

from functions.invocation_routes import PREFIX
from tests.log_schema import check_lines
from tests.unit.environment import REQUIRED

IDLE = json.dumps(
    {"opened": False, "not_a_slot": False, "invocation": None, "open": [], "more_open": False}
    | {"witness": None, "alert_due": False}
).encode()
# FastAPI and what only it needs here; a fifth of a second and more.
FASTAPI = {"fastapi", "opentelemetry", "functions.api", "functions.contract"}
# What the clients of database and engine are made of. The first night must not pay for it: it is imported before
# the server forks and listens, so that a worker that is started anew shares it as well.
CLIENTS = {"supabase", "httpx", "tenacity", "functions.work", "functions.scheduled_run"}

# Traces and metrics; a tenth of a second more.
TELEMETRY = {"opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "shared.telemetry"}
# What only those need who are told of bad nights.
ALERTS = {"functions.alerting", "shared.alerts", "shared.alert_webhook"}

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


async def fresh_process(*requests: str, data_api: str = "http://127.0.0.1:9", **settings: str) -> Told:
    """What a new process answers, and what it has imported after its own import and after each request."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.unit.functions.fresh_process", *requests),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, **REQUIRED, "SUPABASE_URL": data_api, **settings},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    *logged, _ = output.decode().splitlines()
    check_lines(logged, "log")
    return [(status, set(modules)) for status, modules in json.loads(output.splitlines()[-1])]


async def test_to_say_that_it_is_up_takes_no_fastapi() -> None:
    (_, imported), (status, afterwards), (head_status, at_the_end) = await fresh_process("GET /health", "HEAD /health")
    assert (status, head_status) == (200, 200)
    for modules in (imported, afterwards, at_the_end):
        assert "functions.run_routes" in modules
        assert modules & FASTAPI == set()


async def test_what_a_night_needs_is_there_before_the_first_request() -> None:
    (_, imported), _ = await fresh_process("GET /health")
    assert imported >= CLIENTS


async def test_the_dashboards_page_takes_none_as_well() -> None:
    told = await fresh_process("GET /dashboard", "GET /dashboard/app.js")
    assert [status for status, _ in told] == [None, 200, 200]
    assert all(modules & FASTAPI == set() for _, modules in told)


async def test_to_start_a_night_takes_no_fastapi(idle_data_api: str) -> None:
    (_, before), (status, afterwards) = await fresh_process("POST /", data_api=idle_data_api)
    assert status == 200
    assert afterwards & FASTAPI == set()
    assert {module for module in afterwards - before if module.startswith(("functions.", "shared."))} == set()


async def test_no_client_is_made_over_the_stock_connection_pool(idle_data_api: str) -> None:
    """httpcore's goes through all of its connections for each request: at 256 in flight a call takes 11 ms of CPU."""
    _, (status, afterwards) = await fresh_process("POST /", data_api=idle_data_api)
    assert status == 200
    assert afterwards & {"httpcore"} == set()


async def test_to_be_asked_for_the_last_night_takes_no_fastapi() -> None:
    """Nobody answers in the place of this one's database."""
    _, (status, afterwards) = await fresh_process("GET /health/last-run")
    assert status == 503
    assert afterwards & FASTAPI == set()


async def test_a_caller_who_is_refused_takes_no_fastapi() -> None:
    _, (status, afterwards) = await fresh_process("PUT /health")
    assert status == 405
    assert afterwards & FASTAPI == set()


@pytest.mark.parametrize("request_", ["GET /openapi.json", "GET /docs", f"GET {PREFIX}/x", "GET /nowhere"])
async def test_whoever_asks_for_the_rest_gets_it_at_once(request_: str) -> None:
    _, (status, afterwards) = await fresh_process(request_)
    assert status == (404 if "nowhere" in request_ else 422 if "/x" in request_ else 200)
    assert afterwards >= FASTAPI


@pytest.mark.parametrize("request_", ["GET /health", "POST /", f"POST {PREFIX}", f"GET {PREFIX}/x"])
async def test_where_nobody_is_told_and_nothing_is_measured_neither_is_imported(
    idle_data_api: str, request_: str
) -> None:
    *_, (_, afterwards) = await fresh_process(request_, data_api=idle_data_api)
    assert afterwards & (TELEMETRY | ALERTS) == set()


async def test_a_collector_and_a_webhook_are_seen_to_when_there_is_work(idle_data_api: str) -> None:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "ALERT_WEBHOOK_URL": "http://127.0.0.1:9/hook",
    }
    (_, imported), (_, probed), (status, worked) = await fresh_process(
        "GET /health", "POST /", data_api=idle_data_api, **settings
    )
    assert status == 200
    assert (imported | probed) & TELEMETRY == set()
    assert worked >= TELEMETRY | {"shared.alert_webhook"}
