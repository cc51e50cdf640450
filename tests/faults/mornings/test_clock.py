"""Mornings of the clock: nobody was called, or in vain, or too late, or at a time when another night was open."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.faults.mornings.operator import living_through
from tests.faults.oracle import check_promises
from tests.integration.manual.caller import Caller, let_no_slot_be_due
from tests.integration.nightly.night import Night, eventually, slot_minutes_ago
from tests.scripted_engine import rules

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}


async def monitor(night: Night, function: FunctionProcess) -> tuple[int, str | None]:
    """What the monitor outside sees; an instance remembers it for half a minute."""
    answer = await night.http.get(f"{function.url}/health/last-run")
    return answer.status_code, answer.json().get("code")


def answers_in(table: str) -> list[str]:
    """The statuses in psql's table of dispatches."""
    return [status.strip() for status in re.findall(r"^ 20\d\d-\S+ \S+ +\|([^|]*)\|", table, re.MULTILINE)]


async def test_cron_is_green_and_nothing_ran(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(40)
    function = await night.start_function(SMALL)
    await clockwork.start()
    assert await monitor(night, function) == (503, "last_run_missing")
    forget = b"delete from vault.secrets where name = 'scheduler_invoke_token'"
    mistake = b"select vault.update_secret(id, %s) from vault.secrets where name = %s"

    async with living_through("Cron is green and nothing ran", night, function) as operator:
        await night.execute(mistake, ["http://127.0.0.1:9/", "scheduler_function_url"])
        await clockwork.tick()
        await clockwork.until_quiet()
        await clockwork.tick()
        moved = await operator.look("succeeded")
        assert "connect" in moved.text.lower(), moved.text

        await night.project.write_vault_secrets(function.url)
        await night.execute(mistake, ["a-token-that-the-function-does-not-know", "scheduler_invoke_token"])
        await clockwork.until_quiet()
        await clockwork.tick()
        await clockwork.until_quiet()
        await clockwork.tick()
        await operator.look("succeeded", "401")

        await clockwork.until_quiet()
        await night.execute(forget)
        await clockwork.tick()
        await operator.look("succeeded", "vault_secret_missing")
        assert await night.invocations() == []
        assert await night.rows(b"select distinct status from cron.job_run_details") == [("succeeded",)]

        await operator.press()
        await eventually(night.ended)
        await clockwork.until_quiet()
        await clockwork.tick()
        mended = await operator.see_that_it_is_mended()

    (invocation,) = mended.answers
    assert invocation["status"] == "succeeded"
    assert answers_in(mended.text)[0] == "200", mended.text
    assert await monitor(night, await night.start_function(SMALL)) == (200, None)
    await check_promises(night, invocation)


async def test_the_monitor_is_red_and_the_clock_stands_still(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(40)
    function = await night.start_function(SMALL)
    await clockwork.start()
    await night.execute(b"select cron.alter_job(jobid, active => false) from cron.job")
    # In the evening; then the slot falls due.
    await let_no_slot_be_due(night)
    await Caller(night, function).run({"dry_run": True})
    await night.execute(b"update scheduler.settings set next_due_at = %s", [night.slot])
    await night.project.make_slot_due()
    await clockwork.tick()

    async with living_through("The monitor is red and the clock stands still", night, function) as operator:
        seen = await operator.look("last_run_missing", "succeeded")
        assert re.search(r"scheduler-dispatch +\| \* \* \* \* \* +\| f$", seen.text, re.MULTILINE), seen.text
        assert [item["dry_run"] for item in seen.answers[1]["items"]] == [True]
        assert await night.rows(b"select from scheduler.dispatches") == []

        pressed = await operator.press()
        assert (pressed.answers[0]["status"], pressed.answers[0]["deduplicated"]) == ("succeeded", False)

        await clockwork.tick()
        operator.function = await night.start_function(SMALL)
        mended = await operator.see_that_it_is_mended()

    assert mended.statuses == [200]
    ((ago,),) = await night.rows(b"select now() - max(start_time) from cron.job_run_details")
    assert ago < timedelta(minutes=1)
    await check_promises(night, pressed.answers[0])


async def test_the_run_was_hours_late(night: Night, clockwork: Clockwork) -> None:
    night.schedule, night.slot = slot_minutes_ago(5 * 60)
    await night.add_mentors(40)
    function = night.project.new_function({"EVALUATION_SCHEDULE": night.schedule, **SMALL}, engine_url=night.engine.url)
    await clockwork.start()
    await clockwork.tick()
    await clockwork.until_quiet()
    await function.start()
    invocation = await clockwork.until_ended()
    await clockwork.tick()

    async with living_through("The run was hours late", night, function) as operator:
        seen = await operator.look("succeeded", "lateness_seconds")
        (late,) = seen.answers
        assert late["lateness_seconds"] >= 5 * 60 * 60
        # the newest first: it was served in the end, and before that nobody was there
        assert [answer["status_code"] for answer in late["dispatches"]] == [200, None]
        assert late["dispatches"][1]["error"]

        pressed = await operator.press()
        assert (pressed.answers[0]["id"], pressed.answers[0]["deduplicated"]) == (invocation["id"], True)
        mended = await operator.see_that_it_is_mended()

    assert mended.statuses == [200]
    assert len(await night.invocations()) == 1
    await check_promises(night, invocation)


async def test_last_night_was_skipped(night: Night, clockwork: Clockwork) -> None:
    """The night before lies in the hands of a process that is gone when the next slot falls due."""
    last_night = night.slot
    night.schedule, night.slot = slot_minutes_ago(60)
    await night.add_mentors(40)
    night.engine.rules.append(rules.only(rules.first(2), rules.never_answer()))
    lost = await night.start_function(SMALL | {"ENGINE_MAX_CONCURRENCY": "2"}, restart=False)
    await clockwork.start()
    await clockwork.tick()
    await night.engine.until_called(2)
    await lost.kill()
    night.schedule, night.slot = f"{last_night.minute} {last_night.hour} * * *", last_night
    function = await night.start_function(SMALL)

    async with living_through("Last night was skipped", night, function) as operator:
        await night.fire(function)
        seen = await operator.look("skipped", "overlap", "running")
        skipped, open_run = seen.answers[0]["items"]
        assert (skipped["status"], skipped["error"], open_run["status"]) == ("skipped", "overlap", "running")

        cancelled, retry = (await operator.press()).answers
        assert (cancelled["id"], cancelled["status"]) == (open_run["id"], "cancelled")
        mended = await operator.see_that_it_is_mended()

    assert mended.answers[0]["items"] == []
    (mended_run,) = mended.answers[1]["items"]
    assert (mended_run["id"], mended_run["status"]) == (retry["id"], "succeeded")
    assert cancelled["counts"]["not_evaluated"] == retry["counts"]["evaluations"]
    outcomes = await night.recorded_pairs(cancelled["id"]) | await night.recorded_pairs(retry["id"])
    assert outcomes == night.expected_pairs()
    assert night.engine.notified_twice == []
    assert datetime.fromisoformat(skipped["scheduled_for"]).astimezone(UTC) == last_night
