"""DBOS, as its documentation has such a fan-out done: a queue, and a durable workflow for each call to the engine.

- Workflows are enqueued by DBOS's own SQL function, a page of mentors in one statement: from Python each would be a
  transaction of its own.
- A workflow makes one call and has no steps: a checkpoint between the call and the end would protect nothing, since the
  engine takes the same idempotency key again.
- More workflows are claimed than calls may be in flight, so that no place is empty until the queue's next poll.
- Workflows run in threads: coroutines DBOS hands from thread to thread several times, and the whole took half as long
  again (measured).

Run as `python -m tests.benchmarks.peers.dbos_peer` with the environment that `served.py` gives its contenders.
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
# How often it is looked whether all is done.
LOOK_SECONDS = 0.05
# What DBOS itself needs beside the workflows that run.
MORE_THREADS = 16
# How long a statement waits for company: as long as a call takes, and twice as many workflows are claimed as may call.
LINGER_SECONDS = 0.02
TIMEOUT = timedelta(seconds=10)
MOST_ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 8.0
OK, TIMED_OUT, TOO_MANY, SERVER_ERROR = 200, 408, 429, 500

DATABASE_URL = os.environ["DATABASE_URL"]
TYPES = os.environ["SCENARIO_TYPES"].split(",")
IN_FLIGHT = int(os.environ["IN_FLIGHT"])
# Each takes a thread. More than these were never busy, however many calls were allowed, and only cost time (measured).
CLAIMED = min(2 * IN_FLIGHT, 128)
USERS_PER_CALL = int(os.environ["USERS_PER_CALL"])
TYPES_PER_CALL = int(os.environ["TYPES_PER_CALL"])
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

client = SyncClientBuilder().timeout(TIMEOUT).build()
# Calls at once; one that comes when there are as many waits.
places = threading.BoundedSemaphore(IN_FLIGHT)
waiting: queue.SimpleQueue[tuple[list[Row], Future[None]]] = queue.SimpleQueue()
app = FastAPI()


class CallFailedError(Exception):
    """The engine turned a call away, for good or at the last attempt."""

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
    return [
        (user, name, result["outcome"], result.get("notification_id"), attempts)
        for user in users
        for name in types
        for result in [found.get((user, name), missing)]
    ]


def ask(run: dict[str, str], users: Sequence[str], types: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """The engine's results, and at which attempt they came."""
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
            with places:
                answer = client.post(ENGINE_URL).headers(HEADERS).body_json(body).build().send()
            if answer.status == OK:
                return answer.json()["results"], attempt
            code = f"engine_http_{answer.status}"
            if answer.status not in (TIMED_OUT, TOO_MANY) and answer.status < SERVER_ERROR:
                raise CallFailedError(code, attempt)
            after = answer.headers.get("retry-after") or ""
            retry_after = float(after) if after.isdecimal() else 0
        except PyreqwestError as error:
            code = "engine_timeout" if isinstance(error, RequestTimeoutError) else "engine_unreachable"
        if attempt == MOST_ATTEMPTS:
            raise CallFailedError(code, attempt)
        time.sleep(retry_after or random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.2 * 2**attempt)))


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
    """The workflow: one call, and its rows, which are committed before it ends."""
    stored: Future[None] = Future()
    waiting.put((ask_about(run, users, types), stored))
    stored.result()


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


def enqueue_all(run: dict[str, str]) -> int:
    """A page of mentors at a time, so that the first are evaluated while the others are still read."""
    mentors = 0
    after: str | None = None
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        while users := [row[0] for row in connection.execute(READ, {"after": after, "page": PAGE})]:
            calls = Json(calls_for(run, users))
            connection.execute(ENQUEUE, {"queue": QUEUE, "version": DBOS.application_version, "calls": calls})
            mentors += len(users)
            after = users[-1]
    return mentors


@app.get("/")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/")
def evaluate_all() -> dict[str, Any]:
    """One run, from enqueueing to the last stored row."""
    identity = str(uuid.uuid4())
    run = {"id": identity, "scope": f"manual:{identity}", "scheduled_for": datetime.now(UTC).isoformat()}
    mentors = enqueue_all(run)
    # asking for each workflow's result would be a query for each, again and again
    while DBOS.list_queued_workflows(queue_name=QUEUE, limit=1, load_input=False):
        time.sleep(LOOK_SECONDS)
    return {"id": identity, "mentors": mentors}


def main() -> None:
    """Serves until the process ends."""
    threading.Thread(target=store, name="results", daemon=True).start()
    threads = CLAIMED + MORE_THREADS
    DBOS(
        config=DBOSConfig(
            name="peer", system_database_url=DATABASE_URL, max_executor_threads=threads, log_level="WARNING"
        )
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=CLAIMED, polling_interval_sec=POLLING_SECONDS)
    # DBOS looks for new queues every second; the first run must not wait for that
    time.sleep(1.5)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")


if __name__ == "__main__":
    main()
