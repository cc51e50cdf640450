"""One slot, one invocation, one notification, however simultaneously it is fired."""

from __future__ import annotations

import asyncio

from tests.integration.nightly.night import Night


async def test_ten_simultaneous_pairs_of_fires_are_one_run_each(night: Night) -> None:
    """The functions share the run's batches; each round forgets that the slot was ever fired."""
    await night.add_mentors(150)
    functions = [await night.start_function({"EVALUATION_BATCH_SIZE": "20"}) for _ in range(2)]
    for _ in range(10):
        answers = await asyncio.gather(*(night.fire(function) for function in functions))

        (invocation,) = await night.invocations()
        assert sorted(answer.json()["deduplicated"] for answer in answers) == [False, True]
        assert {answer.json()["id"] for answer in answers} == {invocation["id"]}
        assert invocation["status"] == "succeeded"
        assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
        await night.check_truth(invocation)
        await night.execute(b"delete from public.scheduler_invocations")
        await night.project.make_slot_due()
    assert max(night.engine.keys_seen.values()) == 10, "a run asked about a pair twice"
