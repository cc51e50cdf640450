"""A batch that kills its worker costs one user, one that outlives its slice costs none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any

import httpx

from tests.emulator.function import FunctionProcess
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import Call, Proceed, Reply, Rule, rules

SMALL_BATCHES = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "20", "ENGINE_MAX_CONCURRENCY": "4"}
# Of one user: two beside others, and from the third on alone until the fifth is the last.
DEATHS_OF_A_KILLER = 5
BE_VISIBLE = (
    b"update pgmq.q_scenario_evaluation_batches set vt = clock_timestamp()",
    b"update pgmq.q_scenario_evaluation_batches_poison set vt = clock_timestamp()",
)


class Killer:
    """An engine that kills the function whenever a call is about certain users."""

    def __init__(self, victim: FunctionProcess, users: Collection[str]) -> None:
        self._victim = victim
        self._users = users
        self._killing: asyncio.Task[None] | None = None
        self.deaths = 0

    def rule(self) -> Rule:
        """Never answers such a call: its caller is gone."""

        async def rule(call: Call, proceed: Proceed) -> Reply:
            if not call.names_any(self._users):
                return await proceed(call)
            # Several such calls may come from one process, which is killed once.
            if self._killing is None or self._killing.done():
                self.deaths += 1
                self._killing = asyncio.create_task(self._victim.kill())
            await asyncio.shield(self._killing)
            return await rules.never_answer()(call, proceed)

        return rule


async def fire_until_it_ends(harness: Harness, function: FunctionProcess) -> dict[str, Any]:
    """Fires again and again, each time after whatever a dead process had in hand is visible again."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            await harness.fire(function)
        await function.until_ready()
        invocation = await harness.ended()
        if invocation is not None:
            return invocation
        for statement in BE_VISIBLE:
            await harness.execute(statement)


async def test_users_who_kill_every_worker_fail_alone(harness: Harness) -> None:
    """Two of them, in batches of different pages: each kills its worker with others in hand twice, and then alone."""
    mentors = await harness.add_mentors(250)
    lost = sorted(mentors)[7::125]
    function = await harness.start_function(SMALL_BATCHES)
    killer = Killer(function, lost)
    harness.engine.rules.append(killer.rule())

    invocation = await fire_until_it_ends(harness, function)

    assert invocation["status"] == "partial"
    assert await harness.recorded_pairs(invocation["id"]) == {
        pair: "failed" if pair[0] in lost else outcome for pair, outcome in harness.expected_pairs().items()
    }
    causes = b"select distinct error_code from public.scheduler_evaluations where outcome = 'failed'"
    assert await harness.rows(causes) == [("worker_lost",)]
    await harness.check_truth(invocation)
    assert killer.deaths <= DEATHS_OF_A_KILLER * len(lost)
    failed = b"select distinct queue, mentors from public.scheduler_invocation_batches where failed > 0"
    assert await harness.rows(failed) == [("scenario_evaluation_batches_poison", 1)]
    # A death alone is charged to no other batch.
    others = b"select max(deliveries) from public.scheduler_invocation_batches where failed = 0"
    assert (await harness.rows(others))[0][0] <= 3


async def test_a_batch_that_needs_several_slices_is_recorded_in_parts(harness: Harness) -> None:
    """One batch of thirty, one user to a call, one call at a time, and a slice lasts for about a third of them."""
    await harness.add_mentors(30)
    calls = iter(range(30))
    over = asyncio.Event()

    async def ten_in_a_slice(call: Call, proceed: Proceed) -> Reply:
        if next(calls, 0) % 11 == 10:
            # longer than what is left of the slice
            over.clear()
            await over.wait()
        return await proceed(call)

    harness.engine.rules.append(ten_in_a_slice)
    function = await harness.start_function(
        {
            "TIME_BUDGET_SECONDS": "3",
            "ENGINE_TIMEOUT_SECONDS": "2.99",
            "ENGINE_MAX_CONCURRENCY": "1",
            "ENGINE_USERS_PER_CALL": "1",
        }
    )

    slices = 0
    while (await harness.ended()) is None:
        assert (await harness.fire(function)).is_success
        over.set()
        slices += 1

    (invocation,) = await harness.invocations()
    assert invocation["status"] == "success"
    assert slices >= invocation["counts"]["batches"] >= 3
    assert await harness.recorded_pairs(invocation["id"]) == harness.expected_pairs()
    await harness.check_truth(invocation)
    parts = [line for line in harness.log_lines(function) if line["event"] == "batch_recorded"]
    left = [part.get("mentors_requeued", 0) for part in parts]
    assert left == [30 - sum(part["mentors"] for part in parts[: number + 1]) for number in range(len(parts))]
    assert left[-1] == 0
