"""DBOS, as its documentation has such a fan-out done: a queue, and a durable workflow for each call to the engine.

- Workflows are enqueued by DBOS's own SQL function, a page of mentors in one statement: from Python each would be a
  transaction of its own.
- A workflow makes one call and has no steps: a checkpoint between the call and the end would protect nothing, since the
  engine takes the same idempotency key again.
- More workflows are claimed than calls may be in flight, so that no place is empty until the queue's next poll.
- Workflows run in threads: coroutines DBOS hands from thread to thread several times, and the whole took half as long
  again (measured).

Run as `python -m tests.benchmarks.peers.dbos_peer` with the environment that `contenders.py` gives it.
"""

from __future__ import annotations

import os
import queue
import random
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import uvicorn
from dbos import DBOS, DBOSConfig
from fastapi import FastAPI
from psycopg.types.json import Json
from pyreqwest.client import SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError

QUEUE = "evaluations"
PAGE = 1000
POLLING_SECONDS = 0.01
# Between two checks whether all is done.
LOOK_SECONDS = 0.05
# What DBOS itself needs beside the workflows that run.
MORE_THREADS = 16
# How long a statement waits for more rows: as long as a call takes; twice as many workflows are claimed as may call.
LINGER_SECONDS = 0.02
MOST_ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 8.0

DATABASE_URL = os.environ["DATABASE_URL"]
TYPES = os.environ["SCENARIO_TYPES"].split(",")
IN_FLIGHT, USERS_PER_CALL, TYPES_PER_CALL = (
    int(os.environ[name]) for name in ("IN_FLIGHT", "USERS_PER_CALL", "TYPES_PER_CALL")
)
# Each takes a thread. More than these were never busy, however many calls were allowed, and only cost time (measured).
CLAIMED = min(2 * IN_FLIGHT, 128)
ENGINE_URL = f"{os.environ['SCENARIO_ENGINE_URL']}/v1/evaluations"
HEADERS = {"Authorization": f"Bearer {os.environ['SCENARIO_ENGINE_TOKEN']}"}

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

client = SyncClientBuilder().timeout(timedelta(seconds=10)).build()
# Further calls wait.
places = threading.BoundedSemaphore(IN_FLIGHT)
waiting: queue.SimpleQueue[tuple[list[Row], Future[None]]] = queue.SimpleQueue()
app = FastAPI()


class CallFailedError(Exception):
    def __init__(self, code: str, attempts: int) -> None:
        super().__init__(code)
        self.code = code
        self.attempts = attempts


def ask_about(run: dict[str, str], users: Sequence[str], types: Sequence[str]) -> list[Row]:
    """A row for each pair. A call that fails is halved, so that one user's failure costs only that user."""
    try:
        results, attempts = ask(run, users, types)
    except CallFailedError as error:
        if len(users) > 1:
            half = len(users) // 2
            return ask_about(run, users[:half], types) + ask_about(run, users[half:], types)
        return [(users[0], name, f"failed:{error.code}", None, error.attempts) for name in types]
    found = {(result["user_id"], result["scenario_type"]): result for result in results}
    missing = {"outcome": "failed:engine_missing_result"}
    pairs = [(user, name, found.get((user, name), missing)) for user in users for name in types]
    return [(user, name, one["outcome"], one.get("notification_id"), attempts) for user, name, one in pairs]


def ask(run: dict[str, str], users: Sequence[str], types: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    evaluations = [
        {"user_id": user, "scenario_types": types, "idempotency_key_prefix": f"{run['scope']}:{user}"} for user in users
    ]
    about = {"invocation_id": run["id"], "scheduled_for": run["scheduled_for"], "dry_run": False}
    code, attempt = "", 0
    for attempt in range(1, MOST_ATTEMPTS + 1):
        retry_after = 0.0
        try:
            with places:
                post = client.post(ENGINE_URL).headers(HEADERS).body_json(about | {"evaluations": evaluations})
                answer = post.build().send()
            if answer.status == 200:
                return answer.json()["results"], attempt
            code = f"engine_http_{answer.status}"
            if answer.status not in (408, 429) and answer.status < 500:
                break
            after = answer.headers.get("retry-after") or ""
            retry_after = float(after) if after.isdecimal() else 0
        except PyreqwestError as error:
            code = "engine_timeout" if isinstance(error, RequestTimeoutError) else "engine_unreachable"
        if attempt < MOST_ATTEMPTS:
            time.sleep(retry_after or random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.2 * 2**attempt)))
    raise CallFailedError(code, attempt)


def store() -> None:
    """Many workflows' rows in one statement, in a thread of its own, which ends with the process."""
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        while True:
            batch = [waiting.get()]
            time.sleep(LINGER_SECONDS)
            while not waiting.empty():
                batch.append(waiting.get())
            columns = [list(column) for column in zip(*(row for rows, _ in batch for row in rows), strict=True)]
            try:
                connection.execute(STORE, columns)
            except psycopg.Error as error:
                for _, stored in batch:
                    stored.set_exception(error)
            else:
                for _, stored in batch:
                    stored.set_result(None)


def evaluate(run: dict[str, str], users: list[str], types: list[str]) -> None:
    """One call, and its rows, which are committed before it ends."""
    stored: Future[None] = Future()
    waiting.put((ask_about(run, users, types), stored))
    stored.result()


# Not as a decorator: mypy takes it for untyped where DBOS is not installed.
DBOS.workflow(name="evaluate")(evaluate)


def calls_for(run: dict[str, str], users: Sequence[str]) -> list[dict[str, Any]]:
    """The arguments of each workflow; its id is the same when the page is enqueued again."""
    return [
        {
            "id": f"{run['id']}:{users[at]}:{first}",
            "run": run,
            "users": users[at : at + USERS_PER_CALL],
            "types": TYPES[first : first + TYPES_PER_CALL],
        }
        for at in range(0, len(users), USERS_PER_CALL)
        for first in range(0, len(TYPES), TYPES_PER_CALL)
    ]


@app.get("/")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/")
def evaluate_all() -> dict[str, str]:
    """One run: enqueued a page at a time, so that the first are evaluated while the others are still read."""
    identity = str(uuid.uuid4())
    run = {"id": identity, "scope": f"manual:{identity}", "scheduled_for": datetime.now(UTC).isoformat()}
    after: str | None = None
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        while users := [row[0] for row in connection.execute(READ, {"after": after, "page": PAGE})]:
            calls = Json(calls_for(run, users))
            connection.execute(ENQUEUE, {"queue": QUEUE, "version": DBOS.application_version, "calls": calls})
            after = users[-1]
    # asking for each workflow's result would be a query for each, again and again
    while DBOS.list_queued_workflows(queue_name=QUEUE, limit=1, load_input=False):
        time.sleep(LOOK_SECONDS)
    return {"id": identity}


if __name__ == "__main__":
    threading.Thread(target=store, name="results", daemon=True).start()
    config = DBOSConfig(
        name="peer",
        system_database_url=DATABASE_URL,
        max_executor_threads=CLAIMED + MORE_THREADS,
        log_level="WARNING",
    )
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=CLAIMED, polling_interval_sec=POLLING_SECONDS)
    # DBOS looks for new queues every second; the first run must not wait for that
    time.sleep(1.5)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
