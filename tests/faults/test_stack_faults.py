"""What the function stands on falls: PostgREST, the gateway, PostgreSQL itself; the run goes on by itself.

An outage of some seconds costs nothing: whoever has work in hand waits for its end. A longer one is said clearly, and
costs what was in hand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.emulator.project import Project
from tests.faults.breakpoint import breakpoint_at
from tests.faults.clockwork import Clockwork
from tests.faults.giving_up import gave_up, minutes_when_stuck
from tests.faults.lossy_proxy import LossyProxy
from tests.faults.oracle import check_promises
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


@dataclass(frozen=True)
class Layer:
    """A part of the stack: how it falls, how it gets up again, and how many times it did, as its own log has it."""

    fall: Callable[[Project], Awaitable[None]]
    get_up: Callable[[Project], Awaitable[None]]
    in_log: bytes | None = None

    def times_recovered(self, project: Project) -> int:
        return project.server.log_path.read_bytes().count(self.in_log) if self.in_log else 0


def start_server(project: Project) -> Awaitable[None]:
    return project.server.start()


LAYERS = {
    "the gateway": Layer(lambda project: project.gateway.kill(), lambda project: project.gateway.start()),
    "PostgREST": Layer(lambda project: project.postgrest.kill(), lambda project: project.postgrest.start()),
    "PostgreSQL, politely": Layer(
        lambda project: project.server.stop(), start_server, b"database system was shut down"
    ),
    "PostgreSQL, immediately": Layer(
        lambda project: project.server.stop_immediately(), start_server, b"database system was interrupted"
    ),
    "PostgreSQL, kill -9": Layer(
        lambda project: project.server.kill(), start_server, b"database system was interrupted"
    ),
}
LONG_AWAY = ("the gateway", "PostgreSQL, politely")


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
async def test_a_restart_costs_nothing_whatever_falls_and_whenever(own_night: Night, layer: Layer) -> None:
    """While mentors are read, while batches are recorded, and when the run is being ended.

    No batch is evaluated again and nobody has to look at it: no second tick comes, unless the machine is so slow that
    somebody's patience was at an end.
    """
    night = own_night
    await night.add_mentors(MENTORS)
    gates = asyncio.Event(), asyncio.Event()
    night.engine.rules += [
        rules.hold_until(gates[0]),
        rules.only(lambda call: call.number > 4, rules.hold_until(gates[1])),
    ]
    function = await night.start_function(SMALL)
    clockwork = Clockwork(night)
    await clockwork.start()
    before = layer.times_recovered(night.project)

    async with minutes_when_stuck(night, clockwork, function):
        async with restarted_at(night, layer, "public.scheduler_invocation_batches", "insert"):
            await clockwork.tick()
        async with restarted_at(night, layer, "public.scheduler_evaluations", "insert", times=2):
            gates[0].set()
        async with restarted_at(night, layer, "public.scheduler_invocations", "update"):
            gates[1].set()
        invocation = await eventually(night.ended, 120)

    assert invocation is not None
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert gave_up(night, function) or set(night.engine.keys_seen.values()) == {1}
    if layer.in_log:
        assert layer.times_recovered(night.project) - before >= 3


@contextlib.asynccontextmanager
async def restarted_at(night: Night, layer: Layer, table: str, event: str, times: int = 1) -> AsyncIterator[None]:
    """After the block, a layer falls just when so many statements do this to the table, and gets up again."""
    async with breakpoint_at(night.project, table, event) as stop:
        yield
        await stop.until_reached(times)
        await layer.fall(night.project)
        if night.project.server.process.alive:
            await stop.release()
        await layer.get_up(night.project)
    await night.execute(f"drop trigger faults_stop on {table}".encode())


@pytest.mark.parametrize("layer", [LAYERS[name] for name in LONG_AWAY], ids=LONG_AWAY)
async def test_a_longer_outage_is_503_with_a_time_to_wait_and_the_run_goes_on_when_it_is_over(
    own_night: Night, layer: Layer
) -> None:
    night = own_night
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    clockwork = Clockwork(night)
    await clockwork.start()
    await clockwork.tick()
    await night.engine.until_called(2)

    await layer.fall(night.project)
    gate.set()
    tick = asyncio.create_task(clockwork.tick())
    # Somebody calls meanwhile: dispatch cannot, where the database is down.
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

    await layer.get_up(night.project)
    await tick
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert max(night.engine.keys_seen.values()) > 1, "what was in hand was not evaluated again: was it recorded?"


async def test_a_record_that_was_committed_unheard_is_told_so_and_is_not_made_twice(
    night: Night, clockwork: Clockwork
) -> None:
    """PostgREST dies within COMMIT: the function sees a broken connection, and the row is there."""
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    await clockwork.start()

    async with breakpoint_at(night.project, "public.scheduler_evaluations", "insert", in_commit=True) as stop:
        await clockwork.tick()
        await stop.until_reached(2)
        await night.project.postgrest.kill()
        await stop.release()
    await eventually(lambda: night.rows(b"select from public.scheduler_evaluations"))
    await night.project.postgrest.start()
    invocation = await eventually(night.ended)

    assert invocation is not None
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert set(night.engine.keys_seen.values()) == {1}
    states = [line["state"] for line in night.log_lines(function) if line["event"] == "batch_recorded"]
    assert states.count("already_done") >= 2


async def test_whatever_answer_is_lost_after_it_has_happened_it_happens_once(
    night: Night, clockwork: Clockwork
) -> None:
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
        function = await night.start_function({**SMALL, "SUPABASE_URL": proxy.url})
        await clockwork.start()

        invocation = await clockwork.until_ended()

    assert len(proxy.lost) == sum(losing.values())
    assert set(proxy.lost) <= {200, 204}
    assert gave_up(night, function) == 0
    assert invocation["status"] == "succeeded"
    assert len(await night.invocations()) == 1
    await check_promises(night, invocation)
    assert set(night.engine.keys_seen.values()) == {1}


@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "while it is answered"])
async def test_a_post_that_a_crash_of_the_database_loses_is_given_up_and_asked_for_again(
    own_night: Night, sent: bool
) -> None:
    """pg_net's tables are emptied by a crash, and everything else goes down with it: only ours know of the post."""
    night = own_night
    await night.add_mentors(MENTORS)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    function = await night.start_function({**SMALL, "MAX_WORKERS": "1"})
    clockwork = Clockwork(night)
    await clockwork.start()
    assert night.project.net is not None
    if not sent:
        await night.project.net.stop()

    await clockwork.tick()
    if sent:
        await night.engine.until_called(2)
    ((queued,),) = await net_queue(night)
    assert queued == 1
    await night.project.server.stop_immediately()
    await function.kill()
    await night.project.server.start()
    gate.set()
    if not sent:
        await night.project.start_net()
    await function.until_ready()

    assert await net_queue(night) == [(0,)]
    await clockwork.tick()
    assert await dispatches(night) == [None], "the post that nobody has is still believed in"
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert (await dispatches(night))[0] == "no_answer"
    if sent:
        assert max(night.engine.keys_seen.values()) > 1


async def net_queue(night: Night) -> list[tuple[Any, ...]]:
    """How many posts wait or are under way."""
    async with night.project.connect(superuser=True) as connection:
        return await (await connection.execute(b"select count(*) from net.http_request_queue")).fetchall()


async def dispatches(night: Night) -> list[str | None]:
    """The errors of the dispatches, in their order."""
    return [error for (error,) in await night.rows(b"select error from scheduler.dispatches order by id")]
