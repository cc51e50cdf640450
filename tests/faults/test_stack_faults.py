"""What the function stands on falls: PostgREST, the gateway, PostgreSQL itself; the run goes on by itself.

An outage of some seconds costs nothing: whatever has work in hand waits for its end. A longer one is said clearly, and
costs what was in hand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg

from tests.emulator.function import FunctionProcess
from tests.faults.breakpoint import breakpoint_at
from tests.faults.clockwork import Clockwork
from tests.faults.lossy_proxy import LossyProxy
from tests.faults.oracle import check_success
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import rules

SMALL = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "2",
    "MAX_BATCH_DELIVERIES": "100",
    "MAX_WORKERS": "2",
}
# Fewer than there are batches, so that some wait; the others are in the hands of this one slice.
MENTORS = 120


# Every slice has ended, and what is left is hidden, since the answer to its claim was lost: only time brings it back.
ALL_LEFT_IS_HIDDEN = b"""
select not exists (select from scheduler.dispatches where ended_at is null)
   and exists (select from public.scheduler_invocation_batches where state = 'open')
   and scheduler.visible_batches(1) = 0
"""


def gave_up(night: Night, function: FunctionProcess) -> int:
    """How many calls the function has answered with 503 because the database was away."""
    return len([line for line in night.log_lines(function) if line["event"] == "database_unavailable"])


@contextlib.asynccontextmanager
async def minutes_when_stuck(night: Night, clockwork: Clockwork, function: FunctionProcess) -> AsyncIterator[None]:
    """Within the block no time passes, unless a slice gave up or a claim's answer was lost: then minute after minute.

    So a test can ask that a short outage costs nothing, and still ends where a slow machine makes a long one of it.
    """

    async def look_after() -> None:
        while True:
            await asyncio.sleep(1)
            # Not while the database is away.
            with contextlib.suppress(psycopg.Error):
                if gave_up(night, function) or await night.rows(ALL_LEFT_IS_HIDDEN) == [(True,)]:
                    await clockwork.let_time_pass()
                    await clockwork.tick()

    looking = asyncio.create_task(look_after())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@contextlib.asynccontextmanager
async def restarted_at(
    night: Night,
    table: str,
    event: str,
    fall: Callable[[], Awaitable[None]],
    get_up: Callable[[], Awaitable[None]],
    times: int = 1,
) -> AsyncIterator[None]:
    """After the block, a layer falls just when so many statements do this to the table, and gets up again."""
    async with breakpoint_at(night.project, table, event) as stop:
        yield
        await stop.until_reached(times)
        await fall()
        if night.project.server.process.alive:
            await stop.release()
        await get_up()
    await night.execute(f"drop trigger faults_stop on {table}".encode())


async def test_a_restart_of_any_layer_costs_nothing(own_night: Night) -> None:
    """While mentors are read, while batches are recorded, and when the run is being ended."""
    night, project, clockwork = own_night, own_night.project, Clockwork(own_night)
    await night.add_mentors(MENTORS)
    gates = asyncio.Event(), asyncio.Event()
    night.engine.rules += [
        rules.hold_until(gates[0]),
        rules.only(lambda call: call.number > 4, rules.hold_until(gates[1])),
    ]
    function = await night.start_function(SMALL)
    await clockwork.start()

    batches, evaluations, invocations = (
        f"public.scheduler_{name}" for name in ("invocation_batches", "evaluations", "invocations")
    )
    async with minutes_when_stuck(night, clockwork, function):
        async with restarted_at(night, batches, "insert", project.gateway.kill, project.gateway.start):
            await clockwork.tick()
        async with restarted_at(night, evaluations, "insert", project.postgrest.kill, project.postgrest.start, 2):
            gates[0].set()
        async with restarted_at(night, invocations, "update", project.server.kill, project.server.start):
            gates[1].set()
        invocation = await eventually(night.ended, 120)

    await check_success(night, invocation)
    assert gave_up(night, function) or set(night.engine.keys_seen.values()) == {1}


async def test_a_longer_outage_is_503_and_repeats_the_lost_post(own_night: Night) -> None:
    """A crash of the database empties pg_net's tables: only ours know of the post that was under way."""
    night, clockwork = own_night, Clockwork(own_night)
    await night.add_mentors(MENTORS)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    function = await night.start_function(SMALL | {"MAX_WORKERS": "1"})
    await clockwork.start()
    await clockwork.tick()
    await night.engine.until_called(2)

    await night.project.server.stop_immediately()
    gate.set()
    answer = await night.fire(function)

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "database_unavailable"
    assert int(answer.headers["retry-after"]) > 0

    async def slice_gave_up_too() -> bool:
        return gave_up(night, function) >= 2

    await eventually(slice_gave_up_too)
    assert "Traceback" not in function.log_path.read_text()
    assert {line["event"] for line in night.log_lines(function) if line["severity"] == "ERROR"} == {
        "database_unavailable"
    }

    await night.project.server.start()
    await eventually(night.project.postgrest.is_ready)
    await clockwork.tick()
    assert await dispatch_errors(night) == [None], "a lost post is believed in for a while"
    invocation = await clockwork.until_ended()

    await check_success(night, invocation)
    assert (await dispatch_errors(night))[0] == "no_answer"
    assert max(night.engine.keys_seen.values()) > 1, "what was in hand was not evaluated again: was it recorded?"


async def dispatch_errors(night: Night) -> list[str | None]:
    return [error for (error,) in await night.rows(b"select error from scheduler.dispatches order by id")]


async def test_a_call_whose_answer_is_lost_has_happened_once(night: Night, clockwork: Clockwork) -> None:
    """Of the slot's opening five in a row, which is some seconds: no slice is given up."""
    await night.add_mentors(MENTORS)
    losing = {
        "scheduler_open_slot": 5,
        "scheduler_enqueue": 2,
        "scheduler_claim": 2,
        "scheduler_complete": 4,
        "scheduler_finish": 2,
        "scheduler_hand_back": 2,
    }
    paths = {f"/rest/v1/rpc/{function}": times for function, times in losing.items()}
    async with LossyProxy(night.project.supabase_url, paths) as proxy:
        function = await night.start_function(SMALL | {"SUPABASE_URL": proxy.url})
        await clockwork.start()
        invocation = await clockwork.until_ended()

    assert len(proxy.lost) == sum(losing.values())
    assert set(proxy.lost) <= {200, 204}
    assert gave_up(night, function) == 0
    assert len(await night.invocations()) == 1
    assert set(night.engine.keys_seen.values()) == {1}
    states = [line["state"] for line in night.log_lines(function) if line["event"] == "batch_recorded"]
    assert "already_done" in states
    await check_success(night, invocation)
