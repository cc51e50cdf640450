"""An engine that can take less than it is given: it gets less, no user failed, and no call comes back too early."""

from __future__ import annotations

import asyncio

from tests.faults.breaker import breaker
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.faults.patience import AsksForPatience
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules

SETTINGS = {"EVALUATION_BATCH_SIZE": "20", "MAX_WORKERS": "1"}


async def test_a_wait_the_engine_asks_for_holds_for_every_worker(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(400)
    settings = SETTINGS | {
        "ENGINE_USERS_PER_CALL": "20",
        "ENGINE_MAX_CONCURRENCY": "4",
        "TIME_BUDGET_SECONDS": "5",
        "ENGINE_TIMEOUT_SECONDS": "4",
    }
    functions = await asyncio.gather(*(night.start_function(settings) for _ in range(2)))
    await clockwork.start()
    patience = AsksForPatience(calls=8, seconds=600)
    night.engine.rules.append(patience)

    await asyncio.gather(clockwork.tick(), night.fire(functions[1]))
    await clockwork.until_quiet()
    state = await breaker(night)
    assert [(await night.fire(function)).status_code for function in functions] == [202, 202]
    await clockwork.tick_and_wait()

    assert (patience.turned_away, len(night.engine.calls)) == (8, 8), "a call came before its time"
    assert (state.outages, state.paused) == (1, True)
    assert await breaker(night) == state
    (waiting,) = await night.invocations()
    assert (waiting["error"], waiting["counts"]["failed"]) == ("engine_unavailable", 0)
    await clockwork.let_time_pass(300)
    assert (await breaker(night)).paused, "the pause is the function's own, not the engine's"
    night.engine.rules.remove(patience)
    await clockwork.let_time_pass(302)
    await check_success(night, await clockwork.until_ended())


async def test_a_503_of_an_overload_fails_no_user(night: Night, clockwork: Clockwork) -> None:
    """Two workers share an engine that takes one call at a time: it turns most calls away, and some users' all."""
    await night.add_mentors(100)
    settings = SETTINGS | {
        "ENGINE_USERS_PER_CALL": "1",
        "ENGINE_MAX_CONCURRENCY": "64",
        "ENGINE_TIMEOUT_SECONDS": "20",
        # So that it is not only the unluckiest who have no answer by then.
        "ENGINE_MAX_ATTEMPTS": "2",
    }
    functions = await asyncio.gather(*(night.start_function(settings) for _ in range(2)))
    await clockwork.start()
    night.engine.rules += [rules.capacity(1, status=503), rules.slow(None, 0.02)]

    await asyncio.gather(clockwork.tick(), night.fire(functions[1]))
    invocation = await clockwork.until_ended()

    await check_success(night, invocation)
    turned_away = [call.user_ids[0] for call in night.engine.calls if call.status == 503 and not call.dry_run]
    # Two tries with a group, two alone: after those a user would be blamed.
    assert any(turned_away.count(user_id) >= 4 for user_id in set(turned_away)), "no user was in doubt"
    in_flight = [record.call.in_flight for record in night.engine.calls if record.call is not None]
    assert max(in_flight[len(in_flight) // 2 :]) < max(in_flight), "the calls did not become fewer"
