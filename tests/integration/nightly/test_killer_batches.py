"""A batch that kills its worker costs one user, one that outlives its slice costs nobody, one that is lost is found."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any

import httpx
import pytest

from tests.emulator.function import FunctionProcess
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import Call, Proceed, Reply, Rule, rules

SMALL_BATCHES = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "20", "ENGINE_MAX_CONCURRENCY": "4"}
# Of one user: two while she is among others, and from the third on alone until the fifth is her last.
DEATHS_OF_A_KILLER = 5
BE_VISIBLE = (
    b"update pgmq.q_scenario_evaluation_batches set vt = clock_timestamp()",
    b"update pgmq.q_scenario_evaluation_batches_poison set vt = clock_timestamp()",
)


class Killer:
    """An engine that kills whoever asks it about certain users.

    Args:
        victim: the function whose process dies of it.
        users: what it dies of.
    """

    def __init__(self, victim: FunctionProcess, users: Collection[str]) -> None:
        self._victim = victim
        self._users = users
        self._killing: asyncio.Task[None] | None = None
        self.deaths = 0

    def rule(self) -> Rule:
        """Never answers such a call: whoever made it is gone."""

        async def rule(call: Call, proceed: Proceed) -> Reply:
            if not call.names_any(self._users):
                return await proceed(call)
            # Several such calls may come from one process, which dies once.
            if self._killing is None or self._killing.done():
                self.deaths += 1
                self._killing = asyncio.create_task(self._victim.kill())
            await asyncio.shield(self._killing)
            return await rules.never_answer()(call, proceed)

        return rule


async def fire_until_it_ends(night: Night, function: FunctionProcess) -> dict[str, Any]:
    """Fires again and again, each time after whatever a dead process had in hand is visible again."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            await night.fire(function)
        await function.until_ready()
        invocation = await night.ended()
        if invocation is not None:
            return invocation
        for statement in BE_VISIBLE:
            await night.execute(statement)


async def codes(night: Night) -> dict[str, str]:
    """Why each user failed who did."""
    found = await night.rows(
        b"select user_id::text, error_code from public.scheduler_evaluations where outcome = 'failed'"
    )
    return dict(found)


async def assert_nobody_else_failed(night: Night, invocation: dict[str, Any], lost: Collection[str]) -> None:
    assert await codes(night) == dict.fromkeys(lost, "worker_lost")
    assert invocation["status"] == "partial"
    recorded = await night.recorded_pairs(invocation["id"])
    for pair, outcome in night.expected_pairs().items():
        assert recorded[pair] == ("failed" if pair[0] in lost else outcome), pair
    await night.check_truth(invocation)


@pytest.mark.parametrize("killers", [1, 2])
async def test_who_kills_every_worker_fails_alone(night: Night, killers: int) -> None:
    """In one batch, and in batches of different pages of the night."""
    mentors = await night.add_mentors(250)
    lost = sorted(mentors)[7 :: 250 // killers][:killers]
    function = await night.start_function(SMALL_BATCHES)
    killer = Killer(function, lost)
    night.engine.rules.append(killer.rule())

    invocation = await fire_until_it_ends(night, function)

    await assert_nobody_else_failed(night, invocation, lost)
    assert killer.deaths <= DEATHS_OF_A_KILLER * killers


async def test_when_it_dies_alone_nobody_else_is_charged_with_it(night: Night) -> None:
    """Who was in hand at each of the first two deaths comes a third time, and nobody a fourth."""
    mentors = await night.add_mentors(250)
    lost = sorted(mentors)[100]
    function = await night.start_function(SMALL_BATCHES | {"EVALUATION_BATCH_SIZE": "1", "ENGINE_USERS_PER_CALL": "1"})
    killer = Killer(function, [lost])
    night.engine.rules.append(killer.rule())

    invocation = await fire_until_it_ends(night, function)

    await assert_nobody_else_failed(night, invocation, [lost])
    assert killer.deaths == DEATHS_OF_A_KILLER
    deliveries = await night.rows(
        b"select pairs -> 0 -> 'user_ids' ->> 0, deliveries from public.scheduler_invocation_batches"
    )
    assert dict(deliveries)[lost] == DEATHS_OF_A_KILLER + 1
    queues = await night.rows(b"select distinct queue from public.scheduler_invocation_batches where failed > 0")
    assert queues == [("scenario_evaluation_batches_poison",)]
    assert max(number for user_id, number in deliveries if user_id != lost) <= 3


async def test_a_batch_that_needs_several_slices_is_recorded_in_parts_and_nobody_fails(night: Night) -> None:
    """One batch of thirty, one user to a call, one call at a time, and a slice lasts for about a third of them."""
    await night.add_mentors(30)
    calls = iter(range(30))
    over = asyncio.Event()

    async def ten_in_a_slice(call: Call, proceed: Proceed) -> Reply:
        if next(calls, 0) % 11 == 10:
            # longer than the rest of the slice
            over.clear()
            await over.wait()
        return await proceed(call)

    night.engine.rules.append(ten_in_a_slice)
    function = await night.start_function(
        {
            "TIME_BUDGET_SECONDS": "3",
            "ENGINE_TIMEOUT_SECONDS": "2.99",
            "ENGINE_MAX_CONCURRENCY": "1",
            "ENGINE_USERS_PER_CALL": "1",
        }
    )

    slices = 0
    while (await night.ended()) is None:
        assert (await night.fire(function)).is_success
        over.set()
        slices += 1

    (invocation,) = await night.invocations()
    assert invocation["status"] == "succeeded"
    assert slices >= invocation["counts"]["batches"] >= 3
    assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
    await night.check_truth(invocation)
    parts = [line for line in night.log_lines(function) if line["event"] == "batch_recorded"]
    assert sum(part["mentors"] for part in parts) == 30
    left = [part.get("mentors_put_back", 0) for part in parts]
    assert left == [30 - sum(part["mentors"] for part in parts[: number + 1]) for number in range(len(parts))]


async def test_a_queue_that_is_emptied_in_mid_run_is_filled_again_by_the_next_tick(night: Night) -> None:
    await night.add_mentors(200)
    gate = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: call.number > 3, rules.hold_until(gate)))
    function = await night.start_function(SMALL_BATCHES | {"ENGINE_MAX_CONCURRENCY": "1", "MAX_WORKERS": "1"})
    await night.project.write_vault_secrets(function.url)
    await night.project.start_net()
    driver = night.project.cron_driver()
    firing = asyncio.create_task(night.fire(function))
    await night.engine.until_called(4)

    await night.execute(b"select pgmq.purge_queue('scenario_evaluation_batches')")
    gate.set()
    answer = await firing
    assert answer.json()["status"] == "running"
    assert await night.queue_lengths() == [0, 0, 0]

    async def tick() -> dict[str, Any] | None:
        await driver.run_all()
        return await night.ended()

    invocation = await eventually(tick)

    assert invocation is not None
    assert invocation["status"] == "succeeded"
    assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
    await night.check_truth(invocation)
