"""The engine is away for all: no user failed, all workers wait, and the run goes on by itself once it is back."""

from __future__ import annotations

import asyncio

from tests.faults.breaker import breaker
from tests.faults.oracle import check_success
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

SETTINGS = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "4",
    # An outage is believed after two tries of each call: how often is not what is tested here.
    "ENGINE_MAX_ATTEMPTS": "2",
    "MAX_WORKERS": "2",
}


async def test_an_outage_pauses_every_worker_and_fails_no_user(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(300)
    functions = [await harness.start_function(SETTINGS) for _ in range(2)]
    await time_control.start()
    back = asyncio.Event()
    harness.engine.rules.append(rules.only(lambda call: call.number > 12 and not back.is_set(), rules.respond(503)))

    async def check_pause(outages: int) -> None:
        state = await breaker(harness)
        assert (state.outages, state.paused) == (outages, True), "two workers in the same outage pause once"
        (waiting,) = await harness.invocations()
        assert (waiting["status"], waiting["error_code"]) == ("running", "engine_unavailable")
        assert (waiting["counts"]["failed"], 0 < waiting["counts"]["batches_done"] <= 12) == (0, True)
        calls = len(harness.engine.calls)
        await time_control.tick_and_wait()
        assert [(await harness.fire(function)).status_code for function in functions] == [202, 202]
        assert await breaker(harness) == state, "a slice was asked for in the pause, or changed it"
        assert len(harness.engine.calls) == calls, "the engine was called in the pause"

    await asyncio.gather(time_control.tick(), harness.fire(functions[1]))
    await time_control.until_quiet()
    await check_pause(1)

    await time_control.let_time_pass(16)
    await harness.project.write_vault_secrets(functions[1].url)
    await time_control.tick_and_wait()
    assert (await breaker(harness)).seconds == 30
    await check_pause(2)

    back.set()
    await time_control.let_time_pass(31)
    invocation = await time_control.until_ended()
    assert invocation["error_code"] is None
    state = await breaker(harness)
    assert (state.outages, state.paused, state.seconds) == (0, False, None)
    await check_success(harness, invocation)
