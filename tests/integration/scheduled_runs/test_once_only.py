"""One slot, one invocation, one notification, however simultaneously it is fired."""

from __future__ import annotations

import asyncio

from tests.integration.scheduled_runs.harness import Harness


async def test_ten_pairs_of_simultaneous_calls_are_one_run_each(harness: Harness) -> None:
    """The functions share the run's batches; each round forgets that the slot was ever fired."""
    await harness.add_mentors(150)
    functions = [await harness.start_function({"EVALUATION_BATCH_SIZE": "20"}) for _ in range(2)]
    for _ in range(10):
        answers = await asyncio.gather(*(harness.fire(function) for function in functions))

        (invocation,) = await harness.invocations()
        assert sorted(answer.json()["deduplicated"] for answer in answers) == [False, True]
        assert {answer.json()["id"] for answer in answers} == {invocation["id"]}
        assert invocation["status"] == "success"
        assert await harness.recorded_pairs(invocation["id"]) == harness.expected_pairs()
        await harness.check_truth(invocation)
        await harness.execute(b"delete from public.scheduler_invocations")
        await harness.project.make_slot_due()
    assert max(harness.engine.keys_seen.values()) == 10, "a run asked about a pair twice"


async def test_installing_starts_no_run_of_the_last_slot(harness: Harness) -> None:
    await harness.add_mentors(5)
    await harness.execute(b"update scheduler.settings set slot_high_water_mark = null")
    function = await harness.start_function()
    for _ in range(2):
        answer = await harness.fire(function)
        assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
    assert harness.engine.calls == []
