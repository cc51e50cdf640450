"""Drives the pg_cron stand-in: runs each active job at its minutes, in UTC, and records what came of it.

As with pg_cron, a job never overlaps itself (its fires queue up) and a fire that falls into a time without a database
is not made up for. Unlike pg_cron, every job runs once when the driver starts, without a wait for the next minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from cronsim import CronSim, CronSimError
from psycopg.conninfo import make_conninfo

from .connections import connect, has_table, value

RECONNECT_SECONDS = 0.05
MINUTE = timedelta(minutes=1)

ACTIVE_JOBS = b"select jobid, schedule, command, username from cron.job where active order by jobid"

START = b"""
insert into cron.job_run_details (jobid, database, username, command, status, start_time)
values (%s, current_database(), %s, %s, 'running', clock_timestamp())
returning runid
"""

END = b"""
update cron.job_run_details
set status = %s, return_message = %s, job_pid = %s, end_time = clock_timestamp()
where runid = %s
"""


@dataclass(frozen=True)
class Job:
    jobid: int
    schedule: str
    command: str
    username: str

    def is_due(self, minute: datetime) -> bool:
        """Returns whether the schedule has this whole minute; one that cannot be read has none."""
        try:
            return next(CronSim(self.schedule, minute - MINUTE)) == minute
        except (CronSimError, StopIteration):
            return False


class CronDriver:
    def __init__(self, superuser_url: str) -> None:
        self._url = superuser_url
        self._ticking: asyncio.Task[None] | None = None
        self._locks: dict[int, asyncio.Lock] = {}
        self._runs: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Runs every active job now, and then at its times."""
        self._ticking = asyncio.create_task(self._tick(), name="pg_cron")

    async def stop(self) -> None:
        """Stops ticking and cancels what runs; its transactions roll back."""
        tasks = [*self._runs, *([self._ticking] if self._ticking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_all(self) -> None:
        """Runs every active job once to its end: what a test calls instead of waiting for a minute."""
        await asyncio.gather(*(self._run(job) for job in await self._jobs()))

    async def _tick(self) -> None:
        self._fire(await self._jobs())
        while True:
            now = datetime.now(UTC)
            minute = now.replace(second=0, microsecond=0) + MINUTE
            await asyncio.sleep((minute - now).total_seconds())
            jobs = await self._jobs()
            # read again: a database that was away may have cost minutes, which are lost
            this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
            self._fire([job for job in jobs if job.is_due(this_minute)])

    def _fire(self, jobs: list[Job]) -> None:
        for job in jobs:
            run = asyncio.create_task(self._run(job), name=f"pg_cron job {job.jobid}")
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)

    async def _jobs(self) -> list[Job]:
        """Returns the active jobs, as soon as the database can be reached."""
        while True:
            with contextlib.suppress(psycopg.OperationalError, OSError):
                async with connect(self._url) as connection:
                    if not await has_table(connection, "cron.job"):
                        return []
                    cursor = await connection.execute(ACTIVE_JOBS)
                    return [Job(*row) for row in await cursor.fetchall()]
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _run(self, job: Job) -> None:
        async with self._locks.setdefault(job.jobid, asyncio.Lock()):
            # a database that goes away in the middle takes the record of it along
            with contextlib.suppress(psycopg.OperationalError, OSError):
                async with connect(self._url) as records:
                    run_id = await value(records, START, job.jobid, job.username, job.command)
                    pid, status, message = await self._execute(job)
                    await records.execute(END, (status, message, pid, run_id))

    async def _execute(self, job: Job) -> tuple[int | None, str, str]:
        """Runs the command as the job's user, in a session of its own, as pg_cron does."""
        pid = None
        try:
            # the emulator gives all roles that may log in the same password
            async with connect(make_conninfo(self._url, user=job.username)) as connection:
                pid = connection.info.backend_pid
                cursor = await connection.execute(job.command.encode())
                return pid, "succeeded", cursor.statusmessage or ""
        except psycopg.Error as error:
            return pid, "failed", f"ERROR:  {error.diag.message_primary or error}"
