"""Cancelling and deleting over HTTP while workers are at it, and a manual run beside a scheduled one."""

from __future__ import annotations

import asyncio

from tests.integration.manual.caller import Caller, a_caller
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules

TWO_AT_A_TIME = {"EVALUATION_BATCH_SIZE": "10", "ENGINE_USERS_PER_CALL": "10", "ENGINE_MAX_CONCURRENCY": "2"}


async def test_a_cancelled_run_stops_everywhere_and_can_be_retried(harness: Harness) -> None:
    await harness.add_mentors(300)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.hold_until(gate))
    functions = [await harness.start_function(TWO_AT_A_TIME) for _ in range(2)]
    slices = [asyncio.create_task(harness.fire(function)) for function in functions]
    # Two calls in flight and two batches that wait for their turn, in each of two processes.
    await eventually(lambda: batches_in_hand(harness, 8))
    await harness.engine.until_called(4)
    (run,) = await harness.invocations()
    caller = Caller(harness, functions[0])
    assert (await caller.delete(run["id"])).status_code == 409

    cancelled = (await caller.cancel(run["id"])).json()

    assert (cancelled["status"], cancelled["counts"]["not_evaluated"]) == ("cancelled", 600)
    assert await harness.queue_lengths() == [0, 0, 0]
    gate.set()
    for fired in await asyncio.gather(*slices):
        assert (fired.status_code, fired.json()["status"]) == (200, "cancelled")
    # What was in hand is recorded late, and nothing else was begun.
    asked_about = {user_id for user_id, _ in harness.engine.pairs_seen}
    assert 40 <= len(asked_about) <= 80
    after = await caller.see(run["id"])
    await harness.check_truth(after)
    assert (after["status"], after["finished_at"]) == ("cancelled", cancelled["finished_at"])
    assert after["counts"]["not_evaluated"] == 600 - 2 * len(asked_about)
    named = after["not_evaluated_user_ids"]
    assert not set(named) & asked_about
    assert set((await caller.history(named[0]))[run["id"]].values()) == {"not_evaluated"}

    retry = await caller.run({"retry_of": run["id"]})
    first, second = [await harness.recorded_pairs(one["id"]) for one in (run, retry)]
    settled = {pair: outcome for pair, outcome in first.items() if outcome != "not_evaluated"}
    assert not settled.keys() & second.keys()
    assert settled | second == harness.expected_pairs()
    assert max(harness.engine.keys_seen.values()) == 1

    for one in (retry, run):
        assert (await caller.delete(one["id"])).status_code == 204
        for method, body in (("GET", None), ("PUT", {"status": "cancelled"}), ("DELETE", None)):
            assert (await caller.send(method, f"/{one['id']}", json=body)).status_code == 404
    assert (await caller.page())["data"] == []
    for body in ({}, {"scheduled_for": harness.slot.isoformat()}):
        assert (await harness.fire(functions[0], body)).json() == {"status": "idle"}
    assert max(harness.engine.keys_seen.values()) == 1


async def batches_in_hand(harness: Harness, count: int) -> bool:
    claimed = await harness.rows(
        b"select from pgmq.q_scenario_evaluation_batches, public.scheduler_invocations"
        b" where vt > clock_timestamp() and enumeration_done"
    )
    return len(claimed) == count


async def test_a_manual_run_does_not_wait_behind_a_scheduled_one(harness: Harness) -> None:
    mentors = await harness.add_mentors(200)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.only(lambda call: call.keys[0].startswith("slot:"), rules.hold_until(gate)))
    function = await harness.start_function(TWO_AT_A_TIME)
    firing = asyncio.create_task(harness.fire(function))
    await harness.engine.until_called(2)
    caller = await a_caller(harness, TWO_AT_A_TIME)

    run = await caller.run({"user_ids": mentors[:30]})

    assert run["status"] == "success"
    (scheduled,) = (await caller.page(trigger="schedule"))["data"]
    assert (scheduled["status"], scheduled["counts"]["batches_done"]) == ("running", 0)
    gate.set()
    assert (await firing).json()["status"] == "success"
