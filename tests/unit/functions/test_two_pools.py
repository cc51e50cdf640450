"""The Data API's connections: a slice has its own, and callers of the REST API share a few others."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from functions.peer_mentors import PAGE_SIZE
from functions.work import build_work
from shared.database import READER_CONNECTIONS, SLICE_CONNECTIONS
from tests.unit.clock import ManualClock
from tests.unit.environment import make_config
from tests.unit.functions.http_function import Function
from tests.unit.functions.pretend_engine import PretendEngine
from tests.unit.functions.pretend_sql import RUN_ID, mentor_row, opened_now
from tests.unit.log_lines import LogLines
from tests.unit.shared.scripted_server import serving

READS = {f"scheduler_{name}" for name in ("list", "open", "active_mentors", "get", "update", "delete")}
# Of this test, if a slice waits for readers that are never answered.
PATIENCE_SECONDS = 30


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "", {}),
        ("GET", "/active-peer-mentors", None),
        ("POST", "/evaluation-batch", {"user_ids": [RUN_ID], "dry_run": True}),
        ("GET", f"/{RUN_ID}", None),
        ("PUT", f"/{RUN_ID}", {"note": "n"}),
        ("DELETE", f"/{RUN_ID}", None),
    ],
)
async def test_a_slice_goes_through_while_no_reader_is_answered(
    log: LogLines, method: str, path: str, body: object
) -> None:
    function = Function(rows=[mentor_row(number, "established") for number in range(3)])
    function.sql.answers["scheduler_open_slot"] = opened_now()
    held = asyncio.Semaphore(0)

    async def data_api(request: bytes, writer: asyncio.StreamWriter) -> None:
        head, _, content = request.partition(b"\r\n\r\n")
        name = head.split()[1].decode().rpartition("/")[2]
        arguments = {name.removeprefix("p_"): value for name, value in json.loads(content).items()}
        if name in READS or arguments.get("rows", PAGE_SIZE) < PAGE_SIZE:
            held.release()
            await asyncio.Event().wait()
        answer = json.dumps(await function.sql.database.call(name, **arguments)).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        )

    async with serving(data_api) as server:
        work = build_work(make_config(SUPABASE_URL=server.url, ALERT_WEBHOOK_URL="https://hooks.example.org/alerts"))
        function.work = replace(work, engine=PretendEngine(ManualClock()).client())
        asked = [function.ask(method, path, body=body) for _ in range(2 * (SLICE_CONNECTIONS + READER_CONNECTIONS))]
        readers = [asyncio.create_task(request) for request in asked]
        for _ in range(READER_CONNECTIONS):
            await held.acquire()
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await function.start()
        assert not any(reader.done() for reader in readers)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    assert answer.status_code == 202
    steps = ("active_mentors_page", "enqueue", "complete", "hand_back", "claim_alert")
    assert {f"scheduler_{step}" for step in steps} <= {*function.sql.called()}
