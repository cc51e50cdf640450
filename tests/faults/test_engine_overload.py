"""An engine that can take less than it is given: it gets less, nobody failed, and nobody comes back too early."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.faults.breaker import breaker
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.faults.patience import AsksForPatience, Form
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules
from tests.scripted_engine.server import CallRecord

SETTINGS = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_MAX_CONCURRENCY": "4",
    "MAX_WORKERS": "1",
    "ENGINE_TIMEOUT_SECONDS": "20",
}


@pytest.mark.parametrize(("users_per_call", "form", "status"), [("1", "seconds", 503), ("20", "date", 429)])
async def test_a_short_wait_that_the_engine_asks_for_is_kept_by_every_call_and_the_slice_goes_on(
    night: Night, clockwork: Clockwork, users_per_call: str, form: Form, status: int
) -> None:
    await night.add_mentors(200)
    await night.start_function(SETTINGS | {"ENGINE_USERS_PER_CALL": users_per_call})
    await clockwork.start()
    patience = AsksForPatience(4, 1, form, status=status)
    night.engine.rules.append(patience)

    await clockwork.tick()
    await clockwork.until_quiet()
    (invocation,) = await night.invocations()

    assert patience.turned_away == 4
    assert patience.too_early == []
    assert (await breaker(night)).outages == 0
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)


@pytest.mark.parametrize(("users_per_call", "form"), [("20", "seconds"), ("1", "date")])
async def test_a_long_wait_that_the_engine_asks_for_is_kept_by_every_worker(
    night: Night, clockwork: Clockwork, form: Form, users_per_call: str
) -> None:
    await night.add_mentors(400)
    settings = SETTINGS | {
        "ENGINE_USERS_PER_CALL": users_per_call,
        "TIME_BUDGET_SECONDS": "5",
        "ENGINE_TIMEOUT_SECONDS": "4",
    }
    functions = [await night.start_function(settings) for _ in range(2)]
    await clockwork.start()
    patience = AsksForPatience(8, 600, form)
    night.engine.rules.append(patience)

    await asyncio.gather(clockwork.tick(), night.fire(functions[1]))
    await clockwork.until_quiet()
    state = await breaker(night)
    for function in functions:
        assert (await night.fire(function)).status_code == 202
    await clockwork.tick()
    await clockwork.until_quiet()

    assert patience.turned_away == 8
    assert len(night.engine.calls) == 8, "somebody went to see whether it meant it"
    assert (state.outages, state.paused) == (1, True)
    assert await breaker(night) == state
    ((long_enough,),) = await night.rows(
        b"select engine_paused_until > clock_timestamp() + interval '5 minutes' from scheduler.settings"
    )
    assert long_enough
    (waiting,) = await night.invocations()
    assert (waiting["error"], waiting["counts"]["failed"]) == ("engine_unavailable", 0)
    night.engine.rules.remove(patience)
    await clockwork.let_time_pass(602)
    invocation = await clockwork.until_ended()
    assert (invocation["status"], invocation["error"]) == ("succeeded", None)
    await check_promises(night, invocation)


@pytest.mark.parametrize(
    ("users_per_call", "status", "retry_after", "workers"),
    [("20", 429, 1, 2), ("1", 503, None, 1)],
)
async def test_beyond_its_capacity_the_calls_become_fewer_and_nobody_failed(
    night: Night, clockwork: Clockwork, users_per_call: str, status: int, retry_after: int | None, workers: int
) -> None:
    await night.add_mentors(300)
    settings = SETTINGS | {"ENGINE_USERS_PER_CALL": users_per_call, "ENGINE_MAX_CONCURRENCY": "64"}
    functions = [await night.start_function(settings) for _ in range(workers)]
    await clockwork.start()
    capacity = max(2, workers)
    night.engine.rules += [rules.capacity(capacity, status=status, retry_after=retry_after), rules.slow(None, 0.02)]

    await asyncio.gather(clockwork.tick(), *(night.fire(function) for function in functions[1:]))
    invocation = await clockwork.until_ended()

    assert invocation["failures"] == []
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    calls = night.engine.calls
    assert status in {call.status for call in calls}, "it was never asked for more than it can take"
    if users_per_call == "1":
        # Every worker tries one more now and then; nobody tries many more.
        assert peak(calls[len(calls) // 2 :]) <= capacity + 2 * workers
        assert peak(calls) > 8, "it was never given much at a time: nothing became fewer"


async def test_a_503_blames_nobody_who_was_only_unlucky(night: Night, clockwork: Clockwork) -> None:
    """Two workers share an engine that takes one call at a time: it turns most calls away, and some users' all."""
    await night.add_mentors(100)
    settings = SETTINGS | {
        "ENGINE_USERS_PER_CALL": "1",
        "ENGINE_MAX_CONCURRENCY": "64",
        # So that it is not only the unluckiest who have no answer by then.
        "ENGINE_MAX_ATTEMPTS": "2",
    }
    functions = [await night.start_function(settings) for _ in range(2)]
    await clockwork.start()
    night.engine.rules += [rules.capacity(1, status=503), rules.slow(None, 0.02)]

    await asyncio.gather(clockwork.tick(), night.fire(functions[1]))
    invocation = await clockwork.until_ended()

    assert invocation["failures"] == []
    assert invocation["status"] == "succeeded"
    turned_away = [call.user_ids[0] for call in night.engine.calls if call.status == 503 and not call.dry_run]
    # Two tries with everybody's, two of her own: after those she would have been blamed.
    assert any(turned_away.count(user_id) >= 4 for user_id in set(turned_away)), "nobody was in doubt"
    await check_promises(night, invocation)


async def test_when_there_is_room_again_the_calls_become_more_step_by_step(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(600)
    room = asyncio.Event()
    settings = SETTINGS | {"ENGINE_USERS_PER_CALL": "1", "ENGINE_MAX_CONCURRENCY": "16"}
    await night.start_function(settings)
    await clockwork.start()
    scarce = rules.capacity(1)
    night.engine.rules += [rules.only(rules.before(room), scarce), rules.slow(None, 0.02)]

    await clockwork.tick()
    await night.engine.until(lambda engine: sum(call.status == 200 for call in engine.calls) >= 30)
    room.set()
    asked_before = len(night.engine.calls)
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    after = night.engine.calls[asked_before:]
    # A limit of n takes n good calls to become n + 1: from 3 to 16 that is more than a hundred.
    assert peak(after[:20]) <= 8
    assert peak(after) >= 12


def peak(calls: Sequence[CallRecord]) -> int:
    """The most that were in flight at a time, of those that the engine took."""
    return max(record.call.in_flight for record in calls if record.call is not None)
