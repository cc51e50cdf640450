"""scheduler.prune: retention as cron runs it, beside what still reads or writes what it takes away."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from .requests import ask, ended_run, opened, refusal, seen
from .sql_core import QUEUES, Session, SqlCore, Worker, pairs

DAYS_KEPT = 30
REFUSE_A_SMALL_CHUNK = """
create function public.refuse() returns trigger language plpgsql as $$ begin
  if (select count(*) from gone) < 20000 then raise 'broken off'; end if; return null; end $$;
create trigger refuse after delete on public.scheduler_evaluations referencing old table as gone
for each statement execute function public.refuse()
"""


async def prune(core: SqlCore, session: Session | None = None) -> None:
    """What cron runs every day, word for word."""
    command = await core.owner.value("select command from cron.job where jobname = 'scheduler-prune'")
    await (session or await core.session_under_safeupdate()).run(command)


@pytest.fixture(autouse=True)
async def retention(core: SqlCore) -> None:
    await core.change_settings(f"retention_days = {DAYS_KEPT}")


async def grow_old(core: SqlCore, run: str, days: float = 365) -> str:
    await core.change(run, f"finished_at = now() - make_interval(secs => {days * 86400})")
    return run


async def ended_days_ago(core: SqlCore, worker: Worker, days: float) -> str:
    run = await core.open_manual_run(worker, [pairs([1, 2]), pairs([3])])
    for outcome in ("triggered", "failed"):
        await worker.complete(await worker.claim_one(), outcome)
    await worker.finish(run)
    return await grow_old(core, run, days)


async def left(core: SqlCore, table: str = "invocations", column: str = "id") -> set[str]:
    return set(await core.owner.column(f"select {column}::text from public.scheduler_{table}"))


async def test_what_ended_before_the_retention_goes_with_its_rows(core: SqlCore, worker: Worker) -> None:
    for days in (DAYS_KEPT + 0.1, DAYS_KEPT + 300):
        await ended_days_ago(core, worker, days)
    young = await ended_days_ago(core, worker, DAYS_KEPT - 0.1)
    deleted = await ended_days_ago(core, worker, 1)
    await worker.delete(deleted)
    waiting = await core.open_run(worker, [pairs([1])])
    long_ago = "now() - interval '1 year'"
    await core.change(waiting, f"invoked_at = {long_ago}, started_at = {long_ago}, scheduled_for = {long_ago}")
    await prune(core)
    assert await left(core) == {young, waiting}
    assert await left(core, "invocation_batches", "invocation_id") == {young, waiting}
    assert await left(core, "evaluations", "invocation_id") == {young}


async def test_a_large_run_goes_in_chunks_after_leaving_the_api(core: SqlCore, worker: Worker) -> None:
    """Broken off between two chunks it is not shown with a part of its rows, and the next day's prune continues."""
    run = await ended_days_ago(core, worker, DAYS_KEPT + 1)
    await core.owner.run(
        "insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome)"
        " select %s, gen_random_uuid(), 'contact_lapsed', 'triggered' from generate_series(1, 45000)",
        run,
    )
    await core.owner.run(REFUSE_A_SMALL_CHUNK)
    with pytest.raises(psycopg.errors.RaiseException):
        await prune(core)
    assert await core.owner.value("select count(*) from public.scheduler_evaluations") == 45_003 - 2 * 20_000
    assert await seen(worker, run) is None
    await core.owner.run("drop trigger refuse on public.scheduler_evaluations")
    await prune(core)
    assert await left(core) == await left(core, "evaluations", "user_id") == set()


async def test_old_dispatches_and_archived_messages_go(core: SqlCore) -> None:
    await core.owner.run(
        "insert into scheduler.dispatches (requested_at, error) values"
        f" (now() - interval '{DAYS_KEPT} days 1 minute', 'old'),"
        f" (now() - interval '{DAYS_KEPT - 1} days 23 hours', 'young')"
    )
    for queue in QUEUES:
        for _ in range(2):
            await core.owner.run(f"select pgmq.archive('{queue}', (select pgmq.send('{queue}', '{{}}')))")
        await core.owner.run(
            f"update pgmq.a_{queue} set archived_at = now() - interval '{DAYS_KEPT} days 1 minute'"
            f" where msg_id = (select min(msg_id) from pgmq.a_{queue})"
        )
    await prune(core)
    assert await core.owner.column("select error from scheduler.dispatches") == ["young"]
    for queue in QUEUES:
        assert await core.owner.column(f"select count(*) from pgmq.a_{queue}") == [1]


