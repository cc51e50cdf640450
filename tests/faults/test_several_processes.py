"""Several processes drain one run, as dispatch asks for them; some of them die, and everybody is evaluated once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.emulator.function import FunctionProcess
from tests.emulator.load_balancer import LoadBalancer
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.nightly.night import Night
from tests.scripted_engine import ScriptedEngine, rules

# One batch a call and two calls at a time, so that a process that is killed has something in hand, and others as well.
SETTINGS = {
    "EVALUATION_BATCH_SIZE": "5",
    "ENGINE_USERS_PER_CALL": "5",
    "ENGINE_MAX_CONCURRENCY": "2",
    "ENGINE_TIMEOUT_SECONDS": "20",
    "MAX_WORKERS": "4",
}
PROCESSES = 4
BATCHES = 80


def slices_in_flight(engine: ScriptedEngine) -> set[str | None]:
    """The traces of the calls that wait for an answer: each slice has one of its own."""
    return {call.traceparent and call.traceparent.split("-")[1] for call in engine.calls if call.status is None}


@asynccontextmanager
async def instances(night: Night, clockwork: Clockwork) -> AsyncIterator[list[FunctionProcess]]:
    """Processes of the function behind one URL, which is what dispatch calls; one that dies is not started again."""
    functions = await asyncio.gather(*(night.start_function(SETTINGS, restart=False) for _ in range(PROCESSES)))
    balancer = LoadBalancer(night.project.data_dir, [function.port for function in functions])
    await balancer.start()
    try:
        await clockwork.start()
        await night.project.write_vault_secrets(balancer.url)
        yield functions
    finally:
        await balancer.stop()


async def spread(night: Night, clockwork: Clockwork) -> None:
    """Has dispatch ask for as many slices as may be under way at a time, of a run that everybody is queued for.

    What the first slice queues the others would come for when it is over: pg_net posts nothing more before.
    """
    await night.execute(b"update scheduler.settings set engine_paused_until = now() + interval '1 hour'")
    await clockwork.tick()
    await clockwork.until_quiet()
    await night.execute(b"update scheduler.settings set engine_paused_until = null")
    await clockwork.tick()


def recorded(night: Night, function: FunctionProcess) -> int:
    """How many batches a process says it has recorded; one that was killed may not have come to say so."""
    return sum(line["event"] == "batch_recorded" and line["state"] == "done" for line in night.log_lines(function))


async def test_dispatch_spreads_one_run_over_the_processes_there_are(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(5 * BATCHES)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    async with instances(night, clockwork) as functions:
        await spread(night, clockwork)
        await night.engine.until(lambda engine: len(slices_in_flight(engine)) == PROCESSES)
        gate.set()
        invocation = await clockwork.until_ended()

        assert invocation["status"] == "succeeded"
        by_process = [recorded(night, function) for function in functions]
        assert min(by_process) > 0
        assert sum(by_process) == BATCHES
        assert max(night.engine.keys_seen.values()) == 1
        await check_promises(night, invocation)


async def test_processes_that_are_killed_leave_their_batches_to_the_others(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(5 * BATCHES)
    gate = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: call.number > 2 * PROCESSES, rules.hold_until(gate)))
    async with instances(night, clockwork) as functions:
        await spread(night, clockwork)
        # Each of them is in the middle of two calls.
        await night.engine.until(lambda engine: engine.in_flight == 2 * PROCESSES)
        await asyncio.gather(*(function.kill() for function in functions[: PROCESSES // 2]))
        gate.set()
        invocation = await clockwork.until_ended()

        assert invocation["status"] == "succeeded"
        assert invocation["failures"] == []
        by_survivors = [recorded(night, function) for function in functions[PROCESSES // 2 :]]
        assert min(by_survivors) > 0
        assert sum(recorded(night, function) for function in functions) <= BATCHES
        assert max(night.engine.keys_seen.values()) > 1, "nothing was in hand of those that were killed"
        await check_promises(night, invocation)
