"""A worker so slow that its batch is given to another: the first record stands, and the other one changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_chain, check_promises
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import Rule, rules

# One call at a time, so that the first call is one batch's and the slow worker is at it alone.
ONE_AT_A_TIME = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "1",
    "ENGINE_TIMEOUT_SECONDS": "20",
}
BATCHES = 4
# Batches that a worker with one call takes: one for the call, and two that wait for their record.
IN_HAND = 3


def hold_the_first(gate: asyncio.Event) -> Rule:
    """The slow worker's first call: evaluated once the gate is open."""
    return rules.only(rules.calls(1), rules.hold_until(gate))


def hold_the_others(gate: asyncio.Event) -> Rule:
    return rules.only(lambda call: call.number > 1, rules.hold_until(gate))


def refuse_its_users(number: int) -> Rule:
    """What the engine says of everybody in one call: no, and not to be asked again."""

    def refused(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        error = {"code": "scripted_refusal", "message": "the script says so", "retryable": False}
        return [
            {"user_id": r["user_id"], "scenario_type": r["scenario_type"], "outcome": "failed", "error": error}
            for r in results
        ]

    return rules.only(rules.calls(number), rules.alter_results(refused))


async def slow_worker(night: Night) -> tuple[FunctionProcess, asyncio.Task[Any]]:
    """A function that is in the middle of its first call, and whose batches are visible again to others."""
    slow = await night.start_function(ONE_AT_A_TIME)
    firing = asyncio.create_task(night.fire(slow))
    await night.engine.until_called(1)
    # Who reads ahead has some more in hand; the enumeration is to be over for all.
    await eventually(lambda: all_is_read(night))
    await Clockwork(night).let_time_pass()
    return slow, firing


@pytest.mark.parametrize("differing", [False, True], ids=["same answer", "another answer"])
async def test_the_slow_ones_answer_comes_after_the_others_record(night: Night, differing: bool) -> None:
    """With another answer: the slow one's call is refused by the engine, the other's was not."""
    await night.add_mentors(10 * BATCHES)
    gate = asyncio.Event()
    night.engine.rules.append(hold_the_first(gate))
    if differing:
        night.engine.rules.append(refuse_its_users(1))
    fast = await night.start_function(ONE_AT_A_TIME)
    slow, firing = await slow_worker(night)

    invocation = (await night.fire(fast)).json()
    assert invocation["status"] == "succeeded"
    before, rows, acts = await night.describe(invocation["id"]), await rows_of(night), dict(night.engine.acts)
    gate.set()
    answer = await firing

    assert recorded(night, fast) == {"done": BATCHES}
    late = recorded(night, slow)
    assert late.keys() == {"already_done"}, "nobody was too late"
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert answer.json()["counts"] == invocation["counts"]
    assert await night.describe(invocation["id"]) == before
    assert await rows_of(night) == rows
    assert night.engine.acts == acts, "somebody was notified again"
    assert max(night.engine.keys_seen.values()) == 2
    assert await check_promises(night, invocation) == night.expected_pairs()


@pytest.mark.parametrize("differing", [False, True], ids=["same answer", "another answer"])
async def test_the_slow_ones_answer_comes_while_the_other_is_still_at_it(
    night: Night, clockwork: Clockwork, differing: bool
) -> None:
    """With another answer: the slow one's users failed, that stands, and a retry evaluates them."""
    await night.add_mentors(10 * BATCHES)
    gate, others = asyncio.Event(), asyncio.Event()
    night.engine.rules += [hold_the_first(gate), hold_the_others(others)]
    if differing:
        night.engine.rules.append(refuse_its_users(1))
    fast = await night.start_function(ONE_AT_A_TIME)
    slow, firing = await slow_worker(night)
    slow_users = set(night.engine.calls[0].user_ids)

    helping = asyncio.create_task(night.fire(fast))
    await night.engine.until(lambda engine: asked_twice(engine.calls, slow_users))
    gate.set()
    await eventually(lambda: first_is_recorded(night))
    others.set()
    await asyncio.gather(firing, helping)
    invocation = await clockwork.until_ended() if not (await night.ended()) else (await night.invocations())[0]

    by_slow, by_fast = recorded(night, slow), recorded(night, fast)
    assert by_slow["done"] >= 1
    assert by_fast["already_done"] >= 1
    assert by_slow["done"] + by_fast.get("done", 0) == BATCHES
    pairs = await check_promises(night, invocation)
    failed = {pair for pair, outcome in pairs.items() if outcome == "failed"}
    assert {user_id for user_id, _ in failed} == (slow_users if differing else set())
    assert invocation["status"] == ("partial" if differing else "succeeded")
    if differing:
        # The engine acted for the second worker, whose record came too late: a retry finds it out, and acts on nobody.
        acts = dict(night.engine.acts)
        retry = await Caller(night, fast).run({"retry_of": invocation["id"]})
        assert retry["status"] == "succeeded"
        assert await check_chain(night, [invocation, retry]) == night.expected_pairs()
        assert night.engine.acts == acts


@pytest.mark.parametrize("is_recorded", [False, True], ids=["in hand", "recorded"])
async def test_a_worker_that_was_frozen_takes_nothing_from_the_one_that_has_its_batches_now(
    night: Night, is_recorded: bool
) -> None:
    """Without CPU for longer than its time budget, as an instance may be: it wakes up and gives back what it held.

    "in hand": the other worker is still at these batches. They must stay hidden, or a third would take them as well.
    """
    await night.add_mentors(10 * BATCHES)
    gate = asyncio.Event()
    if is_recorded:
        night.engine.rules.append(hold_the_first(gate))
    else:
        night.engine.rules.append(rules.hold_until(gate))
    fast = await night.start_function(ONE_AT_A_TIME)
    short = {**ONE_AT_A_TIME, "TIME_BUDGET_SECONDS": "3", "ENGINE_TIMEOUT_SECONDS": "2.5"}
    slow = await night.start_function(short)
    firing = asyncio.create_task(night.fire(slow))
    await night.engine.until_called(1)
    # All that it takes: a claim that is still under way would hide its batches after the time has passed.
    await eventually(lambda: are_claimed(night, IN_HAND))

    with slow.frozen():
        await Clockwork(night).let_time_pass()
        helping = asyncio.create_task(night.fire(fast))
        if is_recorded:
            await helping
            # What it has been waiting for is there when it wakes up, and so is the end of its time.
            gate.set()
        else:
            await night.engine.until_called(2)
            await eventually(lambda: some_were_read_again(night))
        hidden = await messages(night)
    answer = await firing
    after = await messages(night)

    given_back = [line for line in night.log_lines(slow) if line["event"] == "batch_given_back"]
    if is_recorded:
        assert answer.json()["status"] == "succeeded"
        assert recorded(night, fast) == {"done": BATCHES}
        assert after == hidden == {}
    else:
        assert answer.json()["status"] == "running"
        assert given_back, "it held nothing any more"
        read_twice = {number: message for number, message in hidden.items() if message["reads"] > 1}
        assert {line["batch_no"] for line in given_back} & read_twice.keys(), (
            "nothing of what it gave back was another's"
        )
        assert {number: after[number] for number in read_twice} == read_twice, "another's batch became visible"
        assert not night.engine.acts
    gate.set()
    await helping
    invocation = await night.ended()
    assert invocation is not None
    assert invocation["status"] == "succeeded"
    assert await check_promises(night, invocation) == night.expected_pairs()


async def test_an_answer_for_a_run_that_was_deleted_and_pruned_brings_nothing_back(
    night: Night, clockwork: Clockwork
) -> None:
    """Cancelled, deleted, its rows gone; and then the slow one has its answer."""
    await night.add_mentors(10 * BATCHES)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    slow = await night.start_function(ONE_AT_A_TIME)
    firing = asyncio.create_task(night.fire(slow))
    await night.engine.until_called(1)
    await eventually(lambda: all_is_read(night))
    (run,) = await night.invocations()
    caller = Caller(night, slow)
    assert (await caller.cancel(run["id"])).status_code == 200
    assert (await caller.delete(run["id"])).status_code == 204
    await night.execute(b"call scheduler.prune()")
    assert await night.invocations() == []

    gate.set()
    answer = await firing

    assert answer.status_code == 200
    assert recorded(night, slow).keys() == {"gone"}
    for table in (b"scheduler_invocations", b"scheduler_invocation_batches", b"scheduler_evaluations"):
        assert await night.rows(b"select from public." + table) == []
    assert await night.queue_lengths() == [0, 0, 0]
    assert night.engine.notified_twice == []


# ---- looking


def recorded(night: Night, function: FunctionProcess) -> dict[str, int]:
    """What became of the batches that a function tried to record: how many by the answer it got."""
    states: dict[str, int] = {}
    for line in night.log_lines(function):
        if line["event"] == "batch_recorded":
            states[line["state"]] = states.get(line["state"], 0) + 1
    return states


def asked_twice(calls: list[Any], users: set[str]) -> bool:
    return sum(users == set(record.user_ids) for record in calls) > 1


async def rows_of(night: Night) -> list[tuple[Any, ...]]:
    """Everything that is recorded, as it stands."""
    return [
        *await night.rows(b"select to_jsonb(e) from public.scheduler_evaluations as e order by user_id, scenario_type"),
        *await night.rows(b"select to_jsonb(b) from public.scheduler_invocation_batches as b order by batch_no"),
    ]


async def messages(night: Night) -> dict[int, dict[str, Any]]:
    """The messages of the night's queue by batch: until when each is hidden, and how often it was read."""
    return {
        batch_no: {"visible_at": visible_at, "reads": reads}
        for batch_no, visible_at, reads in await night.rows(
            b"select (message ->> 'batch_no')::integer, vt, read_ct from pgmq.q_scenario_evaluation_batches"
        )
    }


async def all_is_read(night: Night) -> bool:
    """Whether everybody is queued."""
    return bool(await night.rows(b"select from public.scheduler_invocations where enumeration_done"))


async def are_claimed(night: Night, number: int) -> bool:
    """Whether so many batches have been handed out."""
    return len([message for message in (await messages(night)).values() if message["reads"] > 0]) >= number


async def some_were_read_again(night: Night) -> bool:
    return any(message["reads"] > 1 for message in (await messages(night)).values())


async def first_is_recorded(night: Night) -> bool:
    return bool(await night.rows(b"select from public.scheduler_invocation_batches where state = 'done'"))
