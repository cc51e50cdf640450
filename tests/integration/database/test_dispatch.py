"""scheduler.dispatch: what is asked of the function, and queued again, follows from what the tables say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .sql_core import QUEUES, Session, SqlCore, Worker, pairs

SCHEDULED = QUEUES[1]
SECRETS = ("scheduler_function_url", "scheduler_invoke_token")
TOKEN = "invoke-token-5b1f"
REFUSE_REQUESTS = """
create function pg_temp.refuse() returns trigger language plpgsql as
$$ begin raise exception 'Malformed input to a URL function'; end $$;
create trigger refuse before insert on net.http_request_queue for each row execute function pg_temp.refuse()
"""


@pytest.fixture
async def ready(core: SqlCore) -> SqlCore:
    """A project that works: its secrets are in Vault, and nothing is due."""
    await core.make_callable()
    await core.change_settings("max_workers = 4")
    return core


async def dispatch(core: SqlCore) -> Any:
    """What cron runs every minute, word for word."""
    command = await core.owner.value("select command from cron.job where jobname = 'scheduler-dispatch'")
    return await (await core.session_under_safeupdate()).value(command)


async def fall_due(core: SqlCore) -> None:
    await core.change_settings("next_due_at = now() - interval '1 second'")


async def posted_due(core: SqlCore) -> int:
    """A slot falls due, and is asked for: the dispatch's id."""
    await fall_due(core)
    assert await dispatch(core) == 1
    (dispatch_id,) = await under_way(core)
    return dispatch_id


async def under_way(core: SqlCore) -> list[int]:
    return await core.owner.column("select id from scheduler.dispatches where ended_at is null order by id")


async def dispatches(core: SqlCore, columns: str = "status_code, error") -> list[tuple[object, ...]]:
    return await core.owner.rows(f"select {columns} from scheduler.dispatches order by id")


async def let_time_pass(core: SqlCore, interval: str) -> None:
    await core.owner.run(f"update scheduler.dispatches set requested_at = clock_timestamp() - interval '{interval}'")


async def answer(core: SqlCore, status: int | None = 200, error: str | None = None) -> None:
    """Every request that is under way is answered, and with that has left pg_net's queue."""
    await core.owner.run("delete from net.http_request_queue where true")
    await core.owner.run(
        "insert into net._http_response (id, status_code, error_msg, created)"
        " select request_id, %s, %s, now() - interval '1 second' from scheduler.dispatches where ended_at is null",
        *(status, error),
    )


async def test_the_jobs_run_every_minute_and_every_day(core: SqlCore) -> None:
    assert await core.owner.rows("select schedule, command from cron.job order by jobname") == [
        ("* * * * *", "select scheduler.dispatch()"),
        ("17 3 * * *", "call scheduler.prune()"),
    ]


async def test_a_due_slot_is_posted_once_with_vaults_token(ready: SqlCore) -> None:
    assert await dispatch(ready) == 0
    assert await dispatches(ready) == []
    await ready.owner.run(
        "select vault.update_secret(id, %s) from vault.secrets where name = %s", TOKEN, "scheduler_invoke_token"
    )
    dispatch_id = await posted_due(ready)
    (request,) = await ready.owner.rows(
        "select method::text, url, headers, convert_from(body, 'UTF8'), timeout_milliseconds"
        " from net.http_request_queue"
    )
    version, trace, span, flags = request[2].pop("traceparent").split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {TOKEN}",
        "X-Scheduler-Dispatch": str(dispatch_id),
    }
    assert request == ("POST", "https://function.example/", headers, "{}", 40_000)
    tables = await ready.owner.column(
        "select format('%I.%I', nspname, relname) from pg_class join pg_namespace as n on n.oid = relnamespace"
        " where relkind in ('r', 'p', 'm')"
        " and nspname not in ('vault', 'information_schema') and nspname !~ '^pg_(toast|temp)'"
        " and has_table_privilege(pg_class.oid, 'select')"
    )
    assert {"scheduler.dispatches", "scheduler.settings", "cron.job"} <= set(tables)
    query = "select exists (select from {} as t where strpos(t::text, '" + TOKEN + "') > 0)"
    assert [one for one in tables if await ready.owner.value(query.format(one))] == ["net.http_request_queue"]
    assert await dispatch(ready) == 0


