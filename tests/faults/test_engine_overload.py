"""An engine that can take less than it is given: it gets less, no user failed, and no call comes back too early."""

from __future__ import annotations

import asyncio

from tests.faults.breaker import breaker
from tests.faults.oracle import check_success
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

SETTINGS = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_USERS_PER_CALL": "20",
    "ENGINE_MAX_CONCURRENCY": "4",
    "MAX_WORKERS": "1",
    "TIME_BUDGET_SECONDS": "5",
    "ENGINE_TIMEOUT_SECONDS": "4",
}


async def test_a_wait_the_engine_asks_for_holds_for_every_worker(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(400)
    functions = await asyncio.gather(*(harness.start_function(SETTINGS) for _ in range(2)))
    await time_control.start()
    gate = asyncio.Event()
    harness.engine.rules += [rules.hold_until(gate), rules.retry_after(600, times=8)]

    firing = asyncio.gather(time_control.tick(), harness.fire(functions[1]))
    # All are turned away together: no later call was on its way already.
    await harness.engine.until(lambda engine: engine.in_flight == 8)
    gate.set()
    await firing
    await time_control.until_quiet()
    state = await breaker(harness)
    assert [(await harness.fire(function)).status_code for function in functions] == [202, 202]
    await time_control.tick_and_wait()

    assert [call.status for call in harness.engine.calls] == [503] * 8, "a call came before its time"
    assert (state.outages, state.paused) == (1, True)
    assert await breaker(harness) == state
    (waiting,) = await harness.invocations()
    assert (waiting["error_code"], waiting["counts"]["failed"]) == ("engine_unavailable", 0)
    await time_control.let_time_pass(300)
    assert (await breaker(harness)).paused, "the pause is the function's own, not the engine's"
    await time_control.let_time_pass(302)
    await check_success(harness, await time_control.until_ended())
