"""scheduler.prune: retention, as cron runs it."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from .sql_core import QUEUES, SqlCore, Worker, pairs

DAYS_KEPT = 30


async def prune(core: SqlCore) -> None:
    """What cron runs every night, word for word."""
    command = await core.owner.value("select command from cron.job where jobname = 'scheduler-prune'")
    await (await core.session_under_safeupdate()).run(command)


@pytest.fixture(autouse=True)
async def retention(core: SqlCore) -> None:
    await core.owner.run("update scheduler.settings set retention_days = %s", DAYS_KEPT)


async def ended_days_ago(core: SqlCore, worker: Worker, days: float) -> str:
    invocation = await core.open_manual_run(worker, [pairs([1, 2]), pairs([3])])
    for outcome in ("triggered", "failed"):
        await worker.complete(await worker.claim_one(), outcome)
    await worker.finish(invocation)
    await core.owner.run(
        "update public.scheduler_invocations set finished_at = now() - make_interval(secs => %s) where id = %s",
        days * 86400,
        invocation,
    )
    return invocation


async def left(core: SqlCore) -> set[str]:
    return set(await core.owner.column("select id::text from public.scheduler_invocations"))


async def test_it_is_called_as_a_procedure_every_day(core: SqlCore) -> None:
    assert await core.owner.column("select command from cron.job where jobname = 'scheduler-prune'") == [
        "call scheduler.prune()"
    ]


async def test_only_what_ended_before_the_retention_goes_with_all_its_rows(core: SqlCore, worker: Worker) -> None:
    old = [await ended_days_ago(core, worker, days) for days in (DAYS_KEPT + 0.1, DAYS_KEPT + 300)]
    young = await ended_days_ago(core, worker, DAYS_KEPT - 0.1)
    await prune(core)
    assert await left(core) == {young}
    for table in ("scheduler_invocation_batches", "scheduler_evaluations"):
        assert await core.owner.column(f"select distinct invocation_id::text from public.{table}") == [young]
    assert not set(old) & await left(core)


async def test_what_is_open_stays_however_old(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1])])
    await core.owner.run(
        "update public.scheduler_invocations set created_at = now() - interval '1 year',"
        " started_at = now() - interval '1 year', scheduled_for = now() - interval '1 year'"
    )
    await prune(core)
    assert await left(core) == {invocation}
    assert await core.queued() == 1


async def test_a_pruned_slot_stays_spent(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    opened = await worker.open_slot(due, following)
    await worker.cancel(opened["invocation"]["id"])
    await core.owner.run("update public.scheduler_invocations set finished_at = now() - interval '1 year'")
    await core.owner.run("update scheduler.settings set retention_days = 1")
    await prune(core)
    assert await left(core) == set()
    assert not (await worker.open_slot(due, following))["opened"]


async def test_a_retry_outlives_what_it_retried(core: SqlCore, worker: Worker) -> None:
    old = await ended_days_ago(core, worker, DAYS_KEPT + 1)
    young = await ended_days_ago(core, worker, 1)
    await core.owner.run(
        "update public.scheduler_invocations set retry_of = %s, triggered_by = 'retry' where id = %s", old, young
    )
    await prune(core)
    assert await core.owner.rows("select id::text, retry_of from public.scheduler_invocations") == [(young, None)]


async def test_each_invocation_is_a_transaction_of_its_own(core: SqlCore, worker: Worker) -> None:
    """A night that cannot be deleted, or a statement timeout, does not undo what was pruned before it.

    Where that happens every day, what grows every minute goes all the same.
    """
    await core.owner.run(
        "insert into scheduler.dispatches (requested_at, error) values (now() - interval '1 year', 'old')"
    )
    oldest = await ended_days_ago(core, worker, DAYS_KEPT + 20)
    stuck = await ended_days_ago(core, worker, DAYS_KEPT + 10)
    await core.owner.run(
        "create table public.kept (invocation_id uuid references public.scheduler_invocations);"
        f"insert into public.kept values ('{stuck}')"
    )
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await prune(core)
    assert await left(core) == {stuck}
    assert oldest != stuck
    assert await core.owner.value("select count(*) from scheduler.dispatches") == 0


async def test_a_large_night_goes_in_chunks_and_out_of_the_api_before_the_first(core: SqlCore, worker: Worker) -> None:
    """Broken off between two chunks it is not shown with a part of its rows, and the next day's prune goes on."""
    night = await ended_days_ago(core, worker, DAYS_KEPT + 1)
    await core.owner.run(
        "insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome)"
        " select %s, gen_random_uuid(), 'contact_lapsed', 'triggered' from generate_series(1, 45000)",
        night,
    )
    # Of 45,003 rows two chunks go, and the third is refused.
    await core.owner.run(
        "create function public.refuse() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from gone) < 20000 then raise 'broken off'; end if; return null; end $$;"
        "create trigger refuse after delete on public.scheduler_evaluations referencing old table as gone"
        " for each statement execute function public.refuse()"
    )

    with pytest.raises(psycopg.errors.RaiseException):
        await prune(core)

    assert await core.owner.value("select count(*) from public.scheduler_evaluations") == 5003
    assert await worker.call("get", invocation_id=night) is None
    await core.owner.run("drop trigger refuse on public.scheduler_evaluations")
    await prune(core)
    assert await left(core) == set()
    assert await core.owner.value("select count(*) from public.scheduler_evaluations") == 0


