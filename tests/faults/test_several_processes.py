"""Several processes drain one run, as dispatch asks for them; some of them die, and each pair is evaluated once."""

from __future__ import annotations

import asyncio

from tests.emulator.function import FunctionProcess
from tests.emulator.load_balancer import LoadBalancer
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.integration.nightly.night import Night
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


def recorded(night: Night, function: FunctionProcess) -> int:
    """How many batches a process says it has recorded; one that was killed may not have come to say so."""
    return sum(line["event"] == "batch_recorded" and line["state"] == "done" for line in night.log_lines(function))


async def test_killed_processes_leave_their_batches_to_the_others(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(5 * BATCHES)
    gate = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: call.number > 2 * PROCESSES, rules.hold_until(gate)))
    functions = await asyncio.gather(*(night.start_function(SETTINGS, restart=False) for _ in range(PROCESSES)))
    balancer = LoadBalancer(night.project.data_dir, [function.port for function in functions])
    await balancer.start()
    try:
        await clockwork.start()
        await night.project.write_vault_secrets(balancer.url)
        # All is queued before slices are asked for: what the first one queues, others would come for when it is over.
        await night.execute(b"update scheduler.settings set engine_paused_until = now() + interval '1 hour'")
        await clockwork.tick_and_wait()
        await night.execute(b"update scheduler.settings set engine_paused_until = null")
        await clockwork.tick()
        # Each process is in the middle of two calls.
        await night.engine.until(lambda engine: engine.in_flight == 2 * PROCESSES)
        await asyncio.gather(*(function.kill() for function in functions[: PROCESSES // 2]))
        gate.set()
        invocation = await clockwork.until_ended()
    finally:
        await balancer.stop()

    await check_success(night, invocation)
    assert min(recorded(night, function) for function in functions[PROCESSES // 2 :]) > 0
    assert sum(recorded(night, function) for function in functions) <= BATCHES
    assert max(night.engine.keys_seen.values()) > 1, "nothing was in hand of those that were killed"
