"""DBOS, as its documentation has such a fan-out done: a queue, and a durable workflow for each call to the engine.

- Workflows are enqueued by DBOS's own SQL function, a page of mentors in one statement: from Python each would be a
  transaction of its own.
- A workflow makes one call and has no steps: a checkpoint between the call and the end would protect nothing, since the
  engine takes the same idempotency key again.
- Twice as many workflows are claimed as calls may be in flight, so that nobody waits for the queue's next poll.
- Results are stored before their workflow ends; those that wait for the database at the same time share a statement.

Started with the environment that `deno.py` describes, and DATABASE_URL.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import uvicorn
from dbos import DBOS, DBOSConfig
from fastapi import FastAPI
from psycopg.types.json import Json
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError

QUEUE = "evaluations"
PAGE = 1000
TIMEOUT = timedelta(seconds=10)
MOST_ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 8.0
OK, TIMED_OUT, TOO_MANY, SERVER_ERROR = 200, 408, 429, 500
POLLING_SECONDS = 0.01
# How often it is looked whether all is done.
LOOK_SECONDS = 0.05

READ = b"""
select user_id::text from public.active_peer_mentors
where %(after)s::uuid is null or user_id > %(after)s::uuid order by user_id limit %(page)s
"""
ENQUEUE = b"""
select count(dbos.enqueue_workflow(
  workflow_name => 'evaluate', queue_name => %(queue)s, workflow_id => call ->> 'id', app_version => %(version)s,
  positional_args => array[call -> 'run', call -> 'users', call -> 'types']))
from json_array_elements(%(calls)s) as call
"""
STORE = b"""
insert into public.benchmark_results (user_id, scenario_type, outcome, notification_id, attempts)
select * from unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::integer[])
on conflict (user_id, scenario_type) do update
set outcome = excluded.outcome, notification_id = excluded.notification_id, attempts = excluded.attempts
"""

Row = tuple[str, str, str, str | None, int]


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    port: int
    database_url: str
    engine_url: str
    engine_token: str
    types: tuple[str, ...]
    in_flight: int
    users_per_call: int
    types_per_call: int

    @classmethod
    def read(cls) -> Settings:
        """From this process's environment."""
        return cls(
            port=int(os.environ["PORT"]),
            database_url=os.environ["DATABASE_URL"],
            engine_url=os.environ["SCENARIO_ENGINE_URL"],
            engine_token=os.environ["SCENARIO_ENGINE_TOKEN"],
            types=tuple(os.environ["SCENARIO_TYPES"].split(",")),
            in_flight=int(os.environ["IN_FLIGHT"]),
            users_per_call=int(os.environ["USERS_PER_CALL"]),
            types_per_call=int(os.environ["TYPES_PER_CALL"]),
        )


class CallFailedError(Exception):
    """The engine turned a call away, for good or at the last attempt."""

    def __init__(self, code: str, attempts: int) -> None:
        super().__init__(code)
        self.code = code
        self.attempts = attempts


class Results:
    """Stores rows; who comes while a statement is under way shares the next one."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._waiting: list[tuple[list[Row], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def store(self, rows: list[Row]) -> None:
        """Returns when they are committed."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, stored))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            columns = [list(column) for column in zip(*(row for rows, _ in batch for row in rows), strict=True)]
            try:
                await self._connection.execute(STORE, columns)
            except psycopg.Error as error:
                for _, stored in batch:
                    stored.set_exception(error)
            else:
                for _, stored in batch:
                    stored.set_result(None)
        self._writer = None