async def test_the_audit_is_kept_as_long_as_runs(core: SqlCore) -> None:
    """More of it than go in one chunk."""
    await core.owner.run(
        "insert into public.scheduler_audit (at, actor, action)"
        f" select now() - interval '{DAYS_KEPT} days 1 minute', 'old', 'pause' from generate_series(1, 20001)"
        f" union all select now() - interval '{DAYS_KEPT - 1} days 23 hours', 'young', 'pause'"
    )
    await prune(core)
    assert await core.owner.column("select actor from public.scheduler_audit") == ["young"]


async def test_crons_log_of_our_jobs_is_kept_a_week(core: SqlCore) -> None:
    """Also that of an earlier installation, whose jobs had other ids, and of a run that a crash left without an end."""
    await core.owner.run(
        """
        insert into cron.job_run_details (runid, database, username, command, status, start_time, end_time)
        select row_number() over (), coalesce(database, current_database()), 'postgres', command, status,
               now() - interval '8 days', now() - age::interval
          from (values
            ('select scheduler.dispatch()', 'old', '7 days 1 minute', null),
            ('select scheduler.dispatch()', 'young', '6 days 23 hours', null),
            ('select scheduler.dispatch()', 'running', null, null),
            ('select scheduler.dispatch()', 'of another database', '7 days 1 minute', 'another'),
            ('call scheduler.prune()', 'old', '7 days 1 minute', null),
            ('call scheduler.prune()', 'young', '6 days 23 hours', null),
            ('select 1', 'old', '7 days 1 minute', null)
          ) as log (command, status, age, database)
        """
    )
    await prune(core)
    assert await core.owner.rows("select command, status from cron.job_run_details order by 1, 2") == [
        ("call scheduler.prune()", "young"),
        ("select 1", "old"),
        ("select scheduler.dispatch()", "of another database"),
        ("select scheduler.dispatch()", "young"),
    ]


async def test_the_last_good_run_stays_though_deleted(core: SqlCore, worker: Worker) -> None:
    """Or a weekly schedule with a short retention would look dead."""
    runs = []
    for days in (20, 10):
        runs.append(await grow_old(core, await ended_run(core, worker, ["triggered"]), days))
        await core.change(runs[-1], "idempotency_key = id::text")
        await worker.delete(runs[-1])
    await prune(core)
    assert await left(core) == {runs[-1]}


# Beside retries and records


async def test_deleting_an_invocation_by_hand_takes_only_its_evaluations(core: SqlCore) -> None:
    """There is no foreign key to see to it; nor is what is recorded at that moment left behind."""
    recorder, deleter = await core.worker(), await core.session()
    kept = await ended_days_ago(core, recorder, 1)
    run = await core.open_run(recorder, [pairs([1]), pairs([2])])
    await recorder.complete(await recorder.claim_one())
    batch = await recorder.claim_one()
    delete = deleter.run("delete from public.scheduler_invocations where id = %s", run)
    assert await core.race(recorder, recorder.complete(batch), deleter, delete) == ("done", None)
    assert await left(core, "evaluations", "invocation_id") == {kept}


async def test_a_retry_being_opened_keeps_its_source(core: SqlCore, worker: Worker) -> None:
    source = await grow_old(core, await ended_run(core, worker, ["failed"]))
    pruner = await core.session()
    retry, _ = await core.race(worker, opened(worker, retry_of=source), pruner, prune(core, pruner))
    assert await left(core) == {source, retry}
    assert (await core.describe(retry))["retry_of"] == source


async def test_a_source_chosen_while_others_are_pruned_stays(core: SqlCore, worker: Worker) -> None:
    """All candidates are read at the start; the last one's turn may come an hour later."""
    first = await grow_old(core, await ended_run(core, worker, ["failed"]), 700)
    source = await opened(worker)
    await worker.cancel(source)
    await grow_old(core, source)
    pruner = await core.session()
    async with core.owner.transaction():
        # the rows of the first are on their way out, chunk by chunk
        await core.owner.run("select from public.scheduler_evaluations for update")
        pruning = asyncio.create_task(prune(core, pruner))
        await core.until_waiting_for_a_lock(pruner)
        assert await refusal(worker, retry_of=first) == "retry_source_unknown"
        retry = (await ask(worker, retry_of=source))["invocation"]["id"]
    await pruning
    assert await left(core) == {source, retry}
