"""A run on a PostgreSQL with the real pg_cron: its jobs run by themselves, at the minute, and nothing else calls.

Everywhere else a stand-in runs the jobs. What it cannot show is shown here: that the migrations get along with the real
one, that it runs both jobs, and what it writes down about them.
"""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.emulator.data_dir import DataDir
from tests.emulator.postgres import PostgresServer
from tests.emulator.project import MIGRATIONS, Project
from tests.faults.oracle import check_success
from tests.faults.system_packages import server_with_pg_cron, wall_clock_library
from tests.integration.project_logs import check_project, secrets_of
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.integration.scheduled_runs.harness import harness as a_scheduled_run
from tests.secret_scan import leaks_in

# For a machine that is busy.
TIMEOUT_SECONDS = 120

# What the retention has to take away: runs with what came of a user, a call, and an entry of pg_cron's own log.
LONG_AGO = b"""
with old as (
  insert into public.scheduler_invocations
    (idempotency_key, trigger, triggered_by, status, scheduled_for, invoked_at, started_at, finished_at, expires_at,
     engine_scope)
  select 'id:old-' || n, 'manual', 'admin', 'failed', at, at, at, at, at, 'manual:old-' || n
    from generate_series(1, 3) as n
   cross join (select now() - interval '400 days') as long_ago (at)
  returning id
)
insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome, error_code)
select id, gen_random_uuid(), 'contact_lapsed', 'failed', 'user_unknown' from old;

insert into scheduler.dispatches (requested_at, ended_at, error)
values (now() - interval '400 days', now() - interval '400 days', 'no_answer');

insert into cron.job_run_details (jobid, runid, job_pid, database, username, command, status, start_time, end_time)
select jobid, 0, 1, database, username, command, 'succeeded', now() - interval '8 days', now() - interval '8 days'
  from cron.job
 where jobname = 'scheduler-dispatch';
"""
LEFT_OF_OLD = b"""
select (select count(*) from public.scheduler_invocations where idempotency_key like 'id:old-%%'),
       (select count(*) from public.scheduler_evaluations where error_code = 'user_unknown'),
       (select count(*) from scheduler.dispatches where requested_at < now() - interval '1 day'),
       (select count(*) from cron.job_run_details where start_time < now() - interval '1 day')
"""
RUNS = b"""
select job.jobname, details.status, details.start_time
  from cron.job_run_details as details join cron.job as job using (jobid)
 order by details.start_time
"""
JOBS = {"scheduler-dispatch": "select scheduler.dispatch()", "scheduler-prune": "call scheduler.prune()"}
WHAT_PG_CRON_KEEPS = (
    b"select job::text from cron.job union all select details::text from cron.job_run_details as details"
)


class ServerBeforeTheMinute(PostgresServer):
    """Its clock can be put forward to the end of the minute, so that the jobs run without being waited for."""

    def _environment(self) -> dict[str, str]:
        self._offset = self.data_dir.path / "clock-offset"
        self._offset.write_bytes(struct.pack("q", 0))
        # a copy where the account that runs PostgreSQL can read it
        library = shutil.copy(wall_clock_library(), self.data_dir.path)
        clock = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._offset)}
        return super()._environment() | clock

    def set_forward(self, seconds: int) -> None:
        # in place: the server has mapped the file
        with self._offset.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture
async def server() -> AsyncIterator[ServerBeforeTheMinute]:
    data_dir = DataDir.new_temporary(in_memory=True)
    server = ServerBeforeTheMinute(data_dir, binaries=server_with_pg_cron())
    try:
        await server.prepare()
        await server.start()
        yield server
    finally:
        await server.stop()
        data_dir.close()


@pytest.fixture
async def project(server: PostgresServer) -> AsyncIterator[Project]:
    # pg_cron runs the jobs of one database, which is this one
    project = Project(server, "postgres", label="-postgres")
    try:
        await project.migrate()
        yield await project.start()
    finally:
        await project.stop()
    assert check_project(project) > 0


async def scheduled_runs(harness: Harness) -> list[dict[str, Any]]:
    return [run for run in await harness.invocations() if run["trigger"] == "schedule"]


async def is_over(harness: Harness) -> bool:
    """The run has ended, and both jobs ran well since the function could be called."""
    runs = await harness.rows(RUNS)
    assert "failed" not in {status for _, status, _ in runs}, runs
    ended = [run for run in await scheduled_runs(harness) if run["finished_at"]]
    return bool(ended) and {job for job, status, _ in runs if status == "succeeded"} == set(JOBS)


async def test_real_pg_cron_fires_at_the_minute_and_prunes(
    server: ServerBeforeTheMinute, project: Project, http: httpx.AsyncClient
) -> None:
    async with a_scheduled_run(project, http) as harness:
        await harness.add_mentors(300)
        async with project.connect(superuser=True) as connection:
            await connection.execute(LONG_AGO)
        # what it would do at a quarter past three
        await harness.execute(
            b"select cron.alter_job(jobid, schedule => '* * * * *') from cron.job where jobname = 'scheduler-prune'"
        )
        function = await harness.start_function()
        await project.start_net()
        await project.write_vault_secrets(function.url)
        server.set_forward(max(0, 58 - int(time.time()) % 60))
        await eventually(lambda: is_over(harness), TIMEOUT_SECONDS)

        assert project.cron is None, "a stand-in ran the jobs"
        applied = await harness.rows(
            b"select version || '_' || name || '.sql', statements from supabase_migrations.schema_migrations order by 1"
        )
        assert applied == [(path.name, [path.read_bytes().decode()]) for path in sorted(MIGRATIONS.glob("*.sql"))]
        jobs = await harness.rows(b"select jobname, command, username, active from cron.job order by jobname")
        assert jobs == [(name, command, "postgres", True) for name, command in JOBS.items()]

        (invocation,) = await scheduled_runs(harness)
        assert datetime.fromisoformat(invocation["scheduled_for"]) == harness.slot
        await check_success(harness, invocation)
        opened_at = datetime.fromisoformat(invocation["invoked_at"])
        starts = [started for job, _, started in await harness.rows(RUNS) if job == "scheduler-dispatch"]
        assert starts[0] <= opened_at, "the run began before any job did"
        slices = [line["dispatch_id"] for line in harness.log_lines(function) if line["event"] == "slice_ended"]
        assert slices
        assert None not in slices, "something else has called"

        assert await harness.rows(LEFT_OF_OLD) == [(0, 0, 0, 0)]
        kept = [text for (text,) in await harness.rows(WHAT_PG_CRON_KEEPS)]
        assert len(kept) >= 4
        assert leaks_in(kept, "cron", secrets_of(project)) == []
        assert not [user_id for user_id in harness.mentors if any(user_id in text for text in kept)]
