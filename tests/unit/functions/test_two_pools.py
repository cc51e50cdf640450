"""The Data API's connections: a slice has its own, and those who call the REST API share a few others."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx
import pytest
from pydantic import SecretStr

from functions.http.app import create_app
from functions.http.invocations import PREFIX
from functions.peer_mentors import PAGE_SIZE
from functions.work import build_work
from shared.auth import TokenCheck
from shared.database import READER_CONNECTIONS, SLICE_CONNECTIONS
from tests.unit.clock import ManualClock
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN, make_config
from tests.unit.functions.http_function import ADMIN, INVOKE
from tests.unit.functions.pretend_engine import PretendEngine
from tests.unit.functions.pretend_sql import RUN_ID, PretendSql, mentor_row, opened_now
from tests.unit.log_lines import LogLines
from tests.unit.shared.scripted_server import serving

READS = {
    "scheduler_list",
    "scheduler_open",
    "scheduler_active_mentors",
    "scheduler_get",
    "scheduler_update",
    "scheduler_delete",
}
READERS = 2 * (SLICE_CONNECTIONS + READER_CONNECTIONS)
# Of this test, if a slice waits for readers who are never answered.
PATIENCE_SECONDS = 30


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", PREFIX, None),
        ("POST", PREFIX, {}),
        ("GET", f"{PREFIX}/active-peer-mentors", None),
        ("POST", f"{PREFIX}/evaluation-batch", {"user_ids": [RUN_ID], "dry_run": True}),
        ("GET", f"{PREFIX}/{RUN_ID}", None),
        ("PUT", f"{PREFIX}/{RUN_ID}", {"note": "n"}),
        ("DELETE", f"{PREFIX}/{RUN_ID}", None),
    ],
)
async def test_a_slice_goes_through_while_no_reader_is_answered(
    log: LogLines, method: str, path: str, body: object
) -> None:
    sql = PretendSql([mentor_row(number, "established") for number in range(3)])
    sql.answers["scheduler_open_slot"] = opened_now()
    held = asyncio.Semaphore(0)

    async def data_api(request: bytes, writer: asyncio.StreamWriter) -> None:
        head, _, content = request.partition(b"\r\n\r\n")
        name = head.split()[1].decode().rpartition("/")[2]
        arguments = {name.removeprefix("p_"): value for name, value in json.loads(content).items()}
        if name in READS or arguments.get("rows", PAGE_SIZE) < PAGE_SIZE:
            held.release()
            await asyncio.Event().wait()
        answer = json.dumps(await sql.database.call(name, **arguments)).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        )

    async with serving(data_api) as server:
        work = build_work(make_config(SUPABASE_URL=server.url, ALERT_WEBHOOK_URL="https://hooks.example.org/alerts"))
        work = replace(work, engine=PretendEngine(ManualClock()).client())
        app = create_app(lambda: work, TokenCheck([SecretStr(INVOKE_TOKEN)], [SecretStr(ADMIN_TOKEN)]))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="https://function.example.org"
        ) as http:
            asked = [http.request(method, path, json=body, headers=ADMIN) for _ in range(READERS)]
            readers = [asyncio.create_task(request) for request in asked]
            for _ in range(READER_CONNECTIONS):
                await held.acquire()
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await http.post("/", headers=INVOKE)
            assert not any(reader.done() for reader in readers)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
    assert answer.status_code == 202
    assert {
        "scheduler_active_mentors_page",
        "scheduler_enqueue",
        "scheduler_complete",
        "scheduler_hand_back",
        "scheduler_claim_alert",
    } <= {*sql.called()}
