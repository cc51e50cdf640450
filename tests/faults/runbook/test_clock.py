"""The clock's troubles in docs/operations.md: the function was not called, in vain, too late, or beside an open run."""

from __future__ import annotations

import re
from datetime import timedelta

from tests.faults.oracle import check_chain, check_success
from tests.faults.runbook.operator import incident
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness, eventually, slot_minutes_ago
from tests.scripted_engine import rules

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}
CHANGE_VAULT = b"select vault.update_secret(id, %s) from vault.secrets where name = %s"


async def test_cron_is_green_and_nothing_ran(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(40)
    function = await harness.start_function(SMALL)
    await time_control.start()

    async with incident("Cron is green and nothing ran", harness, function) as operator:
        await harness.execute(CHANGE_VAULT, ["http://127.0.0.1:9/", "scheduler_function_url"])
        await time_control.tick_and_wait()
        await time_control.tick_and_wait()
        assert "connect" in (await operator.check("succeeded")).text.lower()

        await harness.project.write_vault_secrets(function.url)
        await harness.execute(CHANGE_VAULT, ["a-token-that-the-function-does-not-know", "scheduler_invoke_token"])
        await time_control.tick_and_wait()
        await time_control.tick_and_wait()
        await operator.check("succeeded", "401")

        await harness.execute(b"delete from vault.secrets where name = 'scheduler_invoke_token'")
        await time_control.tick()
        await operator.check("succeeded", "vault_secret_missing")
        assert await harness.invocations() == []

        await operator.fix()
        await eventually(harness.ended)
        await time_control.until_quiet()
        await time_control.tick()
        confirmed = await operator.confirm()

    (invocation,) = confirmed.answers
    newest, *_ = re.findall(r"^ 20\d\d-\S+ \S+ +\|([^|]*)\|", confirmed.text, re.MULTILINE)
    assert newest.strip() == "200", confirmed.text
    await check_success(harness, invocation)


async def test_the_monitor_is_red_and_cron_has_stopped(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(40)
    function = await harness.start_function(SMALL)
    await time_control.start()
    await harness.execute(b"select cron.alter_job(jobid, active => false) from cron.job")
    await harness.execute(b"update scheduler.settings set next_due_at = %s", [harness.slot])
    await time_control.tick()

    async with incident("The monitor is red and cron has stopped", harness, function) as operator:
        seen = await operator.check("last_run_missing")
        assert re.search(r"scheduler-dispatch +\| \* \* \* \* \* +\| f$", seen.text, re.MULTILINE), seen.text
        assert await harness.rows(b"select from scheduler.dispatches") == []

        (fired,) = (await operator.fix()).answers
        assert (fired["status"], fired["deduplicated"]) == ("success", False)

        await time_control.tick()
        operator.function = await harness.start_function(SMALL)
        assert (await operator.confirm()).statuses == [200]

    ((ago,),) = await harness.rows(b"select now() - max(start_time) from cron.job_run_details")
    assert ago < timedelta(minutes=1)
    await check_success(harness, await harness.describe(fired["id"]))


async def test_the_run_was_hours_late(harness: Harness, time_control: TimeControl) -> None:
    harness.schedule, harness.slot = slot_minutes_ago(5 * 60)
    await harness.add_mentors(40)
    function = harness.project.new_function(
        {"EVALUATION_SCHEDULE": harness.schedule, **SMALL}, engine_url=harness.engine.url
    )
    await time_control.start()
    await time_control.tick_and_wait()
    await function.start()
    invocation = await time_control.until_ended()
    await time_control.tick()

    async with incident("The run was hours late", harness, function) as operator:
        (late,) = (await operator.check("success", "lateness_seconds")).answers
        assert late["lateness_seconds"] >= 5 * 60 * 60
        # the newest first: it was served in the end, and before that the function was not there
        assert [answer["status_code"] for answer in late["dispatches"]] == [200, None]
        assert late["dispatches"][1]["error"]

        (fired,) = (await operator.fix()).answers
        assert (fired["id"], fired["deduplicated"]) == (invocation["id"], True)
        assert (await operator.confirm()).statuses == [200]

    assert len(await harness.invocations()) == 1
    await check_success(harness, invocation)


async def test_the_last_run_was_skipped(harness: Harness, time_control: TimeControl) -> None:
    """The run before is in the hands of a process that is gone when the next slot falls due."""
    earlier_slot = harness.slot
    harness.schedule, harness.slot = slot_minutes_ago(60)
    await harness.add_mentors(40)
    harness.engine.rules.append(rules.only(rules.first(2), rules.never_answer()))
    lost = await harness.start_function(SMALL | {"ENGINE_MAX_CONCURRENCY": "2"}, restart=False)
    await time_control.start()
    await time_control.tick()
    await harness.engine.until_called(2)
    await lost.kill()
    harness.schedule = f"{earlier_slot.minute} {earlier_slot.hour} * * *"
    function = await harness.start_function(SMALL)

    async with incident("The last run was skipped", harness, function) as operator:
        await harness.fire(function)
        seen = await operator.check("skipped", "overlap", "running")
        skipped, open_run = seen.answers[0]["data"]
        assert (skipped["status"], skipped["error_code"], open_run["status"]) == ("skipped", "overlap", "running")

        cancelled, retry = (await operator.fix()).answers
        assert (cancelled["id"], cancelled["status"]) == (open_run["id"], "cancelled")
        still_open, retries = (await operator.confirm()).answers

    assert still_open["data"] == []
    assert [(run["id"], run["status"]) for run in retries["data"]] == [(retry["id"], "success")]
    assert await check_chain(harness, [cancelled, retry]) == harness.expected_pairs()
