"""DBOS, as its documentation has such a fan-out done: a queue, and a durable workflow for each call to the engine.

- Workflows are enqueued by DBOS's own SQL function, a page of mentors in one statement: from Python each would be a
  transaction of its own.
- A workflow makes one call and has no steps: a checkpoint between the call and the end would protect nothing, since the
  engine takes the same idempotency key again.
- More workflows are claimed than calls may be in flight, so that no place is empty until the queue's next poll.

Run as `python -m tests.benchmarks.peers.dbos_peer` with the environment that `served.py` gives its contenders.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import uvicorn
from dbos import DBOS, DBOSConfig
from fastapi import FastAPI
from psycopg.types.json import Json

from .dbos_engine import Engine
from .dbos_results import Results

QUEUE = "evaluations"
PAGE = 1000
POLLING_SECONDS = 0.01
# How often it is looked whether all is done.
LOOK_SECONDS = 0.05
# What DBOS itself needs beside the workflows that run.
MORE_THREADS = 16

DATABASE_URL = os.environ["DATABASE_URL"]
TYPES = os.environ["SCENARIO_TYPES"].split(",")
IN_FLIGHT = int(os.environ["IN_FLIGHT"])
# Each takes a thread. More than these were never busy, however many calls were allowed, and only cost time (measured).
CLAIMED = min(2 * IN_FLIGHT, 128)
USERS_PER_CALL = int(os.environ["USERS_PER_CALL"])
TYPES_PER_CALL = int(os.environ["TYPES_PER_CALL"])

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

engine = Engine(os.environ["SCENARIO_ENGINE_URL"], os.environ["SCENARIO_ENGINE_TOKEN"], IN_FLIGHT)
results = Results(DATABASE_URL)
app = FastAPI()


def evaluate(run: dict[str, str], users: list[str], types: list[str]) -> None:
    """The workflow: one call, and its rows."""
    results.store(engine.evaluate(run, users, types))


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


def enqueue_everybody(run: dict[str, str]) -> int:
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
    """It serves."""
    return {"status": "ok"}


@app.post("/")
def evaluate_everybody() -> dict[str, Any]:
    """One run, from enqueueing to the last stored row."""
    identity = str(uuid.uuid4())
    run = {"id": identity, "scope": f"manual:{identity}", "scheduled_for": datetime.now(UTC).isoformat()}
    mentors = enqueue_everybody(run)
    # asking for each workflow's result would be a query for each, again and again
    while DBOS.list_queued_workflows(queue_name=QUEUE, limit=1, load_input=False):
        time.sleep(LOOK_SECONDS)
    return {"id": identity, "mentors": mentors}


def main() -> None:
    """Serves until the process ends."""
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
