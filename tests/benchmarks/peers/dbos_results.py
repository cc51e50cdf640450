"""The DBOS contender's results: stored before their workflow ends, many workflows' in one statement."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future

import psycopg

from .dbos_engine import Row

# How long a statement waits for company: as long as a call takes, and twice as many workflows are claimed as may call.
LINGER_SECONDS = 0.02

STORE = b"""
insert into public.benchmark_results (user_id, scenario_type, outcome, notification_id, attempts)
select * from unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::integer[])
on conflict (user_id, scenario_type) do update
set outcome = excluded.outcome, notification_id = excluded.notification_id, attempts = excluded.attempts
"""

Waiting = tuple[list[Row], "Future[None]"]


class Results:
    """Stores rows in a thread of its own, which ends with the process."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._waiting: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        threading.Thread(target=self._write, name="results", daemon=True).start()

    def store(self, rows: list[Row]) -> None:
        """Returns when they are committed.

        Raises:
            psycopg.Error: they are not.
        """
        stored: Future[None] = Future()
        self._waiting.put((rows, stored))
        stored.result()

    def _write(self) -> None:
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            while True:
                batch = [self._waiting.get()]
                time.sleep(LINGER_SECONDS)
                while not self._waiting.empty():
                    batch.append(self._waiting.get())
                columns = [list(column) for column in zip(*(row for rows, _ in batch for row in rows), strict=True)]
                try:
                    connection.execute(STORE, columns)
                except psycopg.Error as error:
                    for _, stored in batch:
                        stored.set_exception(error)
                else:
                    for _, stored in batch:
                        stored.set_result(None)
