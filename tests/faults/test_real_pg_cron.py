"""A night on a PostgreSQL with the real pg_cron: its jobs run by themselves, at the minute, and nobody else calls.

Everywhere else a stand-in runs the jobs. What it cannot show is shown here: that the migrations get along with the real
one, that it runs both jobs, and what it writes down about them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.emulator.data_dir import DataDir
from tests.emulator.postgres import PostgresServer
from tests.emulator.project import MIGRATIONS, Project
from tests.faults.oracle import check_promises
from tests.faults.system_packages import server_with_pg_cron
from tests.integration.nightly.night import Night, eventually
from tests.integration.nightly.night import night as a_night
from tests.integration.project_logs import check_project, secrets_of
from tests.secret_scan import leaks_in

MENTORS = 300
# The jobs run at the next minute, and once more if that one came too early; the rest is for a machine that is busy.
PATIENCE_SECONDS = 180

# What the retention has to take away: runs with what came of somebody, a call, and an entry of pg_cron's own log.
LONG_AGO = b"""
with old as (
  insert into public.scheduler_invocations
    (idempotency_key, triggered_by, status, scheduled_for, created_at, started_at, finished_at, expires_at,
     engine_scope)
  select 'id:old-' || n, 'manual', 'failed', at, at, at, at, at, 'manual:old-' || n
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

RUNS_OF = b"""
select details.status, details.return_message, details.start_time, details.end_time
  from cron.job_run_details as details
  join cron.job as job using (jobid)
 where job.jobname = %s
 order by details.start_time
"""

LEFT_OF_OLD = b"""
select (select count(*) from public.scheduler_invocations where idempotency_key like 'id:old-%%'),
       (select count(*) from public.scheduler_evaluations where error_code = 'user_unknown'),
       (select count(*) from scheduler.dispatches where requested_at < now() - interval '1 day'),
       (select count(*) from cron.job_run_details where start_time < now() - interval '1 day')
"""

WHAT_PG_CRON_KEEPS = (
    b"select job::text from cron.job union all select details::text from cron.job_run_details as details"
)


@pytest.fixture(scope="module")
async def night() -> AsyncIterator[Night]:
    """A night on a server of its own, after pg_cron has seen to it: the tests here only look at it."""
    binaries = server_with_pg_cron()
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
        data_dir = DataDir.new_temporary(in_memory=True)
        stack.callback(data_dir.close)
        server = PostgresServer(data_dir, binaries=binaries)
        stack.push_async_callback(server.stop)
        await server.prepare()
        await server.start()
        # pg_cron runs the jobs of one database, which is this one
        project = Project(server, "postgres", label="-postgres")
        stack.push_async_callback(project.stop)
        await project.migrate()
        await project.start()
        night = await stack.enter_async_context(a_night(project, http))
        await _make_ready(night)
        await eventually(lambda: _is_over(night), PATIENCE_SECONDS)
        yield night
        await project.stop()
        assert check_project(project) > 0


async def _make_ready(night: Night) -> None:
    """Mentors, a function, something old, and at the very end the address: before it, a tick finds nobody to call."""
    await night.add_mentors(MENTORS)
    async with night.project.connect(superuser=True) as connection:
        await connection.execute(LONG_AGO)
    # what it would do at a quarter past three
    await night.execute(
        b"select cron.alter_job(jobid, schedule => '* * * * *') from cron.job where jobname = 'scheduler-prune'"
    )
    function = await night.start_function()
    await night.project.start_net()
    await night.project.write_vault_secrets(function.url)


async def _is_over(night: Night) -> bool:
    """The run has ended, and both jobs ran after the function could be called."""
    return bool(
        await _scheduled_runs(night, only_ended=True)
        and all([await _ran_well(night, job) for job in ("scheduler-dispatch", "scheduler-prune")])
    )


async def _ran_well(night: Night, job: str) -> bool:
    runs = await night.rows(RUNS_OF, [job])
    for status, message, *_ in runs:
        assert status != "failed", f"{job}: {message}"
    return any(status == "succeeded" for status, *_ in runs)


async def _scheduled_runs(night: Night, *, only_ended: bool = False) -> list[dict[str, Any]]:
    return [
        invocation
        for invocation in await night.invocations()
        if invocation["triggered_by"] == "schedule" and (invocation["finished_at"] or not only_ended)
    ]


async def test_it_is_the_real_one_and_the_migrations_apply_to_it_as_they_stand(night: Night) -> None:
    binaries = night.project.server.binaries
    assert binaries.has_own("pg_cron")
    assert night.project.cron is None
    ((version, library),) = await night.rows(
        b"select extension.extversion, (select max(probin) from pg_proc where pronamespace = 'cron'::regnamespace)"
        b" from pg_extension as extension where extname = 'pg_cron'"
    )
    assert version.startswith("1.")
    assert library.endswith("pg_cron")

    applied = await night.rows(
        b"select version || '_' || name || '.sql', statements from supabase_migrations.schema_migrations order by 1"
    )
    assert applied == [(path.name, [path.read_bytes().decode()]) for path in sorted(MIGRATIONS.glob("*.sql"))]
    owners = await night.rows(
        b"select distinct pg_get_userbyid(proowner), rolsuper from pg_proc join pg_roles on pg_roles.oid = proowner"
        b" where pronamespace = 'scheduler'::regnamespace"
    )
    assert owners == [("postgres", False)]
    jobs = await night.rows(b"select jobname, command, username, database, active from cron.job order by jobname")
    assert jobs == [
        ("scheduler-dispatch", "select scheduler.dispatch()", "postgres", "postgres", True),
        ("scheduler-prune", "call scheduler.prune()", "postgres", "postgres", True),
    ]


async def test_at_the_minute_dispatch_fires_by_itself_and_the_night_is_complete(night: Night) -> None:
    (invocation,) = await _scheduled_runs(night)
    assert invocation["status"] == "succeeded"
    assert invocation["counts"]["mentors"] == MENTORS
    assert datetime.fromisoformat(invocation["scheduled_for"]) == night.slot
    await check_promises(night, invocation)

    runs = await night.rows(RUNS_OF, ["scheduler-dispatch"])
    assert {status for status, *_ in runs} == {"succeeded"}
    opened_at = datetime.fromisoformat(invocation["created_at"])
    assert any(started <= opened_at for _, _, started, _ in runs), "the run began before any job did"
    lines = [line for function in night.project.functions for line in night.log_lines(function)]
    (opened,) = (line for line in lines if line["event"] == "invocation_opened")
    assert opened["invocation_id"] == invocation["id"]
    slices = [line["dispatch_id"] for line in lines if line["event"] == "slice_ended"]
    assert slices
    assert None not in slices, "somebody else has called"


async def test_the_daily_retention_commits_as_it_goes_and_takes_away_what_is_old(night: Night) -> None:
    runs = await night.rows(RUNS_OF, ["scheduler-prune"])
    assert {status for status, *_ in runs} == {"succeeded"}, runs
    assert await night.rows(LEFT_OF_OLD) == [(0, 0, 0, 0)]
    assert len(await _scheduled_runs(night)) == 1


async def test_no_secret_and_nobodys_id_is_in_what_pg_cron_keeps(night: Night) -> None:
    kept = [text for (text,) in await night.rows(WHAT_PG_CRON_KEEPS)]
    assert len(kept) >= 4
    assert leaks_in(kept, "cron", secrets_of(night.project)) == []
    assert not [user_id for user_id in night.mentors if any(user_id in text for text in kept)]
