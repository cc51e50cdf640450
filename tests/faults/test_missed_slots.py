"""A slot that nobody served: caught up by itself, late, once, while it is worth it; and what an operator sees of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises, check_rest
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night, slot_minutes_ago

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}
# Ticks while nobody was there, or nobody who was of any use.
MISSED_TICKS = 3


async def last_run_status(night: Night, function: FunctionProcess) -> int:
    """What a monitor sees; it is remembered for half a minute, so ask a process once."""
    return (await night.http.get(f"{function.url}/health/last-run")).status_code


@pytest.mark.parametrize("missed_minutes", [60, 23 * 60], ids=["an hour", "most of a day"])
async def test_a_slot_missed_by_hours_is_caught_up_by_the_next_tick_late_and_once(
    night: Night, clockwork: Clockwork, missed_minutes: int
) -> None:
    night.schedule, night.slot = slot_minutes_ago(missed_minutes)
    await night.add_mentors(100)
    function = await night.start_function(SMALL)
    await clockwork.start()

    await clockwork.tick()
    await clockwork.until_quiet()
    invocation = await clockwork.until_ended()

    assert datetime.fromisoformat(invocation["scheduled_for"]) == night.slot
    started = datetime.fromisoformat(invocation["started_at"])
    assert invocation["lateness_seconds"] == round((started - night.slot).total_seconds())
    assert invocation["lateness_seconds"] >= missed_minutes * 60
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    calls = len(night.engine.calls)
    dispatched = await dispatches(night)
    for _ in range(2):
        await clockwork.tick()
        await clockwork.until_quiet()
    assert await night.invocations() == [await night.describe(invocation["id"])]
    assert len(night.engine.calls) == calls
    assert await dispatches(night) == dispatched, "nothing is due and nothing is open: nobody has to be asked"
    assert await last_run_status(night, function) == 200


async def test_of_three_missed_nights_only_the_last_is_caught_up(night: Night, clockwork: Clockwork) -> None:
    night.schedule, night.slot = slot_minutes_ago(90)
    await night.add_mentors(100)
    await night.project.make_slot_due(days=3)
    await night.start_function(SMALL)
    await clockwork.start()

    invocation = await clockwork.until_ended()
    await clockwork.tick()
    await clockwork.until_quiet()

    assert [datetime.fromisoformat(one["scheduled_for"]) for one in await night.invocations()] == [night.slot]
    await check_promises(night, invocation)
    # One evaluation for three nights, and no notification three times.
    assert max(night.engine.keys_seen.values()) == 1


async def test_a_slot_missed_for_good_is_not_caught_up_but_the_next_one_runs(
    night: Night, clockwork: Clockwork
) -> None:
    """Of a monthly schedule; 24 hours are the limit. The dead-man's check is what tells of it."""
    await night.add_mentors(100)
    three_days_ago = night.slot - timedelta(days=3)
    of_month = f"{night.slot.minute} {night.slot.hour} {{}} * *"
    monthly = {**SMALL, "EVALUATION_SCHEDULE": of_month.format(three_days_ago.day), "MISSED_SLOT_MAX_GAP_HOURS": "24"}
    function = await night.start_function(monthly)
    await clockwork.start()

    for _ in range(3):
        await clockwork.tick()
        await clockwork.until_quiet()
    answer = await night.fire(function)
    named = await night.fire(function, {"scheduled_for": three_days_ago.isoformat()})

    assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
    assert (named.status_code, named.json()["code"]) == (422, "not_a_slot")
    assert await night.invocations() == []
    assert night.engine.calls == []
    assert await last_run_status(night, function) == 503
    assert len(await night.rows(b"select from scheduler.dispatches")) == 1, "it was asked once, and knows it is not due"

    # The month goes by: the same function, whose schedule has a slot a minute ago.
    await function.stop()
    heir = await night.start_function(
        monthly | {"EVALUATION_SCHEDULE": of_month.format(f"{three_days_ago.day},{night.slot.day}")}, port=function.port
    )
    await night.execute(b"update scheduler.settings set next_due_at = now()")
    invocation = await clockwork.until_ended()

    assert datetime.fromisoformat(invocation["scheduled_for"]) == night.slot
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert await last_run_status(night, heir) == 200


async def nobody_there(night: Night, clockwork: Clockwork) -> FunctionProcess:
    """The function is not running at all."""
    function = night.project.new_function({"EVALUATION_SCHEDULE": night.schedule, **SMALL}, engine_url=night.engine.url)
    await clockwork.start()
    return function


async def token_rotated(night: Night, clockwork: Clockwork) -> FunctionProcess:
    """The function runs, and knows another token than Vault."""
    function = await night.start_function(SMALL)
    await clockwork.start()
    await night.execute(
        b"select vault.update_secret(id, 'a-token-that-the-function-does-not-know')"
        b" from vault.secrets where name = 'scheduler_invoke_token'"
    )
    return function


async def wrong_key(night: Night, clockwork: Clockwork) -> FunctionProcess:
    """The function runs, and its API key is another project's."""
    function = await night.start_function({**SMALL, "SUPABASE_SECRET_KEY": "sb_secret_of_another_project"})
    await clockwork.start()
    return function


@pytest.mark.parametrize(
    ("trouble", "status_code"),
    [(nobody_there, None), (token_rotated, 401), (wrong_key, 500)],
    ids=["not running", "rotated token", "wrong key"],
)
async def test_a_function_of_no_use_all_night_runs_late_in_the_morning_and_the_run_tells_what_the_ticks_met(
    night: Night,
    clockwork: Clockwork,
    trouble: Callable[[Night, Clockwork], Awaitable[FunctionProcess]],
    status_code: int | None,
) -> None:
    """Cron is green all night long."""
    night.schedule, night.slot = slot_minutes_ago(8 * 60)
    await night.add_mentors(100)
    function = await trouble(night, clockwork)

    for _ in range(MISSED_TICKS):
        await clockwork.tick()
        await clockwork.until_quiet()
    assert await night.invocations() == []
    assert night.engine.calls == []
    assert set(await night.rows(b"select status from cron.job_run_details")) == {("succeeded",)}

    # The morning: somebody sets it right, and does not call anything.
    await function.stop()
    mended = await night.start_function(SMALL, port=function.port)
    await night.project.write_vault_secrets(mended.url)
    invocation = await clockwork.until_ended()
    await clockwork.tick()

    assert invocation["status"] == "succeeded"
    assert invocation["lateness_seconds"] >= 8 * 60 * 60
    await check_promises(night, invocation)
    seen = await Caller(night, mended).see(invocation["id"])
    met = {answer["status_code"]: answer for answer in seen["dispatches"]}
    assert set(met) == {status_code, 200}
    assert met[status_code]["count"] == MISSED_TICKS
    assert met[status_code]["first_at"] < met[status_code]["last_at"] < met[200]["first_at"]
    if status_code is None:
        assert met[None]["error"]
    assert await last_run_status(night, mended) == 200
    await check_rest(night)


async def dispatches(night: Night) -> int:
    """How many slices were ever asked for."""
    ((count,),) = await night.rows(b"select count(*) from scheduler.dispatches")
    return int(count)