@pytest.mark.parametrize(("hidden", "manual", "slices"), [(3, 0, 1), (2, 0, 1), (2, 2, 3), (2, 9, 4)])
async def test_open_work_gets_a_slice_for_each_visible_batch(
    ready: SqlCore, worker: Worker, hidden: int, manual: int, slices: int
) -> None:
    """At least one, because a finish may have been left, and no more than there may be workers."""
    await ready.open_run(worker, [pairs([number]) for number in range(3)])
    await worker.claim(hidden)
    await ready.open_manual_run(worker, [pairs([number]) for number in range(manual)])
    assert await dispatch(ready) == len(await under_way(ready)) == slices
    assert await dispatch(ready) == 0
    await ready.change_settings("max_workers = 6")
    assert await dispatch(ready) == (2 if manual == 9 else 0)


async def test_simultaneous_dispatches_do_not_overbook(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    clocks, reporters = [await ready.session() for _ in range(8)], await ready.workers(4)
    await asyncio.gather(
        *(clock.value("select scheduler.dispatch()") for clock in clocks),
        *(reporter.end_slice(progressed=True) for reporter in reporters),
    )
    assert len(await under_way(ready)) == await ready.posted() == 4


@pytest.mark.parametrize("wrong", [*SECRETS, "pg_net"])
async def test_what_cannot_be_posted_is_recorded_and_breaks_nothing(ready: SqlCore, worker: Worker, wrong: str) -> None:
    """pg_net raises on an address that it cannot read; Vault raises on a secret that it cannot decrypt."""
    if wrong == "pg_net":
        await ready.owner.run(REFUSE_REQUESTS)
    else:
        await ready.owner.run("delete from vault.secrets where name = %s", wrong)
    # where nothing is due, nothing is missed
    assert await dispatch(ready) == 0
    assert await dispatches(ready) == []
    expired = await ready.open_run(worker, [pairs([1])])
    await ready.expire_now(expired)
    await fall_due(ready)
    assert await dispatch(ready) == 0
    error = "post_failed: P0001" if wrong == "pg_net" else "vault_secret_missing"
    assert await dispatches(ready, "error, ended_at is not null") == [(error, True)]
    assert await ready.posted() == 0
    assert (await ready.describe(expired))["status"] == "failed"
    if wrong != "pg_net":
        await ready.owner.run("select vault.create_secret('found again', %s)", wrong)
        assert await dispatch(ready) == 1


@pytest.mark.parametrize("due", ["now() - interval '1 second'", "null"], ids=["due", "unknown"])
async def test_a_paused_engine_keeps_back_work_but_no_slot(ready: SqlCore, worker: Worker, due: str) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await ready.change_settings("engine_paused_until = now() + interval '5 minutes'")
    assert await dispatch(ready) == 0
    await ready.change_settings(f"next_due_at = {due}")
    assert await dispatch(ready) == 1
    await ready.change_settings("engine_paused_until = now()")
    assert await dispatch(ready) == 3


@pytest.mark.parametrize(
    ("status", "error"), [(200, None), (202, None), (401, None), (500, None), (None, "refused"), (None, "x" * 5000)]
)
async def test_every_answer_is_kept_and_ends_its_dispatch(
    ready: SqlCore, status: int | None, error: str | None
) -> None:
    await posted_due(ready)
    await answer(ready, status, error)
    before = await ready.now()
    # still due: the function is asked again
    assert await dispatch(ready) == 1
    assert await dispatches(ready) == [(status, error and error[:300]), (None, None)]
    ((ended_at,), (not_ended,)) = await dispatches(ready, "ended_at")
    # `created` is when pg_net's round began, which may be before the request was made
    assert isinstance(ended_at, type(before))
    assert ended_at >= before
    assert not_ended is None


async def test_a_lost_answer_is_given_up_after_its_time(ready: SqlCore) -> None:
    """After the time budget and half a minute, but not while pg_net has still to send the request."""
    await posted_due(ready)
    await let_time_pass(ready, "10 minutes")
    assert await dispatch(ready) == 0
    assert await dispatches(ready) == [(None, None)]
    await ready.owner.run("delete from net.http_request_queue where true")
    for interval, posts in (("50 seconds", 0), ("56 seconds", 1)):
        await ready.owner.run("update scheduler.dispatches set seen_queued_at = null")
        await let_time_pass(ready, interval)
        assert await dispatch(ready) == posts
    assert await dispatches(ready) == [(None, "no_answer"), (None, None)]


async def test_another_requests_number_stands_for_no_dispatch(ready: SqlCore) -> None:
    """pg_net's tables and their sequence are unlogged: after a crash of the database they begin at 1 again."""
    await posted_due(ready)
    await ready.owner.run("update net.http_request_queue set headers = '{}' where true")
    await let_time_pass(ready, "2 hours")
    await ready.owner.run(
        "insert into net._http_response (id, status_code) select request_id, 418 from scheduler.dispatches"
    )
    assert await dispatch(ready) == 1
    assert await dispatches(ready) == [(None, "no_answer"), (None, None)]


async def test_an_answer_after_the_slice_ended_is_kept(ready: SqlCore, worker: Worker) -> None:
    dispatch_id = await posted_due(ready)
    await ready.change_settings("next_due_at = now() + interval '1 hour'")
    for other in (None, dispatch_id + 1000):
        await worker.end_slice(dispatch_id=other)
        assert await under_way(ready) == [dispatch_id]
    await answer(ready, 202)
    await worker.end_slice(dispatch_id=dispatch_id)
    ended_at = await dispatches(ready, "ended_at")
    await dispatch(ready)
    assert await dispatches(ready, "ended_at") == ended_at
    assert await dispatches(ready) == [(202, None)]


async def test_a_slice_ending_with_progress_posts_the_next_slices(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await dispatch(ready)
    mine, *others = await under_way(ready)
    await worker.end_slice(dispatch_id=mine, progressed=True)
    now_under_way = await under_way(ready)
    assert (len(now_under_way), mine in now_under_way) == (4, False)
    assert set(others) < set(now_under_way)


async def test_a_slice_ending_without_progress_or_work_posts_nothing(ready: SqlCore, worker: Worker) -> None:
    run = await ready.open_run(worker, [pairs([1])])
    await worker.end_slice(progressed=False, engine_answers=True)
    await worker.end_slice(progressed=True, engine_error="engine_unavailable")
    assert await ready.posted() == 0
    await ready.change_settings("engine_paused_until = null")
    await worker.complete(await worker.claim_one())
    await worker.finish(run)
    await worker.end_slice(progressed=True, engine_answers=True)
    assert await ready.posted() == 0


# scheduler.requeue_orphaned_batches


async def tick(session: Session) -> None:
    await session.run("select scheduler.dispatch()")


async def claimed(worker: Worker) -> list[tuple[str, int]]:
    return [(batch["invocation_id"], batch["batch_no"]) for batch in (await worker.claim(1000))["batches"]]


@pytest.mark.parametrize("how", ["archived", "renumbered"])
async def test_every_open_batch_is_queued_again(core: SqlCore, worker: Worker, how: str) -> None:
    run = await core.open_run(worker, [pairs([number]) for number in range(5)])
    for batch in (await worker.claim(2))["batches"]:
        await worker.complete(batch)
    if how == "archived":
        await core.owner.run(f"select pgmq.archive('{SCHEDULED}', msg_id) from pgmq.q_{SCHEDULED}")
    else:
        # as in a queue that was dropped and made anew, which counts from one again
        await core.owner.run(f"""update pgmq.q_{SCHEDULED} set message = message || '{{"batch_no": 7}}'""")
    await tick(core.owner)
    assert await claimed(worker) == [(run, number) for number in (3, 4, 5)]


async def test_simultaneous_ticks_queue_each_batch_once(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([number]) for number in range(50)])
    clocks = [await core.session() for _ in range(4)]
    for _ in range(10):
        await core.lose_messages()
        await asyncio.gather(*map(tick, clocks))
        assert await core.queued() == 50
    assert len(await claimed(worker)) == 50


async def test_what_others_hold_is_left_to_the_next_tick(core: SqlCore, worker: Worker) -> None:
    """Waiting for a run could break the order of locks; a batch that is just being recorded is no work."""
    held = await core.open_run(worker, [pairs([1])])
    manual = await core.open_manual_run(worker, [pairs([2]), pairs([3])])
    batch = (await worker.claim(1))["batches"][0]
    await core.lose_messages()
    holder, clock = await core.session(), await core.session()
    async with holder.transaction(), worker.transaction():
        await holder.run("select from public.scheduler_invocations where id = %s for no key update", held)
        await worker.complete(batch)
        await tick(clock)
    assert await claimed(worker) == [(manual, 2)]
    await tick(clock)
    assert await claimed(worker) == [(held, 1)]


async def test_one_run_that_cannot_be_requeued_stops_no_other(core: SqlCore, worker: Worker) -> None:
    scheduled = await core.open_run(worker, [pairs([1])])
    manual = await core.open_manual_run(worker, [pairs([2])])
    await core.lose_messages()
    await core.owner.run(
        "create function public.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'no room'; end $$;"
        f" create trigger refuse before insert on pgmq.q_{SCHEDULED} execute function public.refuse()"
    )
    await tick(core.owner)
    assert await claimed(worker) == [(manual, 1)]
    await core.owner.run(f"drop trigger refuse on pgmq.q_{SCHEDULED}")
    await tick(core.owner)
    assert await claimed(worker) == [(scheduled, 1)]
