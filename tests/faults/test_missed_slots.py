"""A slot that no function served: caught up by itself, late, once, while it is worth it."""

from __future__ import annotations

from datetime import datetime

from tests.faults.oracle import check_success
from tests.faults.time_control import TimeControl
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness, slot_minutes_ago

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}
MISSED_TICKS = 3
MISSED_MINUTES = 23 * 60


async def test_the_last_of_three_missed_slots_is_caught_up(harness: Harness, time_control: TimeControl) -> None:
    """The function knows another token than Vault, and the cron job is green all the time."""
    harness.schedule, harness.slot = slot_minutes_ago(MISSED_MINUTES)
    await harness.add_mentors(100)
    await harness.project.make_slot_due(days=3)
    function = await harness.start_function(SMALL)
    await time_control.start()
    await harness.execute(
        b"select vault.update_secret(id, 'a-token-that-the-function-does-not-know')"
        b" from vault.secrets where name = 'scheduler_invoke_token'"
    )
    for _ in range(MISSED_TICKS):
        await time_control.tick_and_wait()
    assert (await harness.invocations(), harness.engine.calls) == ([], [])
    assert set(await harness.rows(b"select status from cron.job_run_details")) == {("succeeded",)}

    await harness.project.write_vault_secrets(function.url)
    invocation = await time_control.until_ended()
    await time_control.tick_and_wait()

    assert datetime.fromisoformat(invocation["scheduled_for"]) == harness.slot
    started = datetime.fromisoformat(invocation["started_at"])
    assert invocation["lateness_seconds"] == round((started - harness.slot).total_seconds())
    assert invocation["lateness_seconds"] >= MISSED_MINUTES * 60
    await check_success(harness, invocation)
    seen = await Caller(harness, function).see(invocation["id"])
    met = {answer["status_code"]: answer for answer in seen["dispatches"]}
    assert (set(met), met[401]["count"]) == ({401, 200}, MISSED_TICKS)
    assert met[401]["first_at"] < met[401]["last_at"] < met[200]["first_at"]
    assert (await harness.http.get(f"{function.url}/health/last-run")).status_code == 200

    dispatches = await harness.rows(b"select id from scheduler.dispatches")
    await time_control.tick_and_wait()
    assert await harness.rows(b"select id from scheduler.dispatches") == dispatches, (
        "nothing is due and nothing is open"
    )
    assert len(await harness.invocations()) == 1
    assert max(harness.engine.keys_seen.values()) == 1
