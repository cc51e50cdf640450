"""PostgREST, the gateway or PostgreSQL itself fails: the run continues by itself.

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
from tests.faults.lossy_proxy import LossyProxy
from tests.faults.oracle import check_success
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules

SMALL = batches_of(10, engine_max_concurrency=2, max_batch_deliveries=100, max_workers=2)
# Fewer than there are batches, so that some wait; the others are in the hands of this one slice.
MENTORS = 120


# Every slice has ended, and what is left is hidden, since the answer to its claim was lost: only time brings it back.
ALL_LEFT_IS_HIDDEN = b"""
select not exists (select from scheduler.dispatches where ended_at is null)
   and exists (select from public.scheduler_invocation_batches where state = 'open')
   and scheduler.visible_batches(1) = 0
"""


def gave_up(harness: Harness, function: FunctionProcess) -> int:
    """How many calls the function has answered with 503 because the database was away."""
    return len([line for line in harness.log_lines(function) if line["event"] == "database_unavailable"])


@contextlib.asynccontextmanager
async def minutes_when_stuck(
    harness: Harness, time_control: TimeControl, function: FunctionProcess
) -> AsyncIterator[None]:
    """Within the block no time passes, unless a slice gave up or a claim's answer was lost: then minute after minute.

    So a test can ask that a short outage costs nothing, and still ends where a slow machine makes a long one of it.
    """

    async def look_after() -> None:
        while True:
            await asyncio.sleep(1)
            # Not while the database is away.
            with contextlib.suppress(psycopg.Error):
                if gave_up(harness, function) or await harness.rows(ALL_LEFT_IS_HIDDEN) == [(True,)]:
                    await time_control.let_time_pass()
                    await time_control.tick()

    looking = asyncio.create_task(look_after())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@contextlib.asynccontextmanager
async def restarted_at(
    harness: Harness,
    table: str,
    event: str,
    fall: Callable[[], Awaitable[None]],
    get_up: Callable[[], Awaitable[None]],
    times: int = 1,
) -> AsyncIterator[None]:
    """After the block, a layer falls just when so many statements do this to the table, and gets up again."""
    async with breakpoint_at(harness.project, table, event) as stop:
        yield
        await stop.until_reached(times)
        await fall()
        if harness.project.server.process.alive:
            await stop.release()
        await get_up()
    await harness.execute(f"drop trigger faults_stop on {table}".encode())


async def test_a_restart_of_any_layer_costs_nothing(own_server: Harness) -> None:
    """While mentors are read, while batches are recorded, and when the run is being ended."""
    harness, project, time_control = own_server, own_server.project, TimeControl(own_server)
    await harness.add_mentors(MENTORS)
    gates = asyncio.Event(), asyncio.Event()
    harness.engine.rules += [
        rules.hold_until(gates[0]),
        rules.only(lambda call: call.number > 4, rules.hold_until(gates[1])),
    ]
    function = await harness.start_function(SMALL)
    await time_control.start()

    batches, evaluations, invocations = (
        f"public.scheduler_{name}" for name in ("invocation_batches", "evaluations", "invocations")
    )
    async with minutes_when_stuck(harness, time_control, function):
        async with restarted_at(harness, batches, "insert", project.gateway.kill, project.gateway.start):
            await time_control.tick()
        async with restarted_at(harness, evaluations, "insert", project.postgrest.kill, project.postgrest.start, 2):
            gates[0].set()
        async with restarted_at(harness, invocations, "update", project.server.kill, project.server.start):
            gates[1].set()
        invocation = await eventually(harness.ended, 120)

    await check_success(harness, invocation)
    assert gave_up(harness, function) or set(harness.engine.keys_seen.values()) == {1}


async def test_a_longer_outage_is_503_and_repeats_the_lost_post(own_server: Harness) -> None:
    """A crash of the database empties pg_net's tables: only ours know of the post that was under way."""
    harness, time_control = own_server, TimeControl(own_server)
    await harness.add_mentors(MENTORS)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.hold_until(gate))
    function = await harness.start_function(SMALL | {"MAX_WORKERS": "1"})
    await time_control.start()
    await time_control.tick()
    await harness.engine.until_called(2)

    await harness.project.server.stop_immediately()
    gate.set()
    answer = await harness.fire(function)

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "database_unavailable"
    assert int(answer.headers["retry-after"]) > 0

    async def slice_gave_up_too() -> bool:
        return gave_up(harness, function) >= 2

    await eventually(slice_gave_up_too)
    assert "Traceback" not in function.log_path.read_text()
    assert {line["event"] for line in harness.log_lines(function) if line["severity"] == "ERROR"} == {
        "database_unavailable"
    }

    await harness.project.server.start()
    await eventually(harness.project.postgrest.is_ready)
    await time_control.tick()
    assert await dispatch_errors(harness) == [None], "a lost post is believed in for a while"
    invocation = await time_control.until_ended()

    await check_success(harness, invocation)
    assert (await dispatch_errors(harness))[0] == "no_answer"
    assert max(harness.engine.keys_seen.values()) > 1, "what was in hand was not evaluated again: was it recorded?"


async def dispatch_errors(harness: Harness) -> list[str | None]:
    return [error for (error,) in await harness.rows(b"select error from scheduler.dispatches order by id")]


async def test_a_call_whose_answer_is_lost_has_happened_once(harness: Harness, time_control: TimeControl) -> None:
    """Of the slot's opening five in a row, which is some seconds: no slice is given up."""
    await harness.add_mentors(MENTORS)
    losing = {
        "scheduler_open_slot": 5,
        "scheduler_enqueue": 2,
        "scheduler_claim": 2,
        "scheduler_complete": 4,
        "scheduler_finish": 2,
        "scheduler_end_slice": 2,
    }
    paths = {f"/rest/v1/rpc/{function}": times for function, times in losing.items()}
    async with LossyProxy(harness.project.supabase_url, paths) as proxy:
        function = await harness.start_function(SMALL | {"SUPABASE_URL": proxy.url})
        await time_control.start()
        invocation = await time_control.until_ended()

    assert len(proxy.lost) == sum(losing.values())
    assert set(proxy.lost) <= {200, 204}
    assert gave_up(harness, function) == 0
    assert len(await harness.invocations()) == 1
    assert set(harness.engine.keys_seen.values()) == {1}
    states = [line["state"] for line in harness.log_lines(function) if line["event"] == "batch_recorded"]
    assert "already_done" in states
    await check_success(harness, invocation)
