"""The pg_cron stand-in and its driver."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from tests.emulator.pg_cron import Job
from tests.emulator.project import Project

from .looking import rows, until


async def schedule(project: Project, name: str, when: str, command: str) -> None:
    async with project.connect() as database:
        await database.execute(b"select cron.schedule(%s, %s, %s)", (name, when, command))


async def only(project: Project, name: str, command: str) -> None:
    """Make this the only job, so that the project's own do not join in."""
    await rows(project, "delete from cron.job")
    await schedule(project, name, "* * * * *", command)


async def test_jobs_run_as_their_owner_once_the_driver_starts(project: Project) -> None:
    await only(project, "who", "create table public.ran as select session_user::text as by")
    await project.start_cron()

    async def succeeded() -> list[tuple[object, ...]]:
        return await rows(project, "select return_message from cron.job_run_details where status = 'succeeded'")

    assert await until(succeeded) == [("SELECT 1",)]
    assert await rows(project, "select by from public.ran") == [("postgres",)]


async def test_a_failure_is_recorded_with_its_message(project: Project) -> None:
    await only(project, "bad", "select 1/0")
    await project.cron_driver().run_all()
    assert await rows(project, "select status, return_message from cron.job_run_details") == [
        ("failed", "ERROR:  division by zero")
    ]


async def test_scheduling_a_name_again_changes_its_job(project: Project) -> None:
    await only(project, "nightly", "select 1")
    await schedule(project, "nightly", "0 3 * * *", "select 2")
    assert await rows(project, "select jobname, schedule, command, active from cron.job") == [
        ("nightly", "0 3 * * *", "select 2", True)
    ]


async def test_an_inactive_job_does_not_run(project: Project) -> None:
    await only(project, "asleep", "select 1")
    async with project.connect() as database:
        await database.execute(b"select cron.alter_job(jobid, active => false) from cron.job")
    await project.cron_driver().run_all()
    assert await rows(project, "select * from cron.job_run_details") == []


async def test_unscheduling_an_unknown_job_is_an_error(project: Project) -> None:
    async with project.connect() as database:
        with pytest.raises(psycopg.Error, match="could not find valid entry for job 'nobody'"):
            await database.execute(b"select cron.unschedule('nobody')")


async def test_a_schedule_that_is_none_is_refused(project: Project) -> None:
    with pytest.raises(psycopg.Error, match="invalid schedule: 30 seconds"):
        await schedule(project, "fast", "30 seconds", "select 1")


async def test_postgres_may_read_jobs_and_not_write_them(project: Project) -> None:
    """As on hosted Supabase: a migration that updates cron.job works nowhere."""
    async with project.connect() as database:
        await database.execute(b"select * from cron.job")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await database.execute(b"update cron.job set active = false")


async def test_the_driver_outlives_a_restart_of_the_database(project: Project) -> None:
    await only(project, "tick", "select 1")
    driver = project.cron_driver()
    await driver.run_all()
    await project.server.restart()
    await driver.run_all()
    assert await rows(project, "select count(*) from cron.job_run_details where status = 'succeeded'") == [(2,)]


@pytest.mark.parametrize(
    ("schedule", "minute", "due"),
    [
        ("* * * * *", "2026-11-23T02:00", True),
        ("0 2 * * *", "2026-11-23T02:00", True),
        ("0 2 * * *", "2026-11-23T02:01", False),
        ("*/5 * * * *", "2026-11-23T02:10", True),
        ("0 2 * * 0", "2026-11-23T02:00", False),
        ("nonsense", "2026-11-23T02:00", False),
    ],
)
def test_a_job_is_due_at_the_minutes_of_its_schedule(schedule: str, minute: str, due: bool) -> None:
    assert Job(1, schedule, "select 1", "postgres").is_due(datetime.fromisoformat(minute).replace(tzinfo=UTC)) is due
