"""The engine is away for all: no user failed, all workers wait, and the run goes on by itself once it is back."""

from __future__ import annotations

import asyncio

from tests.faults.breaker import breaker
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules

SETTINGS = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "4",
    # An outage is believed after two tries of each call: how often is not what is tested here.
    "ENGINE_MAX_ATTEMPTS": "2",
    "MAX_WORKERS": "2",
}


async def test_an_outage_pauses_every_worker_and_fails_no_user(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(300)
    functions = [await night.start_function(SETTINGS) for _ in range(2)]
    await clockwork.start()
    back = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: call.number > 12 and not back.is_set(), rules.respond(503)))

    async def check_pause(outages: int) -> None:
        state = await breaker(night)
        assert (state.outages, state.paused) == (outages, True), "two workers in the same outage pause once"
        (waiting,) = await night.invocations()
        assert (waiting["status"], waiting["error"]) == ("running", "engine_unavailable")
        assert (waiting["counts"]["failed"], 0 < waiting["counts"]["batches_done"] <= 12) == (0, True)
        calls = len(night.engine.calls)
        await clockwork.tick_and_wait()
        assert [(await night.fire(function)).status_code for function in functions] == [202, 202]
        assert await breaker(night) == state, "a slice was asked for in the pause, or changed it"
        assert len(night.engine.calls) == calls, "the engine was called in the pause"

    await asyncio.gather(clockwork.tick(), night.fire(functions[1]))
    await clockwork.until_quiet()
    await check_pause(1)

    await clockwork.let_time_pass(16)
    await night.project.write_vault_secrets(functions[1].url)
    await clockwork.tick_and_wait()
    assert (await breaker(night)).seconds == 30
    await check_pause(2)

    back.set()
    await clockwork.let_time_pass(31)
    invocation = await clockwork.until_ended()
    assert invocation["error"] is None
    state = await breaker(night)
    assert (state.outages, state.paused, state.seconds) == (0, False, None)
    await check_success(night, invocation)
