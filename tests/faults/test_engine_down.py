"""The engine is away for everyone: nobody failed, all workers wait, and the night goes on by itself once it is back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.faults.breaker import breaker
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import ScriptedEngine, rules

SMALL = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_MAX_CONCURRENCY": "4",
    # An outage is believed after two tries of each call: how often is not what is tested here.
    "ENGINE_MAX_ATTEMPTS": "2",
    "MAX_WORKERS": "2",
}
PAUSES = (15, 30, 60, 120, 240, 300, 300)


@contextlib.asynccontextmanager
async def away(engine: ScriptedEngine, how: str) -> AsyncIterator[None]:
    """An engine that answers nobody for as long as the block runs."""
    if how == "refuses connections":
        async with engine.unreachable():
            yield
        return
    rule = rules.respond(int(how))
    engine.rules.insert(0, rule)
    yield
    engine.rules.remove(rule)


@pytest.mark.parametrize(
    ("how", "users_per_call", "pauses"),
    [
        ("503", "1", PAUSES),
        ("refuses connections", "20", PAUSES[:2]),
    ],
)
async def test_down_from_the_start_the_pause_grows_is_kept_by_everybody_and_ends_with_the_outage(
    night: Night, clockwork: Clockwork, how: str, users_per_call: str, pauses: tuple[int, ...]
) -> None:
    await night.add_mentors(100)
    functions = [await night.start_function(SMALL | {"ENGINE_USERS_PER_CALL": users_per_call}) for _ in range(2)]
    await clockwork.start()

    async with away(night.engine, how):
        for outages, seconds in enumerate(pauses, 1):
            # One and the other, so that what one has learned has to be known to the other.
            await night.project.write_vault_secrets(functions[outages % 2].url)
            calls = len(night.engine.calls)
            await clockwork.tick()
            await clockwork.until_quiet()
            state = await breaker(night)
            assert (state.outages, state.paused, state.seconds) == (outages, True, seconds)
            (invocation,) = await night.invocations()
            assert (invocation["status"], invocation["error"]) == ("running", "engine_unavailable")
            assert invocation["counts"]["failed"] == 0
            assert len(night.engine.calls) > calls or how == "refuses connections"

            calls = len(night.engine.calls)
            await clockwork.tick()
            await clockwork.until_quiet()
            # Whoever calls all the same finds that there is nothing to be done.
            assert [(await night.fire(function)).status_code for function in functions] == [202, 202]
            assert await breaker(night) == state, "a slice was asked for in the pause, or changed it"
            assert len(night.engine.calls) == calls, "the engine was called in the pause"
            await clockwork.let_time_pass(seconds + 1)
    invocation = await clockwork.until_ended()

    assert (invocation["status"], invocation["error"]) == ("succeeded", None)
    state = await breaker(night)
    assert (state.outages, state.paused, state.seconds) == (0, False, None)
    await check_promises(night, invocation)


async def test_an_outage_in_the_middle_stops_two_workers_and_what_is_recorded_stands(
    night: Night, clockwork: Clockwork
) -> None:
    await night.add_mentors(300)
    settings = SMALL | {"EVALUATION_BATCH_SIZE": "10", "ENGINE_USERS_PER_CALL": "10"}
    functions = [await night.start_function(settings) for _ in range(2)]
    await clockwork.start()
    outage = asyncio.Event()
    down = rules.only(lambda call: call.number > 12 and not outage.is_set(), rules.respond(503))
    night.engine.rules.append(down)

    await asyncio.gather(clockwork.tick(), night.fire(functions[1]))
    await clockwork.until_quiet()
    (waiting,) = await night.invocations()
    state = await breaker(night)
    calls = len(night.engine.calls)
    answers = [await night.fire(function) for function in functions]

    assert (state.outages, state.paused) == (1, True), "two workers in the same outage pause once"
    assert (waiting["error"], waiting["counts"]["failed"]) == ("engine_unavailable", 0)
    assert 0 < waiting["counts"]["batches_done"] <= 12
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len(night.engine.calls) == calls
    outage.set()
    await clockwork.let_time_pass(16)
    invocation = await clockwork.until_ended()
    assert (invocation["status"], invocation["error"]) == ("succeeded", None)
    assert (await breaker(night)).outages == 0
    await check_promises(night, invocation)


async def test_an_answer_from_before_the_pause_does_not_end_it(night: Night, clockwork: Clockwork) -> None:
    """A worker that is being served while the others give up comes to its end when all are to wait."""
    await night.add_mentors(200)
    settings = SMALL | {"ENGINE_USERS_PER_CALL": "20"}
    served, unlucky = [await night.start_function(settings) for _ in range(2)]
    await clockwork.start()
    answer, back = asyncio.Event(), asyncio.Event()
    hold = rules.hold_until(answer)
    night.engine.rules.append(hold)
    early = asyncio.create_task(night.fire(served))
    await night.engine.until_called(4)
    in_hand = await users_in_hand(night)
    night.engine.rules[:] = [
        rules.only(lambda call: not call.names_any(in_hand) and not back.is_set(), rules.retry_after(600, times=1000)),
    ]

    assert (await night.fire(unlucky)).status_code == 202
    assert (await breaker(night)).paused
    calls = len(night.engine.calls)
    answer.set()
    await early
    await clockwork.until_quiet()

    (waiting,) = await night.invocations()
    assert waiting["counts"]["batches_done"] == len(in_hand) / 20, "it was not served: nothing was in doubt"
    state = await breaker(night)
    assert (state.paused, state.outages, state.posts) == (True, 1, 0)
    assert waiting["error"] == "engine_unavailable"
    await clockwork.tick()
    await clockwork.until_quiet()
    assert {call.status for call in night.engine.calls[calls:]} <= {200}
    back.set()
    await clockwork.let_time_pass(601)
    invocation = await clockwork.until_ended()
    assert (invocation["status"], invocation["error"]) == ("succeeded", None)
    await check_promises(night, invocation)


async def users_in_hand(night: Night) -> set[str]:
    """Everybody whose batch some worker has claimed and not recorded."""
    found = await night.rows(
        b"select user_id from pgmq.q_scenario_evaluation_batches as m"
        b" join public.scheduler_invocation_batches as b using (msg_id)"
        b" cross join jsonb_array_elements(b.pairs) as grouped"
        b" cross join jsonb_array_elements_text(grouped -> 'user_ids') as user_id where m.vt > clock_timestamp()"
    )
    return {user_id for (user_id,) in found}


@pytest.mark.parametrize(("status", "users_per_call"), [(401, "1"), (307, "20")])
async def test_turned_away_for_a_while_nobody_failed_and_it_is_said_until_it_is_over(
    night: Night, clockwork: Clockwork, status: int, users_per_call: str
) -> None:
    await night.add_mentors(100)
    function = await night.start_function(SMALL | {"ENGINE_USERS_PER_CALL": users_per_call})
    await clockwork.start()
    headers = {"location": f"{night.engine.url}/elsewhere"} if status == 307 else {}
    turned_away = rules.only(lambda call: call.number > 3, rules.respond(status, headers=headers))
    night.engine.rules.append(turned_away)

    for seconds in PAUSES[:2]:
        await clockwork.tick()
        await clockwork.until_quiet()
        (waiting,) = await night.invocations()
        assert (waiting["status"], waiting["error"]) == ("running", "engine_rejected")
        assert waiting["counts"]["failed"] == 0
        assert (await breaker(night)).seconds == seconds
        calls = len(night.engine.calls)
        await clockwork.tick()
        assert (await night.fire(function)).status_code == 202
        assert len(night.engine.calls) == calls, "the engine was called in the pause"
        await clockwork.let_time_pass(seconds + 1)
    assert {record.status for record in night.engine.calls[3:]} == {status}, "it was not turned away"
    night.engine.rules.remove(turned_away)
    invocation = await clockwork.until_ended()

    assert (invocation["status"], invocation["error"]) == ("succeeded", None)
    await check_promises(night, invocation)


async def test_one_that_is_down_at_the_deadline_too_leaves_nobody_failed_and_everybody_named(
    night: Night, clockwork: Clockwork
) -> None:
    await night.add_mentors(100)
    await night.start_function(SMALL)
    await clockwork.start()

    async with away(night.engine, "500"):
        await clockwork.tick()
        await clockwork.until_quiet()
        await night.execute(b"update public.scheduler_invocations set expires_at = clock_timestamp()")
        # The pause keeps workers from the engine, and not the deadline from the run.
        await clockwork.tick()
        ended = await eventually(night.ended)

    assert ended is not None
    assert (ended["status"], ended["error"]) == ("failed", "engine_unavailable")
    assert set((await check_promises(night, ended)).values()) == {"not_evaluated"}
    assert night.engine.acts == {}
