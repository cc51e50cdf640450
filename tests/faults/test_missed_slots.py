"""A slot that no function served: caught up by itself, late, once, while it is worth it."""

from __future__ import annotations

from datetime import datetime

from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night, slot_minutes_ago

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}
MISSED_TICKS = 3
MISSED_MINUTES = 23 * 60


async def test_the_last_of_three_missed_slots_is_caught_up(night: Night, clockwork: Clockwork) -> None:
    """The function knows another token than Vault, and the cron job is green all the time."""
    night.schedule, night.slot = slot_minutes_ago(MISSED_MINUTES)
    await night.add_mentors(100)
    await night.project.make_slot_due(days=3)
    function = await night.start_function(SMALL)
    await clockwork.start()
    await night.execute(
        b"select vault.update_secret(id, 'a-token-that-the-function-does-not-know')"
        b" from vault.secrets where name = 'scheduler_invoke_token'"
    )
    for _ in range(MISSED_TICKS):
        await clockwork.tick_and_wait()
    assert (await night.invocations(), night.engine.calls) == ([], [])
    assert set(await night.rows(b"select status from cron.job_run_details")) == {("succeeded",)}

    await night.project.write_vault_secrets(function.url)
    invocation = await clockwork.until_ended()
    await clockwork.tick_and_wait()

    assert datetime.fromisoformat(invocation["scheduled_for"]) == night.slot
    started = datetime.fromisoformat(invocation["started_at"])
    assert invocation["lateness_seconds"] == round((started - night.slot).total_seconds())
    assert invocation["lateness_seconds"] >= MISSED_MINUTES * 60
    await check_success(night, invocation)
    seen = await Caller(night, function).see(invocation["id"])
    met = {answer["status_code"]: answer for answer in seen["dispatches"]}
    assert (set(met), met[401]["count"]) == ({401, 200}, MISSED_TICKS)
    assert met[401]["first_at"] < met[401]["last_at"] < met[200]["first_at"]
    assert (await night.http.get(f"{function.url}/health/last-run")).status_code == 200

    dispatches = await night.rows(b"select id from scheduler.dispatches")
    await clockwork.tick_and_wait()
    assert await night.rows(b"select id from scheduler.dispatches") == dispatches, "nothing is due and nothing is open"
    assert len(await night.invocations()) == 1
    assert max(night.engine.keys_seen.values()) == 1
