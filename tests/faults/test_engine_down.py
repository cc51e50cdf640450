"""The engine is away or overloaded: no user fails, all workers wait, and the run continues once it is back."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from tests.faults.oracle import check_success
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

# Two attempts of each call: their number is not tested here.
SETTINGS = batches_of(10, engine_max_concurrency=4, engine_max_attempts=2, max_workers=2)
HASTY = batches_of(20, engine_max_concurrency=4, max_workers=1, time_budget_seconds=5, engine_timeout_seconds=4)

STATE = b"""
select engine_outages,
       coalesce(engine_paused_until > clock_timestamp(), false),
       round(extract(epoch from engine_paused_until - (
         -- Of the slices requested last, the first that met the outage set the pause.
         select min(ended_at) from scheduler.dispatches
          where requested_at > (select max(requested_at) from scheduler.dispatches) - interval '5 seconds'
       )))::integer,
       (select count(*) from scheduler.dispatches)
  from scheduler.settings
"""


class Breaker(NamedTuple):
    """The pause that all workers share; `seconds` means something only if dispatch requested the last slice to end."""

    outages: int
    paused: bool
    seconds: int | None
    posts: int


async def breaker(harness: Harness) -> Breaker:
    (row,) = await harness.rows(STATE)
    return Breaker(*row)


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


async def test_a_wait_the_engine_asks_for_holds_for_every_worker(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(400)
    functions = await asyncio.gather(*(harness.start_function(HASTY) for _ in range(2)))
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