async def test_messages_that_somebody_archived_by_hand_go(core: SqlCore) -> None:
    for queue in QUEUES:
        for _ in range(2):
            await core.owner.run(f"select pgmq.archive('{queue}', (select pgmq.send('{queue}', '{{}}')))")
        await core.owner.run(
            f"update pgmq.a_{queue} set archived_at = now() - interval '{DAYS_KEPT} days 1 minute'"
            f" where msg_id = (select min(msg_id) from pgmq.a_{queue})"
        )
    await prune(core)
    for queue in QUEUES:
        assert await core.owner.column(f"select count(*) from pgmq.a_{queue}") == [1]


async def test_old_dispatches_go(core: SqlCore) -> None:
    await core.owner.run(
        "insert into scheduler.dispatches (requested_at, error) values"
        f" (now() - interval '{DAYS_KEPT} days 1 minute', 'old'),"
        f" (now() - interval '{DAYS_KEPT - 1} days 23 hours', 'young')"
    )
    await prune(core)
    assert await core.owner.column("select error from scheduler.dispatches") == ["young"]


async def log_of_cron(core: SqlCore, job: str, status: str, ended: str, database: str = "current_database()") -> None:
    await core.owner.run(
        "insert into cron.job_run_details (jobid, runid, database, username, command, status, start_time, end_time)"
        f" select jobid, 1 + (select count(*) from cron.job_run_details), {database}, 'postgres', command, '{status}',"
        f" now() - interval '8 days', {ended} from cron.job where jobname = '{job}'"
    )


async def test_crons_own_log_of_our_jobs_is_kept_for_a_week(core: SqlCore) -> None:
    await core.owner.run("select cron.schedule('somebody-elses', '0 0 * * *', 'select 1')")
    for job in ("scheduler-dispatch", "scheduler-prune", "somebody-elses"):
        await log_of_cron(core, job, "old", "now() - interval '7 days 1 minute'")
        await log_of_cron(core, job, "young", "now() - interval '6 days 23 hours'")
    await log_of_cron(core, "scheduler-dispatch", "of another database", "now() - interval '8 days'", "'another'")
    await prune(core)
    assert await core.owner.rows(
        "select jobname, status from cron.job_run_details join cron.job using (jobid) order by 1, 2"
    ) == [
        ("scheduler-dispatch", "of another database"),
        ("scheduler-dispatch", "young"),
        ("scheduler-prune", "young"),
        ("somebody-elses", "old"),
        ("somebody-elses", "young"),
    ]


async def test_what_an_earlier_installations_jobs_left_in_crons_log_goes(core: SqlCore) -> None:
    await log_of_cron(core, "scheduler-dispatch", "old", "now() - interval '7 days 1 minute'")
    await core.owner.run("select cron.unschedule('scheduler-dispatch')")
    await core.owner.run("select scheduler.schedule_jobs()")
    await prune(core)
    assert await core.owner.column("select status from cron.job_run_details") == []


async def test_runs_that_a_crash_broke_off_leave_crons_log_too(core: SqlCore) -> None:
    await log_of_cron(core, "scheduler-dispatch", "running", "null")
    await prune(core)
    assert await core.owner.column("select status from cron.job_run_details") == []


async def test_no_role_of_the_data_api_may_prune(worker: Worker) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await worker.run("call scheduler.prune()")


async def test_deleting_an_invocation_by_hand_takes_its_evaluations_along_and_no_others(
    core: SqlCore, worker: Worker
) -> None:
    """There is no foreign key to see to it."""
    runs = [await ended_days_ago(core, worker, 1) for _ in range(2)]
    await core.owner.run("delete from public.scheduler_invocations where id = %s", runs[0])
    assert await core.owner.column("select distinct invocation_id::text from public.scheduler_evaluations") == [runs[1]]


async def test_what_is_recorded_while_its_invocation_is_deleted_goes_with_it(core: SqlCore) -> None:
    recorder, _ = await core.workers(2)
    run = await core.open_run(recorder, [pairs([1])])
    batch = await recorder.claim_one()
    deleter = await core.session()
    async with recorder.transaction():
        assert await recorder.complete(batch) == "done"
        deleting = asyncio.create_task(deleter.run("delete from public.scheduler_invocations where id = %s", run))
        await core.until_waiting_for_a_lock(deleter)
    await deleting
    assert await core.owner.value("select count(*) from public.scheduler_evaluations") == 0
