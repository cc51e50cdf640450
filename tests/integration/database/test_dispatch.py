"""scheduler.dispatch, post_slices and the harvest: what is asked of the function follows from what the tables say."""

from __future__ import annotations

import asyncio

import pytest

from .sql_core import SqlCore, Worker, pairs

TOKEN = "invoke-token-5b1f"
URL = "https://function.example/"


@pytest.fixture
async def ready(core: SqlCore) -> SqlCore:
    """A project that works: its secrets are in Vault, and nothing is due."""
    await keep_secret(core, "scheduler_function_url", URL)
    await keep_secret(core, "scheduler_invoke_token", TOKEN)
    await core.owner.run("update scheduler.settings set next_due_at = now() + interval '1 hour', max_workers = 4")
    return core


async def keep_secret(core: SqlCore, name: str, value: str) -> None:
    await core.owner.run("select vault.create_secret(%s, %s)", value, name)


async def dispatch(core: SqlCore) -> int:
    """What cron runs every minute, word for word."""
    command = await core.owner.value("select command from cron.job where jobname = 'scheduler-dispatch'")
    number = await (await core.session_under_safeupdate()).value(command)
    assert isinstance(number, int)
    return number


async def fall_due(core: SqlCore) -> None:
    await core.owner.run("update scheduler.settings set next_due_at = now() - interval '1 second'")


async def pause(core: SqlCore) -> None:
    await core.owner.run("update scheduler.settings set engine_paused_until = now() + interval '5 minutes'")


async def under_way(core: SqlCore) -> list[int]:
    return await core.owner.column("select id from scheduler.dispatches where ended_at is null order by id")


async def posted(core: SqlCore) -> object:
    return await core.owner.value("select count(*) from net.http_request_queue")


async def answer(core: SqlCore, *, status: int | None = 200, error: str | None = None) -> None:
    """Every request that is under way is answered, and with that has left pg_net's queue."""
    await core.owner.run("delete from net.http_request_queue where true")
    await core.owner.run(
        "insert into net._http_response (id, status_code, error_msg) select request_id, %s, %s"
        " from scheduler.dispatches where ended_at is null",
        status,
        error,
    )


async def test_it_runs_every_minute(core: SqlCore) -> None:
    assert await core.owner.rows("select schedule, command from cron.job where jobname = 'scheduler-dispatch'") == [
        ("* * * * *", "select scheduler.dispatch()")
    ]


async def test_where_nothing_is_to_be_done_nothing_is_posted(ready: SqlCore) -> None:
    assert await dispatch(ready) == 0
    assert await posted(ready) == 0
    assert await ready.owner.value("select count(*) from scheduler.dispatches") == 0


async def test_a_function_that_was_never_heard_of_is_asked(ready: SqlCore) -> None:
    await ready.owner.run("update scheduler.settings set next_due_at = null")
    assert await dispatch(ready) == 1


async def test_a_due_slot_is_asked_for_once_with_the_token_from_vault(ready: SqlCore) -> None:
    await fall_due(ready)
    assert await dispatch(ready) == 1
    (request,) = await ready.owner.rows(
        "select method::text, url, headers, convert_from(body, 'UTF8'), timeout_milliseconds"
        " from net.http_request_queue"
    )
    (dispatch_id,) = await under_way(ready)
    assert request[2].pop("traceparent")
    assert request == (
        "POST",
        URL,
        {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {TOKEN}",
            "X-Scheduler-Dispatch": str(dispatch_id),
        },
        "{}",
        40_000,
    )
    assert await dispatch(ready) == 0


async def test_the_token_stands_in_no_table_but_vaults_and_the_outgoing_request(ready: SqlCore) -> None:
    await fall_due(ready)
    await dispatch(ready)
    await answer(ready, status=401, error=None)
    await dispatch(ready)
    tables = await ready.owner.column(
        "select format('%I.%I', nspname, relname) from pg_class join pg_namespace as n on n.oid = relnamespace"
        " where relkind in ('r', 'p', 'm')"
        " and nspname not in ('vault', 'information_schema') and nspname !~ '^pg_(toast|temp)'"
        " and has_table_privilege(pg_class.oid, 'select')"
    )
    assert {"scheduler.dispatches", "scheduler.settings", "cron.job", "net.http_request_queue"} <= set(tables)
    holding = [
        table
        for table in tables
        if await ready.owner.value(f"select exists (select from {table} as t where strpos(t::text, '{TOKEN}') > 0)")
    ]
    assert holding == ["net.http_request_queue"]


@pytest.mark.parametrize(("batches", "slices"), [(0, 1), (1, 1), (3, 3), (4, 4), (9, 4)])
async def test_open_work_gets_as_many_slices_as_there_are_batches_up_to_the_workers(
    ready: SqlCore, worker: Worker, batches: int, slices: int
) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(batches)])
    assert await dispatch(ready) == slices
    assert len(await under_way(ready)) == slices
    assert await dispatch(ready) == 0


