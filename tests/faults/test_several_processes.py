"""Several processes drain one run, as dispatch asks for them; some of them die, and each pair is evaluated once."""

from __future__ import annotations

import asyncio

from tests.emulator.function import FunctionProcess
from tests.emulator.gateway import LoadBalancer
from tests.faults.oracle import check_success
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

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


def recorded(harness: Harness, function: FunctionProcess) -> int:
    """How many batches a process says it has recorded; one that was killed may not have come to say so."""
    return sum(line["event"] == "batch_recorded" and line["state"] == "done" for line in harness.log_lines(function))


async def test_killed_processes_leave_their_batches_to_the_others(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(5 * BATCHES)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.only(lambda call: call.number > 2 * PROCESSES, rules.hold_until(gate)))
    functions = await asyncio.gather(*(harness.start_function(SETTINGS, restart=False) for _ in range(PROCESSES)))
    balancer = LoadBalancer(harness.project.data_dir, [function.port for function in functions])
    await balancer.start()
    try:
        await time_control.start()
        await harness.project.write_vault_secrets(balancer.url)
        # All is queued before slices are asked for: what the first one queues, others would come for when it is over.
        await harness.execute(b"update scheduler.settings set engine_paused_until = now() + interval '1 hour'")
        await time_control.tick_and_wait()
        await harness.execute(b"update scheduler.settings set engine_paused_until = null")
        await time_control.tick()
        # Each process is in the middle of two calls.
        await harness.engine.until(lambda engine: engine.in_flight == 2 * PROCESSES)
        await asyncio.gather(*(function.kill() for function in functions[: PROCESSES // 2]))
        gate.set()
        invocation = await time_control.until_ended()
    finally:
        await balancer.stop()

    await check_success(harness, invocation)
    assert min(recorded(harness, function) for function in functions[PROCESSES // 2 :]) > 0
    assert sum(recorded(harness, function) for function in functions) <= BATCHES
    assert max(harness.engine.keys_seen.values()) > 1, "nothing was in hand of those that were killed"
