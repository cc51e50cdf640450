"""A slot that no function served: caught up by itself, late, once, while it is worth it."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night, slot_minutes_ago

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}
MISSED_TICKS = 3
MISSED_MINUTES = 23 * 60


async def last_run_status(night: Night, function: FunctionProcess) -> int:
    """What a monitor sees; a process remembers it for half a minute."""
    return (await night.http.get(f"{function.url}/health/last-run")).status_code


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
    assert {code: answer["count"] for code, answer in met.items()} == {401: MISSED_TICKS, 200: 1}
    assert met[401]["first_at"] < met[401]["last_at"] < met[200]["first_at"]
    assert await last_run_status(night, function) == 200

    dispatches = await night.rows(b"select id from scheduler.dispatches")
    await clockwork.tick_and_wait()
    assert await night.rows(b"select id from scheduler.dispatches") == dispatches, "nothing is due and nothing is open"
    assert len(await night.invocations()) == 1
    assert max(night.engine.keys_seen.values()) == 1


async def test_a_slot_missed_for_too_long_is_not_caught_up(night: Night, clockwork: Clockwork) -> None:
    """Of a monthly schedule; 24 hours are the limit. The monitor is what tells of it."""
    await night.add_mentors(10)
    slot = night.slot - timedelta(days=3)
    monthly = f"{slot.minute} {slot.hour} {slot.day} * *"
    function = await night.start_function(SMALL | {"EVALUATION_SCHEDULE": monthly, "MISSED_SLOT_MAX_GAP_HOURS": "24"})
    await clockwork.start()

    for _ in range(2):
        await clockwork.tick_and_wait()
    answer = await night.fire(function)
    named = await night.fire(function, {"scheduled_for": slot.isoformat()})

    assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
    assert (named.status_code, named.json()["code"]) == (422, "not_a_slot")
    assert (await night.invocations(), night.engine.calls) == ([], [])
    assert await last_run_status(night, function) == 503
    assert len(await night.rows(b"select from scheduler.dispatches")) == 1, "it was asked once, and knows it is not due"
