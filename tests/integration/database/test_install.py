"""scheduler.prepare_schedule, connect and disconnect: what deploy.sh asks of the database."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .sql_core import SqlCore, Worker, minutes

URL = "https://function.example"
TOKENS = ("invoke-token-5b1f", "invoke-token-77aa")
SCHEDULE = "0 2 * * * UTC"
OTHER = "30 4 * * * UTC"
UNINSTALL = Path(__file__).parents[3] / "supabase" / "uninstall.sql"


async def connect(core: SqlCore, url: str = URL, token: str = TOKENS[0], schedule: str = SCHEDULE) -> Any:
    under_safeupdate = await core.session_under_safeupdate()
    return await under_safeupdate.value("select scheduler.connect(%s, %s, %s)", url, token, schedule)


async def prepare(core: SqlCore, schedule: str) -> Any:
    under_safeupdate = await core.session_under_safeupdate()
    return await under_safeupdate.value("select scheduler.prepare_schedule(%s)", schedule)


async def settings(core: SqlCore) -> tuple[Any, ...]:
    ((mark, due, schedule),) = await core.owner.rows(
        "select slot_high_water_mark, next_due_at, schedule from scheduler.settings"
    )
    return mark, due, schedule


async def in_vault(core: SqlCore) -> dict[str, str]:
    return dict(await core.owner.rows("select name, decrypted_secret from vault.decrypted_secrets"))


async def jobs(core: SqlCore) -> list[tuple[Any, ...]]:
    return await core.owner.rows("select jobname, schedule, command, active from cron.job order by jobname")


async def test_connecting_tells_where_the_function_is_and_asks_it_when_it_is_due(core: SqlCore) -> None:
    await core.owner.run("update scheduler.settings set next_due_at = now() + interval '20 hours'")
    assert await connect(core) is True
    assert await in_vault(core) == {"scheduler_function_url": f"{URL}/", "scheduler_invoke_token": TOKENS[0]}
    assert (await settings(core))[1:] == (None, SCHEDULE)
    assert await core.owner.value("select scheduler.dispatch()") == 1
    assert await core.owner.value("select url from net.http_request_queue") == f"{URL}/"


async def test_connecting_again_changes_nothing(core: SqlCore) -> None:
    await connect(core)
    before = await core.owner.rows("select id, decrypted_secret, updated_at from vault.decrypted_secrets order by id")
    had = await jobs(core)
    assert await connect(core, f"{URL}/") is False
    assert (
        await core.owner.rows("select id, decrypted_secret, updated_at from vault.decrypted_secrets order by id")
        == before
    )
    assert await jobs(core) == had


async def test_connecting_has_a_look_at_an_engine_that_was_given_up(core: SqlCore) -> None:
    await core.owner.run(
        "update scheduler.settings set engine_outages = 9, engine_paused_until = now() + interval '5 minutes'"
    )
    await connect(core)
    assert await core.owner.rows("select engine_outages, engine_paused_until from scheduler.settings") == [(0, None)]


async def test_another_token_takes_the_place_of_the_first(core: SqlCore) -> None:
    await connect(core)
    assert await connect(core, token=TOKENS[1]) is True
    assert (await in_vault(core))["scheduler_invoke_token"] == TOKENS[1]


async def test_the_latest_slot_of_a_new_schedule_is_not_caught_up(core: SqlCore, worker: Worker) -> None:
    """The old one ran at two; at noon it becomes four. Who was evaluated at two is not evaluated again at noon."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    await connect(core)
    await core.owner.run("update scheduler.settings set slot_high_water_mark = %s", now - minutes(600))
    assert await prepare(core, OTHER) is True
    answer = await worker.open_slot(now - minutes(480), now + minutes(960))
    assert (answer["opened"], answer["invocation"]) == (False, None)
    assert await core.owner.value("select count(*) from public.scheduler_invocations") == 0


async def test_a_slot_of_a_schedule_that_stays_is_caught_up_after_a_deployment(core: SqlCore, worker: Worker) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    await connect(core)
    await core.owner.run("update scheduler.settings set slot_high_water_mark = %s", now - minutes(2000))
    assert await prepare(core, SCHEDULE) is False
    answer = await worker.open_slot(now - minutes(480), now + minutes(960))
    assert answer["opened"] is True


async def test_a_new_schedules_first_slot_after_the_change_runs(core: SqlCore, worker: Worker) -> None:
    await connect(core)
    await prepare(core, OTHER)
    mark = datetime.now(UTC) - minutes(3)
    await core.owner.run("update scheduler.settings set slot_high_water_mark = %s", mark)
    await connect(core, schedule=OTHER)
    slot = datetime.now(UTC).replace(second=0, microsecond=0) - minutes(1)
    assert (await worker.open_slot(slot, slot + minutes(1440)))["opened"] is True


