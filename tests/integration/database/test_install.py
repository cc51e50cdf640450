"""scheduler.prepare_schedule, connect and disconnect: what deploy.sh asks of the database."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from .sql_core import SqlCore, Worker, minutes

URL = "https://function.example"
TOKENS = ("invoke-token-5b1f", "invoke-token-77aa")
SCHEDULE, OTHER = "0 2 * * * UTC", "30 4 * * * UTC"


async def connect(core: SqlCore, url: str = URL, token: str = TOKENS[0], schedule: str = SCHEDULE) -> Any:
    under_safeupdate = await core.session_under_safeupdate()
    return await under_safeupdate.value("select scheduler.connect(%s, %s, %s)", url, token, schedule)


async def prepare(core: SqlCore, schedule: str) -> Any:
    return await (await core.session_under_safeupdate()).value("select scheduler.prepare_schedule(%s)", schedule)


async def disconnect(core: SqlCore) -> Any:
    return await (await core.session_under_safeupdate()).value("select scheduler.disconnect()")


async def kept(core: SqlCore) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What Vault and pg_cron hold."""
    return (
        await core.owner.rows("select name, decrypted_secret from vault.decrypted_secrets order by name"),
        await core.owner.rows("select jobname, schedule, command, active from cron.job order by jobname"),
    )


async def test_connecting_calls_the_function_from_now_on(core: SqlCore) -> None:
    """Again it changes nothing but the token; an engine that was given up is looked at again."""
    _, jobs = await kept(core)
    for token, is_new in ((TOKENS[0], True), (TOKENS[0], False), (TOKENS[1], True)):
        await core.change_settings(
            "next_due_at = now() + interval '20 hours', engine_outages = 9,"
            " engine_paused_until = now() + interval '5 minutes'"
        )
        assert await connect(core, URL if is_new else f"{URL}/", token) is is_new
        secrets = [("scheduler_function_url", f"{URL}/"), ("scheduler_invoke_token", token)]
        assert await kept(core) == (secrets, jobs)
        assert await core.settings("next_due_at, schedule, engine_outages, engine_paused_until") == (
            *(None, SCHEDULE, 0, None),
        )
    assert await core.owner.value("select scheduler.dispatch()") == 1
    assert await core.owner.value("select url from net.http_request_queue") == f"{URL}/"


@pytest.mark.parametrize(("url", "token"), [("", TOKENS[0]), (TOKENS[0], URL), (URL, "")])
async def test_what_is_no_url_or_token_is_refused_unshown(core: SqlCore, url: str, token: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="expected the URL of the function") as refused:
        await connect(core, url, token)
    assert TOKENS[0] not in str(refused.value)


@pytest.mark.parametrize(("schedule", "is_caught_up"), [(SCHEDULE, True), (OTHER, False)])
async def test_only_a_schedule_that_stays_is_caught_up(
    core: SqlCore, worker: Worker, schedule: str, is_caught_up: bool
) -> None:
    """The old one ran at two; at noon it becomes four: users evaluated at two are not evaluated again at noon."""
    now = (await core.now()).replace(second=0, microsecond=0)
    await connect(core)
    await core.change_settings(f"slot_high_water_mark = '{now - minutes(600)}'")
    assert await prepare(core, schedule) is not is_caught_up
    assert (await worker.open_slot(now - minutes(480), now + minutes(960)))["opened"] is is_caught_up
    await connect(core, schedule=schedule)
    assert await prepare(core, schedule) is False


async def test_a_mark_in_the_future_is_not_taken_back(core: SqlCore) -> None:
    """A clock that was wrong once: its slots stay spent."""
    await core.change_settings("slot_high_water_mark = now() + interval '1 day'")
    before = await core.settings("*")
    await prepare(core, OTHER)
    assert await core.settings("*") == before


async def test_disconnecting_takes_only_what_calls(core: SqlCore, worker: Worker) -> None:
    """And connecting again brings it back, without catching up what was missed meanwhile."""
    _, had = await kept(core)
    await connect(core)
    await core.open_manual_run(worker)
    await core.owner.run("select vault.create_secret('kept', 'another')")
    await core.owner.run("select cron.schedule('another', '* * * * *', 'select 1')")
    for _ in range(2):
        assert await disconnect(core) == 0
        assert await kept(core) == ([("another", "kept")], [("another", "* * * * *", "select 1", True)])
    assert await core.owner.value("select count(*) from public.scheduler_invocations") == 1
    await core.install_long_ago()
    assert await prepare(core, SCHEDULE) is True
    await connect(core)
    assert set((await kept(core))[1]) >= set(had)
    assert not (await worker.open_slot(*await core.slots()))["opened"]


async def test_disconnecting_deletes_only_its_pg_net_and_cron_rows(core: SqlCore) -> None:
    """One call is answered, one being sent, one waits; an earlier call's number is another request's since a crash."""
    await connect(core)
    await core.owner.run("select net.http_post('https://others.example')")
    await core.owner.run(
        "insert into scheduler.dispatches (request_id, requested_at, status_code)"
        " select id, now() - interval '1 day', 200 from net.http_request_queue"
    )
    await core.owner.run("insert into net._http_response (id, status_code) select id, 204 from net.http_request_queue")
    for _ in range(3):
        await core.owner.run("select scheduler.request_slice(25)")
    (answered, sending, unsent) = await core.owner.column(
        "select request_id from scheduler.dispatches where status_code is null order by id"
    )
    await core.owner.run(
        "insert into cron.job_run_details (runid, command, database, username) values"
        " (1, 'select scheduler.dispatch()', current_database(), current_user),"
        " (2, 'call scheduler.prune()', current_database(), current_user),"
        " (3, 'select scheduler.dispatch()', 'another', current_user),"
        " (4, 'select 1', current_database(), current_user)"
    )

    await core.owner.run("delete from net.http_request_queue where id = %s", answered)
    await core.owner.run("insert into net._http_response (id, status_code) values (%s, 200)", answered)
    pg_net = await core.session()
    async with pg_net.transaction():
        await pg_net.run("delete from net.http_request_queue where id = %s", sending)
        assert await disconnect(core) == 1
        assert await core.owner.column("select id from net.http_request_queue where id = %s", unsent) == []
        assert await core.owner.value("select status_code from scheduler.dispatches where request_id = %s", answered)
        await pg_net.run("insert into net._http_response (id, status_code) values (%s, 202)", sending)
    assert await disconnect(core) == 0

    assert await core.owner.rows("select url from net.http_request_queue") == [("https://others.example",)]
    assert await core.owner.rows("select status_code from net._http_response") == [(204,)]
    assert await core.owner.column("select runid from cron.job_run_details order by 1") == [3, 4]
    assert await core.owner.value("select count(*) from scheduler.dispatches") == 4
