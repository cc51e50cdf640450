"""A ceiling over the calls of all processes: never more in flight at the engine, whoever joins, calls or is killed."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import ScriptedEngine, rules

CEILING = 5
SETTINGS = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "1",
    "ENGINE_MAX_CONCURRENCY": "4",
    "ENGINE_MAX_CONCURRENCY_TOTAL": str(CEILING),
    "ENGINE_TIMEOUT_SECONDS": "20",
    "MAX_WORKERS": "3",
}


def slices_at_the_engine(engine: ScriptedEngine) -> int:
    """How many slices have a call that waits for its answer: each has a trace of its own."""
    return len({call.traceparent and call.traceparent.split("-")[1] for call in engine.calls if call.status is None})


async def says(night: Night, functions: list[FunctionProcess], event: str) -> FunctionProcess:
    """The first of these to log the event."""

    async def look() -> FunctionProcess | None:
        return next((one for one in functions if logged(night, one, event)), None)

    found = await eventually(look)
    assert found is not None
    return found


def logged(night: Night, function: FunctionProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in night.log_lines(function) if line["event"] == event]


async def test_what_a_killed_process_may_still_have_in_flight_is_given_to_nobody(
    night: Night, clockwork: Clockwork
) -> None:
    """The engine is still at its calls; of five that may be in flight the others have the one that it did not have."""
    await night.add_mentors(200)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    victim, *others = await asyncio.gather(*(night.start_function(SETTINGS, restart=False) for _ in range(3)))
    await clockwork.start()
    firing = [asyncio.create_task(night.fire(victim))]
    await night.engine.until(lambda engine: engine.in_flight == 4)
    await victim.kill()
    await night.project.write_vault_secrets(others[0].url)

    firing += [asyncio.create_task(night.fire(other)) for other in others]
    await night.engine.until(lambda engine: engine.in_flight == CEILING)
    idle = await says(night, others, "engine_full")
    assert logged(night, idle, "batch_given_back") == []
    assert night.engine.in_flight == CEILING
    gate.set()
    await asyncio.gather(*firing, return_exceptions=True)
    invocation = await clockwork.until_ended()

    assert night.engine.peak_in_flight == CEILING
    assert (invocation["status"], invocation["failures"]) == ("succeeded", [])
    # Nobody took what he could not get on with, and none of it is charged to anybody.
    assert all(await night.rows(b"select deliveries <= 2 from public.scheduler_invocation_batches"))
    await check_promises(night, invocation)


async def test_processes_that_join_have_their_share_and_one_that_dies_keeps_nobody_from_his(
    night: Night, clockwork: Clockwork
) -> None:
    await night.add_mentors(600)
    in_a_hurry = asyncio.Event()
    night.engine.rules.append(rules.only(rules.before(in_a_hurry), rules.slow(None, 0.02)))
    functions = await asyncio.gather(*(night.start_function(SETTINGS, restart=False) for _ in range(3)))
    await clockwork.start()
    firing = []
    for joined, function in enumerate(functions, 1):
        firing.append(asyncio.create_task(night.fire(function)))
        await night.engine.until(lambda engine, joined=joined: slices_at_the_engine(engine) == joined)  # type: ignore[misc]
    await functions[0].kill()
    await night.project.write_vault_secrets(functions[1].url)
    in_a_hurry.set()
    await asyncio.gather(*firing, return_exceptions=True)
    invocation = await clockwork.until_ended()

    assert night.engine.peak_in_flight == CEILING
    assert (invocation["status"], invocation["failures"]) == ("succeeded", [])
    assert all(logged(night, function, "batch_recorded") for function in functions[1:])
    await check_promises(night, invocation)
    assert await night.rows(b"select from scheduler.engine_leases where expires_at > now()") == []


async def test_a_batch_by_hand_keeps_to_the_ceiling_as_well(night: Night, clockwork: Clockwork) -> None:
    """Turned away while a night has all the calls; and once it has not, the same request is evaluated."""
    mentors = await night.add_mentors(200)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    greedy = {**SETTINGS, "ENGINE_MAX_CONCURRENCY": str(CEILING)}
    patience = {"TIME_BUDGET_SECONDS": "2", "ENGINE_TIMEOUT_SECONDS": "1.5"}
    working, asked = await asyncio.gather(night.start_function(greedy), night.start_function({**SETTINGS, **patience}))
    await clockwork.start()
    firing = asyncio.create_task(night.fire(working))
    await night.engine.until(lambda engine: engine.in_flight == CEILING)

    caller = Caller(night, asked)
    request = {"user_ids": mentors[:3], "dry_run": True}
    answer = await caller.send("POST", "/evaluation-batch", json=request)
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_busy")
    assert night.engine.in_flight == CEILING
    gate.set()
    await firing
    answer = await caller.send("POST", "/evaluation-batch", json=request)

    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 6
    assert night.engine.peak_in_flight == CEILING
    await check_promises(night, await clockwork.until_ended())