class Evaluator:
    """Makes calls and stores what comes of them."""

    def __init__(self, settings: Settings, results: Results) -> None:
        self._url = f"{settings.engine_url}/v1/evaluations"
        self._headers = {"Authorization": f"Bearer {settings.engine_token}", "Content-Type": "application/json"}
        self._client: Client = ClientBuilder().timeout(TIMEOUT).build()
        self._places = asyncio.Semaphore(settings.in_flight)
        self._results = results

    async def evaluate(self, run: dict[str, str], users: list[str], types: list[str]) -> None:
        """One call, halved where it fails until whoever it fails for stands alone."""
        async with self._places:
            rows = await self._evaluate(run, users, types)
        await self._results.store(rows)

    async def _evaluate(self, run: dict[str, str], users: list[str], types: list[str]) -> list[Row]:
        try:
            results, attempts = await self._ask(run, users, types)
        except CallFailedError as error:
            if len(users) > 1:
                half = len(users) // 2
                first = await self._evaluate(run, users[:half], types)
                return first + await self._evaluate(run, users[half:], types)
            return [(users[0], name, f"failed:{error.code}", None, error.attempts) for name in types]
        found = {(result["user_id"], result["scenario_type"]): result for result in results}
        missing = {"outcome": "failed:engine_missing_result"}
        return [
            (user, name, result["outcome"], result.get("notification_id"), attempts)
            for user in users
            for name in types
            for result in [found.get((user, name), missing)]
        ]

    async def _ask(self, run: dict[str, str], users: list[str], types: list[str]) -> tuple[list[dict[str, Any]], int]:
        body = {
            "invocation_id": run["id"],
            "scheduled_for": run["scheduled_for"],
            "dry_run": False,
            "evaluations": [
                {"user_id": user, "scenario_types": types, "idempotency_key_prefix": f"{run['scope']}:{user}"}
                for user in users
            ],
        }
        attempt = 0
        while True:
            attempt += 1
            retry_after = 0.0
            try:
                answer = await self._client.post(self._url).headers(self._headers).body_json(body).build().send()
                if answer.status == OK:
                    return (await answer.json())["results"], attempt
                code = f"engine_http_{answer.status}"
                if answer.status not in (TIMED_OUT, TOO_MANY) and answer.status < SERVER_ERROR:
                    raise CallFailedError(code, attempt)
                after = answer.headers.get("retry-after") or ""
                retry_after = float(after) if after.isdecimal() else 0
            except PyreqwestError as error:
                code = "engine_timeout" if isinstance(error, RequestTimeoutError) else "engine_unreachable"
            if attempt == MOST_ATTEMPTS:
                raise CallFailedError(code, attempt)
            await asyncio.sleep(retry_after or random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.2 * 2**attempt)))


settings = Settings.read()
evaluator: Evaluator


async def evaluate(run: dict[str, str], users: list[str], types: list[str]) -> None:
    """The workflow."""
    await evaluator.evaluate(run, users, types)


evaluate_workflow = DBOS.workflow(name="evaluate")(evaluate)


def calls_for(run: dict[str, str], users: Sequence[str]) -> list[dict[str, Any]]:
    """The arguments of each workflow; its id is the same when the page is enqueued again."""
    step = settings.types_per_call
    return [
        {
            "id": f"{run['id']}:{users[at]}:{first}",
            "run": run,
            "users": users[at : at + settings.users_per_call],
            "types": settings.types[first : first + step],
        }
        for at in range(0, len(users), settings.users_per_call)
        for first in range(0, len(settings.types), step)
    ]


async def enqueue_everybody(run: dict[str, str]) -> int:
    """A page of mentors at a time, so that the first are evaluated while the others are still read."""
    mentors = 0
    after: str | None = None
    async with await psycopg.AsyncConnection.connect(settings.database_url, autocommit=True) as connection:
        while True:
            cursor = await connection.execute(READ, {"after": after, "page": PAGE})
            users = [row[0] for row in await cursor.fetchall()]
            if not users:
                return mentors
            calls = Json(calls_for(run, users))
            await connection.execute(ENQUEUE, {"queue": QUEUE, "version": DBOS.application_version, "calls": calls})
            mentors += len(users)
            after = users[-1]


async def until_all_ended() -> None:
    """Asking for the result of each workflow would be a query for each, again and again."""
    while await DBOS.list_queued_workflows_async(queue_name=QUEUE, limit=1, load_input=False):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """DBOS on this loop, so that workflows run where the clients are."""
    global evaluator  # a workflow is a plain function that finds its collaborators in its module
    async with await psycopg.AsyncConnection.connect(settings.database_url, autocommit=True) as connection:
        evaluator = Evaluator(settings, Results(connection))
        config = DBOSConfig(name="peer", system_database_url=settings.database_url, log_level="WARNING")
        DBOS(config=config)
        DBOS.launch()
        await DBOS.register_queue_async(
            QUEUE, worker_concurrency=2 * settings.in_flight, polling_interval_sec=POLLING_SECONDS
        )
        yield
        DBOS.destroy()


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def health() -> dict[str, str]:
    """It serves."""
    return {"status": "ok"}


@app.post("/")
async def evaluate_everybody() -> dict[str, Any]:
    """One run, from enqueueing to the last stored row."""
    identity = str(uuid.uuid4())
    run = {"id": identity, "scope": f"manual:{identity}", "scheduled_for": datetime.now(UTC).isoformat()}
    mentors = await enqueue_everybody(run)
    await until_all_ended()
    return {"id": identity, "mentors": mentors}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=settings.port, log_level="warning")
