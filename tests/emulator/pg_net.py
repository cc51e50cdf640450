"""Drives the pg_net stand-in: takes requests out of the queue after commit, sends them, and records the answers.

It works as pg_net's worker does: in rounds of up to 200, a round ends when its slowest request ends, and the answers
are seen only then. A round is one transaction: if it breaks, its requests are sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import httpx
import psycopg
from psycopg.types.json import Jsonb

from .connections import Connection, connect, has_table

BATCH_SIZE = 200
TIME_TO_LIVE = "6 hours"
# what was queued before it listened is found by looking, as the real worker does once a second
LOOK_SECONDS = 1.0
RECONNECT_SECONDS = 0.05

TAKE = b"""
with taken as (
  select id from net.http_request_queue order by id limit %s for update skip locked
)
delete from net.http_request_queue as queue using taken where queue.id = taken.id
returning queue.id, queue.method::text, queue.url, queue.headers, queue.body, queue.timeout_milliseconds
"""

# one statement for a round: `executemany` would use a pipeline, which psycopg cannot leave while it is being cancelled
ANSWER = b"""
insert into net._http_response (id, status_code, content_type, headers, content, timed_out, error_msg)
select id, status_code, content_type, headers, content, timed_out, error_msg
from jsonb_populate_recordset(null::net._http_response, %s)
"""


class NetDriver:
    """One database's pg_net worker, as a task of this process."""

    def __init__(self, superuser_url: str) -> None:
        self._url = superuser_url
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when it listens: what is queued from then on is sent without delay."""
        listening = asyncio.Event()
        self._task = asyncio.create_task(self._run(listening), name="pg_net")
        await listening.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, listening: asyncio.Event) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, follow_redirects=True, trust_env=False) as client:
            while True:
                # a database that stops, crashes or is not there yet: whatever was in hand was rolled back with it
                with contextlib.suppress(psycopg.Error, OSError):
                    async with connect(self._url) as connection:
                        await connection.execute(b"listen emulator_pg_net")
                        listening.set()
                        await _serve(connection, client)
                await asyncio.sleep(RECONNECT_SECONDS)


async def _serve(connection: Connection, client: httpx.AsyncClient) -> None:
    while True:
        if await has_table(connection, "net.http_request_queue") and await _round(connection, client):
            continue
        async for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
            pass


async def _round(connection: Connection, client: httpx.AsyncClient) -> int:
    async with connection.transaction(), connection.cursor() as cursor:
        await cursor.execute(b"delete from net._http_response where created < now() - %s::interval", (TIME_TO_LIVE,))
        await cursor.execute(TAKE, (BATCH_SIZE,))
        requests = await cursor.fetchall()
        answers = await asyncio.gather(*(_send(client, *request) for request in requests))
        if answers:
            await cursor.execute(ANSWER, (Jsonb(answers),))
    return len(requests)


async def _send(
    client: httpx.AsyncClient,
    request_id: int,
    method: str,
    url: str,
    headers: dict[str, str] | None,
    body: bytes | None,
    timeout_milliseconds: int,
) -> dict[str, Any]:
    """Sends one request, with a time limit for the whole of it, and returns the row that pg_net writes.

    A failure, also a time-out, has neither a status nor `timed_out`, but a message.
    """
    started = time.monotonic()
    sent = {"User-Agent": "pg_net", **(headers or {})}
    row: dict[str, Any] = dict.fromkeys(("status_code", "content_type", "headers", "content", "timed_out", "error_msg"))
    row["id"] = request_id
    try:
        async with asyncio.timeout(timeout_milliseconds / 1000):
            response = await client.request(method, url, headers=sent, content=body, timeout=None)
    except TimeoutError:
        elapsed = (time.monotonic() - started) * 1000
        return row | {"error_msg": f"Timeout of {timeout_milliseconds} ms reached. Total time: {elapsed:f} ms"}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return row | {"error_msg": str(error) or type(error).__name__}
    return row | {
        "status_code": response.status_code,
        "content_type": response.headers.get("content-type"),
        "headers": dict(response.headers),
        # what PostgreSQL cannot hold in a text
        "content": response.text.replace("\0", "") or None,
        "timed_out": False,
    }
