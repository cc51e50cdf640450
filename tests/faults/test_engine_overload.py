"""An engine that can take less than it is given: it gets less, no user failed, and no call comes back too early."""

from __future__ import annotations

import asyncio

from tests.faults.breaker import breaker
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules

SETTINGS = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_USERS_PER_CALL": "20",
    "ENGINE_MAX_CONCURRENCY": "4",
    "MAX_WORKERS": "1",
    "TIME_BUDGET_SECONDS": "5",
    "ENGINE_TIMEOUT_SECONDS": "4",
}


async def test_a_wait_the_engine_asks_for_holds_for_every_worker(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(400)
    functions = await asyncio.gather(*(night.start_function(SETTINGS) for _ in range(2)))
    await clockwork.start()
    gate = asyncio.Event()
    night.engine.rules += [rules.hold_until(gate), rules.retry_after(600, times=8)]

    firing = asyncio.gather(clockwork.tick(), night.fire(functions[1]))
    # All are turned away together: no later call was on its way already.
    await night.engine.until(lambda engine: engine.in_flight == 8)
    gate.set()
    await firing
    await clockwork.until_quiet()
    state = await breaker(night)
    assert [(await night.fire(function)).status_code for function in functions] == [202, 202]
    await clockwork.tick_and_wait()

    assert [call.status for call in night.engine.calls] == [503] * 8, "a call came before its time"
    assert (state.outages, state.paused) == (1, True)
    assert await breaker(night) == state
    (waiting,) = await night.invocations()
    assert (waiting["error"], waiting["counts"]["failed"]) == ("engine_unavailable", 0)
    await clockwork.let_time_pass(300)
    assert (await breaker(night)).paused, "the pause is the function's own, not the engine's"
    await clockwork.let_time_pass(302)
    await check_success(night, await clockwork.until_ended())
