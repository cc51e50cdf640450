"""The clock's troubles in docs/operations.md: the function was not called, in vain, too late, or beside an open run."""

from __future__ import annotations

import re
from datetime import timedelta

from tests.faults.clockwork import Clockwork
from tests.faults.mornings.operator import living_through
from tests.faults.oracle import check_chain, check_success
from tests.integration.nightly.night import Night, eventually, slot_minutes_ago
from tests.scripted_engine import rules

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}
CHANGE_VAULT = b"select vault.update_secret(id, %s) from vault.secrets where name = %s"


async def test_cron_is_green_and_nothing_ran(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(40)
    function = await night.start_function(SMALL)
    await clockwork.start()

    async with living_through("Cron is green and nothing ran", night, function) as operator:
        await night.execute(CHANGE_VAULT, ["http://127.0.0.1:9/", "scheduler_function_url"])
        await clockwork.tick_and_wait()
        await clockwork.tick_and_wait()
        assert "connect" in (await operator.look("succeeded")).text.lower()

        await night.project.write_vault_secrets(function.url)
        await night.execute(CHANGE_VAULT, ["a-token-that-the-function-does-not-know", "scheduler_invoke_token"])
        await clockwork.tick_and_wait()
        await clockwork.tick_and_wait()
        await operator.look("succeeded", "401")

        await night.execute(b"delete from vault.secrets where name = 'scheduler_invoke_token'")
        await clockwork.tick()
        await operator.look("succeeded", "vault_secret_missing")
        assert await night.invocations() == []

        await operator.press()
        await eventually(night.ended)
        await clockwork.until_quiet()
        await clockwork.tick()
        mended = await operator.see_that_it_is_mended()

    (invocation,) = mended.answers
    newest, *_ = re.findall(r"^ 20\d\d-\S+ \S+ +\|([^|]*)\|", mended.text, re.MULTILINE)
    assert newest.strip() == "200", mended.text
    await check_success(night, invocation)


async def test_the_monitor_is_red_and_the_clock_stands_still(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(40)
    function = await night.start_function(SMALL)
    await clockwork.start()
    await night.execute(b"select cron.alter_job(jobid, active => false) from cron.job")
    await night.execute(b"update scheduler.settings set next_due_at = %s", [night.slot])
    await clockwork.tick()

    async with living_through("The monitor is red and the clock stands still", night, function) as operator:
        seen = await operator.look("last_run_missing")
        assert re.search(r"scheduler-dispatch +\| \* \* \* \* \* +\| f$", seen.text, re.MULTILINE), seen.text
        assert await night.rows(b"select from scheduler.dispatches") == []

        (pressed,) = (await operator.press()).answers
        assert (pressed["status"], pressed["deduplicated"]) == ("succeeded", False)

        await clockwork.tick()
        operator.function = await night.start_function(SMALL)
        assert (await operator.see_that_it_is_mended()).statuses == [200]

    ((ago,),) = await night.rows(b"select now() - max(start_time) from cron.job_run_details")
    assert ago < timedelta(minutes=1)
    await check_success(night, pressed)


async def test_the_run_was_hours_late(night: Night, clockwork: Clockwork) -> None:
    night.schedule, night.slot = slot_minutes_ago(5 * 60)
    await night.add_mentors(40)
    function = night.project.new_function({"EVALUATION_SCHEDULE": night.schedule, **SMALL}, engine_url=night.engine.url)
    await clockwork.start()
    await clockwork.tick_and_wait()
    await function.start()
    invocation = await clockwork.until_ended()
    await clockwork.tick()

    async with living_through("The run was hours late", night, function) as operator:
        (late,) = (await operator.look("succeeded", "lateness_seconds")).answers
        assert late["lateness_seconds"] >= 5 * 60 * 60
        # the newest first: it was served in the end, and before that the function was not there
        assert [answer["status_code"] for answer in late["dispatches"]] == [200, None]
        assert late["dispatches"][1]["error"]

        (pressed,) = (await operator.press()).answers
        assert (pressed["id"], pressed["deduplicated"]) == (invocation["id"], True)
        assert (await operator.see_that_it_is_mended()).statuses == [200]

    assert len(await night.invocations()) == 1
    await check_success(night, invocation)


async def test_last_night_was_skipped(night: Night, clockwork: Clockwork) -> None:
    """The run before is in the hands of a process that is gone when the next slot falls due."""
    last_night = night.slot
    night.schedule, night.slot = slot_minutes_ago(60)
    await night.add_mentors(40)
    night.engine.rules.append(rules.only(rules.first(2), rules.never_answer()))
    lost = await night.start_function(SMALL | {"ENGINE_MAX_CONCURRENCY": "2"}, restart=False)
    await clockwork.start()
    await clockwork.tick()
    await night.engine.until_called(2)
    await lost.kill()
    night.schedule = f"{last_night.minute} {last_night.hour} * * *"
    function = await night.start_function(SMALL)

    async with living_through("Last night was skipped", night, function) as operator:
        await night.fire(function)
        seen = await operator.look("skipped", "overlap", "running")
        skipped, open_run = seen.answers[0]["items"]
        assert (skipped["status"], skipped["error"], open_run["status"]) == ("skipped", "overlap", "running")

        cancelled, retry = (await operator.press()).answers
        assert (cancelled["id"], cancelled["status"]) == (open_run["id"], "cancelled")
        still_open, retries = (await operator.see_that_it_is_mended()).answers

    assert still_open["items"] == []
    assert [(run["id"], run["status"]) for run in retries["items"]] == [(retry["id"], "succeeded")]
    assert await check_chain(night, [cancelled, retry]) == night.expected_pairs()
