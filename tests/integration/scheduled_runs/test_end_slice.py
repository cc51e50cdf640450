"""A run continues by itself: dispatch requests the next slice when one ends."""

from __future__ import annotations

import asyncio

from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules

ALL_SLICES_ENDED = b"select where not exists (select from scheduler.dispatches where ended_at is null)"
SETTINGS = {
    "TIME_BUDGET_SECONDS": "2",
    "ENGINE_TIMEOUT_SECONDS": "1",
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_MAX_CONCURRENCY": "2",
    "ENGINE_USERS_PER_CALL": "10",
    "MAX_WORKERS": "1",
}


async def test_slices_follow_one_another_after_one_tick(harness: Harness) -> None:
    await harness.add_mentors(300)
    harness.engine.rules.append(rules.slow(0.2))
    function = await harness.start_function(SETTINGS)
    await harness.project.write_vault_secrets(function.url)
    await harness.project.start_net()

    await harness.project.cron_driver().run_all()
    # A batch that a slice did not release would be hidden for longer than this waits.
    invocation = await eventually(harness.ended, within=50)

    assert invocation is not None
    assert invocation["status"] == "success"
    await harness.check_truth(invocation)
    ((dispatches, open_ones),) = await harness.rows(
        b"select count(*), count(*) filter (where ended_at is null) from scheduler.dispatches"
    )
    assert dispatches > 1
    assert open_ones <= 1  # the next tick collects the last one's answer


async def test_an_emptied_queue_is_filled_by_the_next_tick(harness: Harness) -> None:
    await harness.add_mentors(200)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.hold_until(gate))
    function = await harness.start_function(SETTINGS | {"TIME_BUDGET_SECONDS": "25", "ENGINE_TIMEOUT_SECONDS": "20"})
    await harness.project.write_vault_secrets(function.url)
    await harness.project.start_net()
    driver = harness.project.cron_driver()
    firing = asyncio.create_task(harness.fire(function))
    await harness.engine.until_called(2)
    await eventually(lambda: harness.rows(b"select from public.scheduler_invocations where enumeration_done"))

    await harness.execute(b"select pgmq.purge_queue('scenario_evaluation_batches')")
    gate.set()
    assert (await firing).json()["status"] == "running"
    # The slice that its end requested finds nothing; beside one under way, a tick may leave locked rows to the next.
    await eventually(lambda: harness.rows(ALL_SLICES_ENDED))
    assert await harness.queue_lengths() == [0, 0, 0]
    await driver.run_all()
    invocation = await eventually(harness.ended)

    assert invocation is not None
    assert invocation["status"] == "success"
    await harness.check_truth(invocation)