async def test_hidden_batches_ask_for_no_worker_of_their_own(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await worker.claim(7)
    assert await dispatch(ready) == 2


async def test_batches_of_both_queues_count(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([1])])
    await ready.open_manual_run(worker, [pairs([2]), pairs([3])])
    assert await dispatch(ready) == 3


async def test_slices_under_way_are_not_asked_for_again(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await ready.owner.run("update scheduler.settings set max_workers = 3")
    assert await dispatch(ready) == 3
    await ready.owner.run("update scheduler.settings set max_workers = 5")
    assert await dispatch(ready) == 2


async def test_simultaneous_dispatches_do_not_overbook(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    clocks = [await ready.session() for _ in range(8)]
    reporters = await ready.workers(4)
    posts = await asyncio.gather(
        *(clock.value("select scheduler.dispatch()") for clock in clocks),
        *(reporter.hand_back(progressed=True) for reporter in reporters),
    )
    assert sum(number or 0 for number in posts) <= 4
    assert len(await under_way(ready)) == await posted(ready) == 4


@pytest.mark.parametrize("missing", ["scheduler_function_url", "scheduler_invoke_token"])
async def test_a_missing_secret_is_seen_and_breaks_nothing(ready: SqlCore, worker: Worker, missing: str) -> None:
    await ready.owner.run("delete from vault.secrets where name = %s", missing)
    expired = await ready.open_run(worker, [pairs([1])])
    await ready.expire_now(expired)
    await fall_due(ready)
    assert await dispatch(ready) == 0
    assert await ready.owner.rows("select error, ended_at is not null from scheduler.dispatches") == [
        ("vault_secret_missing", True)
    ]
    assert await posted(ready) == 0
    assert (await ready.describe(expired))["status"] == "failed"
    await keep_secret(ready, missing, "found again")
    assert await dispatch(ready) == 1


async def test_nothing_to_do_is_no_reason_to_miss_a_secret(core: SqlCore) -> None:
    await core.owner.run("update scheduler.settings set next_due_at = now() + interval '1 hour'")
    assert await dispatch(core) == 0
    assert await core.owner.value("select count(*) from scheduler.dispatches") == 0


async def test_a_request_that_pg_net_refuses_is_seen_and_lets_expired_runs_end(ready: SqlCore, worker: Worker) -> None:
    """pg_net raises on an address that it cannot read; Vault raises on a secret that it cannot decrypt."""
    expired = await ready.open_run(worker, [pairs([1])])
    await ready.expire_now(expired)
    await fall_due(ready)
    await ready.owner.run(
        "create function pg_temp.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'Malformed input to a URL function'; end $$;"
        " create trigger refuse before insert on net.http_request_queue for each row execute function pg_temp.refuse()"
    )
    assert await dispatch(ready) == 0
    assert (await ready.describe(expired))["status"] == "failed"
    assert await ready.owner.column("select error from scheduler.dispatches where ended_at is not null") != []


async def test_while_the_engine_is_paused_no_work_is_asked_for(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await pause(ready)
    assert await dispatch(ready) == 0
    await ready.owner.run("update scheduler.settings set engine_paused_until = now()")
    assert await dispatch(ready) == 4


async def test_a_due_slot_is_asked_for_although_the_engine_is_paused(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await pause(ready)
    await fall_due(ready)
    assert await dispatch(ready) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (202, None), (401, None), (500, None), (None, "Timeout of 40000 ms reached"), (None, "refused")],
)
async def test_every_answer_is_kept_and_ends_its_dispatch(
    ready: SqlCore, status: int | None, error: str | None
) -> None:
    await fall_due(ready)
    await dispatch(ready)
    await answer(ready, status=status, error=error)
    # still due: the function is asked again
    assert await dispatch(ready) == 1
    assert await ready.owner.rows(
        "select status_code, error, ended_at is not null from scheduler.dispatches order by id"
    ) == [(status, error, True), (None, None, False)]


async def test_a_dispatch_ends_when_its_answer_is_found(ready: SqlCore) -> None:
    """`created` is when pg_net's round began, which may be before the request was made."""
    await fall_due(ready)
    await dispatch(ready)
    await answer(ready)
    await ready.owner.run("update net._http_response set created = created - interval '1 second'")
    before = await ready.now()
    await dispatch(ready)
    (ended_at,) = await ready.owner.column("select ended_at from scheduler.dispatches where status_code = 200")
    assert ended_at >= before


async def test_a_long_error_is_cut(ready: SqlCore) -> None:
    await fall_due(ready)
    await dispatch(ready)
    await answer(ready, status=None, error="x" * 5000)
    await dispatch(ready)
    assert await ready.owner.column("select length(error) from scheduler.dispatches where error is not null") == [300]


async def test_a_lost_answer_is_given_up_after_the_time_budget_and_half_a_minute(ready: SqlCore) -> None:
    await fall_due(ready)
    await dispatch(ready)
    await ready.owner.run("delete from net.http_request_queue where true")
    await ready.owner.run("update scheduler.dispatches set requested_at = clock_timestamp() - interval '50 seconds'")
    assert await dispatch(ready) == 0
    await ready.owner.run("update scheduler.dispatches set requested_at = clock_timestamp() - interval '56 seconds'")
    assert await dispatch(ready) == 1
    assert await ready.owner.rows("select error, status_code from scheduler.dispatches where ended_at is not null") == [
        ("no_answer", None)
    ]


async def test_a_stalled_pg_net_gets_no_second_request(ready: SqlCore) -> None:
    """Its worker stood still for ten minutes: all that was posted meanwhile would go out at once."""
    await fall_due(ready)
    await dispatch(ready)
    await ready.owner.run("update scheduler.dispatches set requested_at = clock_timestamp() - interval '10 minutes'")
    assert await dispatch(ready) == 0
    assert await ready.owner.rows("select ended_at, error from scheduler.dispatches") == [(None, None)]

    await answer(ready, status=202)
    await dispatch(ready)
    assert await ready.owner.column("select status_code from scheduler.dispatches where ended_at is not null") == [202]


async def test_another_request_with_its_number_does_not_keep_a_dispatch(ready: SqlCore) -> None:
    """pg_net's sequence begins at 1 again after a crash of the database, which empties its queue."""
    await fall_due(ready)
    await dispatch(ready)
    await ready.owner.run("update net.http_request_queue set headers = '{}' where true")
    await ready.owner.run("update scheduler.dispatches set requested_at = clock_timestamp() - interval '10 minutes'")
    assert await dispatch(ready) == 1
    assert "no_answer" in await ready.owner.column("select error from scheduler.dispatches")


async def test_an_answer_that_comes_after_the_hand_back_is_kept(ready: SqlCore, worker: Worker) -> None:
    await fall_due(ready)
    await dispatch(ready)
    (dispatch_id,) = await under_way(ready)
    await answer(ready, status=202)
    await ready.owner.run("update scheduler.settings set next_due_at = now() + interval '1 hour'")
    await worker.hand_back(dispatch_id=dispatch_id)
    ended_at = await ready.owner.value("select ended_at from scheduler.dispatches")
    await dispatch(ready)
    assert await ready.owner.rows("select ended_at, status_code from scheduler.dispatches") == [(ended_at, 202)]


async def test_an_answer_with_the_number_of_a_lost_request_is_not_taken(ready: SqlCore, worker: Worker) -> None:
    """pg_net's tables and their sequence are unlogged: after a crash of the database they begin at 1 again."""
    await fall_due(ready)
    await dispatch(ready)
    (dispatch_id,) = await under_way(ready)
    await ready.owner.run("update scheduler.settings set next_due_at = now() + interval '1 hour'")
    await worker.hand_back(dispatch_id=dispatch_id)
    await ready.owner.run("update scheduler.dispatches set requested_at = now() - interval '2 hours'")
    await ready.owner.run(
        "insert into net._http_response (id, status_code) select request_id, 418 from scheduler.dispatches"
    )
    await dispatch(ready)
    assert await ready.owner.column("select status_code from scheduler.dispatches") == [None]


async def test_a_hand_back_with_progress_asks_for_the_next_slices_at_once(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await dispatch(ready)
    mine, *others = await under_way(ready)
    await worker.hand_back(dispatch_id=mine, progressed=True)
    now_under_way = await under_way(ready)
    assert len(now_under_way) == 4
    assert mine not in now_under_way
    assert set(others) < set(now_under_way)


async def test_a_hand_back_without_progress_posts_nothing(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await fall_due(ready)
    await worker.hand_back(progressed=False, engine_answers=True)
    assert await posted(ready) == 0


async def test_a_hand_back_after_the_last_batch_posts_nothing(ready: SqlCore, worker: Worker) -> None:
    run = await ready.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    await worker.finish(run)
    await worker.hand_back(progressed=True, engine_answers=True)
    assert await posted(ready) == 0


async def test_a_hand_back_that_met_an_outage_posts_nothing(ready: SqlCore, worker: Worker) -> None:
    await ready.open_run(worker, [pairs([number]) for number in range(9)])
    await worker.hand_back(progressed=True, engine_error="engine_unavailable")
    assert await posted(ready) == 0


async def test_a_hand_back_without_a_dispatch_ends_nobody_elses(ready: SqlCore, worker: Worker) -> None:
    await fall_due(ready)
    await dispatch(ready)
    before = await under_way(ready)
    await worker.hand_back(dispatch_id=None)
    await worker.hand_back(dispatch_id=before[0] + 1000)
    assert await under_way(ready) == before


async def test_work_left_lying_is_found_by_the_next_tick(ready: SqlCore, worker: Worker) -> None:
    """Killed after recording the last batch, before finish: nothing is visible, and still a slice is asked for."""
    run = await ready.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    assert await dispatch(ready) == 1
    await worker.finish(run)
    await answer(ready)
    assert await dispatch(ready) == 0