async def test_a_mark_in_the_future_is_not_taken_back(core: SqlCore) -> None:
    """A clock that was wrong once: its slots stay spent."""
    await core.owner.run("update scheduler.settings set slot_high_water_mark = now() + interval '1 day'")
    before = await settings(core)
    await prepare(core, OTHER)
    assert await settings(core) == before


@pytest.mark.parametrize(("url", "token"), [("", TOKENS[0]), (TOKENS[0], URL), (URL, "")])
async def test_what_is_no_url_or_no_token_is_refused_unshown(core: SqlCore, url: str, token: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="expected the URL of the function") as refused:
        await connect(core, url, token)
    assert TOKENS[0] not in str(refused.value)


async def test_disconnecting_leaves_nothing_that_calls_and_everything_that_was_recorded(
    core: SqlCore, worker: Worker
) -> None:
    slot = datetime.now(UTC).replace(second=0, microsecond=0)
    await connect(core)
    await core.owner.run("update scheduler.settings set slot_high_water_mark = now() - interval '1 day'")
    await worker.open_slot(slot, slot + minutes(1440))
    await core.owner.run("select vault.create_secret('kept', 'somebody else''s')")
    await core.owner.run("select cron.schedule('somebody-else''s', '* * * * *', 'select 1')")
    for _ in range(2):
        assert await (await core.session_under_safeupdate()).value("select scheduler.disconnect()") == 0
        assert await in_vault(core) == {"somebody else's": "kept"}
        assert [name for name, *_ in await jobs(core)] == ["somebody-else's"]
    assert await core.owner.value("select count(*) from public.scheduler_invocations") == 1


async def test_disconnecting_deletes_only_its_own_pg_net_and_cron_rows(core: SqlCore) -> None:
    """One call is answered, one being sent, one waits; an earlier call's number is another request's since a crash."""
    await connect(core)
    await core.owner.run("select net.http_post('https://others.example')")
    await core.owner.run(
        "insert into scheduler.dispatches (request_id, requested_at, status_code)"
        " select id, now() - interval '1 day', 200 from net.http_request_queue"
    )
    await core.owner.run("insert into net._http_response (id, status_code) select id, 204 from net.http_request_queue")
    for _ in range(3):
        await core.owner.run("select scheduler.post_slice(25)")
    ours = await core.owner.rows("select request_id from scheduler.dispatches where status_code is null order by id")
    (answered, sending, unsent) = [number for (number,) in ours]
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
        assert await core.owner.value("select scheduler.disconnect()") == 1
        assert await core.owner.column("select id from net.http_request_queue where id = %s", unsent) == []
        assert await core.owner.value("select status_code from scheduler.dispatches where request_id = %s", answered)
        await pg_net.run("insert into net._http_response (id, status_code) values (%s, 202)", sending)
    assert await core.owner.value("select scheduler.disconnect()") == 0

    assert await core.owner.rows("select url from net.http_request_queue") == [("https://others.example",)]
    assert await core.owner.rows("select status_code from net._http_response") == [(204,)]
    assert await core.owner.rows(
        "select database = current_database(), command from cron.job_run_details order by 1"
    ) == [(False, "select scheduler.dispatch()"), (True, "select 1")]
    assert await core.owner.value("select count(*) from scheduler.dispatches") == 4


async def test_installing_again_brings_the_jobs_back_and_notifies_nobody(core: SqlCore, worker: Worker) -> None:
    await connect(core)
    had = await jobs(core)
    await core.owner.run("update scheduler.settings set slot_high_water_mark = now() - interval '3 days'")
    await core.owner.run("select scheduler.disconnect()")
    assert await prepare(core, SCHEDULE) is True
    await connect(core)
    assert await jobs(core) == had
    slot = datetime.now(UTC).replace(second=0, microsecond=0) - minutes(60)
    assert (await worker.open_slot(slot, slot + minutes(1440)))["opened"] is False


async def test_uninstalling_leaves_the_mentors_and_nothing_of_the_scheduler(core: SqlCore, worker: Worker) -> None:
    await connect(core)
    await core.open_run(worker)
    of_psql = re.compile(r"^\\if.*?^\\endif$|^\\.*?$", re.DOTALL | re.MULTILINE)
    script = of_psql.sub("", UNINSTALL.read_text()).replace(":'versions'", "''")
    await (await core.session_under_safeupdate()).run(script)
    assert await core.owner.value("select to_regnamespace('scheduler')") is None
    assert (
        await core.owner.column(
            "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relname ~ '^scheduler_'"
        )
        == []
    )
    assert await core.owner.value("select to_regclass('public.peer_mentors') is not null")
    assert (await in_vault(core), await jobs(core)) == ({}, [])
