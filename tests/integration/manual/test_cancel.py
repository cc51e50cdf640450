"""Cancelling and deleting over HTTP, while workers are at it."""

from __future__ import annotations

import asyncio

from tests.integration.manual.caller import Caller, a_caller
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import rules

TWO_AT_A_TIME = {"EVALUATION_BATCH_SIZE": "10", "ENGINE_USERS_PER_CALL": "10", "ENGINE_MAX_CONCURRENCY": "2"}
# Two calls in flight and two batches that wait for their turn, in each of two processes.
IN_HAND = 8


async def test_a_cancelled_run_stops_at_the_next_batch_on_every_worker_and_says_who_was_not_evaluated(
    night: Night,
) -> None:
    await night.add_mentors(300)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    functions = [await night.start_function(TWO_AT_A_TIME) for _ in range(2)]
    slices = [asyncio.create_task(night.fire(function)) for function in functions]

    async def claimed_batches() -> list[int] | None:
        found = await night.rows(
            b"select (message ->> 'batch_no')::int from pgmq.q_scenario_evaluation_batches where vt > clock_timestamp()"
        )
        return [batch_no for (batch_no,) in found] if len(found) == IN_HAND else None

    in_hand = await eventually(claimed_batches)
    await night.engine.until_called(4)
    ((enumerated,),) = await night.rows(b"select enumeration_done from public.scheduler_invocations")
    assert enumerated
    (run,) = await night.invocations()
    caller = Caller(night, functions[0])

    answer = await caller.cancel(run["id"])

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["counts"]["not_evaluated"]) == ("cancelled", 600)
    assert await night.queue_lengths() == [0, 0, 0]
    gate.set()
    for fired in await asyncio.gather(*slices):
        assert (fired.status_code, fired.json()["status"]) == (200, "cancelled")
    ((users_in_hand,),) = await night.rows(
        b"select array_agg(user_id) from public.scheduler_invocation_batches as b"
        b" cross join jsonb_array_elements(b.pairs) as grouped"
        b" cross join jsonb_array_elements_text(grouped -> 'user_ids') as user_id where b.batch_no = any(%s)",
        [in_hand],
    )
    asked_about = {user_id for user_id, _ in night.engine.pairs_seen}
    assert asked_about <= set(users_in_hand or ())
    after = await caller.see(run["id"])
    await night.check_truth(after)
    assert (after["status"], after["finished_at"]) == ("cancelled", answer.json()["finished_at"])
    # everything that was in hand is recorded late; nobody else was evaluated, and that is said
    assert 600 - after["counts"]["not_evaluated"] == 2 * len(asked_about) > 0
    named = after["not_evaluated_user_ids"]
    assert named
    assert not set(named) & asked_about
    for user_id in (named[0], next(iter(asked_about))):
        outcomes = set((await caller.history(user_id))[run["id"]].values())
        assert (outcomes == {"not_evaluated"}) == (user_id in named)


async def test_what_was_cancelled_can_be_taken_up_again_and_everybody_is_evaluated_once(night: Night) -> None:
    await night.add_mentors(200)
    gate = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: call.number > 3, rules.hold_until(gate)))
    function = await night.start_function(TWO_AT_A_TIME)
    firing = asyncio.create_task(night.fire(function))
    await night.engine.until_called(5)
    caller = await a_caller(night, TWO_AT_A_TIME)
    (run,) = await night.invocations()
    await caller.cancel(run["id"])
    gate.set()
    await firing

    retry = await caller.run({"retry_of": run["id"]})

    first, second = [await night.recorded_pairs(one["id"]) for one in (run, retry)]
    settled = {pair: outcome for pair, outcome in first.items() if outcome != "not_evaluated"}
    assert not settled.keys() & second.keys()
    assert settled | second == night.expected_pairs()
    assert max(night.engine.keys_seen.values()) == 1
    await night.check_truth(await caller.see(run["id"]))


async def test_a_run_that_has_ended_is_not_cancelled_and_keeps_its_note(night: Night) -> None:
    await night.add_mentors(3)
    caller = await a_caller(night)
    run = await caller.run({"note": "old"})

    answer = await caller.send("PUT", f"/{run['id']}", json={"status": "cancelled", "note": "new"})

    assert (answer.status_code, answer.json()["code"]) == (409, "already_ended")
    assert (await caller.see(run["id"]))["note"] == "old"


async def test_the_slot_of_a_deleted_run_fired_again_is_idle(night: Night) -> None:
    await night.add_mentors(20)
    function = await night.start_function()
    run = (await night.fire(function)).json()
    caller = Caller(night, function)
    calls = len(night.engine.calls)

    assert (await caller.delete(run["id"])).status_code == 204

    assert (await caller.send("GET", f"/{run['id']}")).status_code == 404
    assert (await caller.page())["items"] == []
    for body in ({}, {"scheduled_for": night.slot.isoformat()}):
        answer = await night.fire(function, body)
        assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
    assert len(night.engine.calls) == calls


async def test_a_manual_run_does_not_wait_behind_a_night(night: Night) -> None:
    mentors = await night.add_mentors(200)
    gate = asyncio.Event()
    of_the_night = "slot:"
    night.engine.rules.append(rules.only(lambda call: call.keys[0].startswith(of_the_night), rules.hold_until(gate)))
    function = await night.start_function(TWO_AT_A_TIME)
    firing = asyncio.create_task(night.fire(function))
    await night.engine.until_called(2)
    caller = await a_caller(night, TWO_AT_A_TIME)

    run = await caller.run({"user_ids": mentors[:30]})

    assert run["status"] == "succeeded"
    (its_night,) = (await caller.page(triggered_by="schedule"))["items"]
    assert (its_night["status"], its_night["counts"]["batches_done"]) == ("running", 0)
    gate.set()
    assert (await firing).json()["status"] == "succeeded"
