"""One slot, one invocation, one notification, however often and however simultaneously it is fired."""

from __future__ import annotations

import asyncio

from tests.integration.nightly.night import Night
from tests.scripted_engine import Rule, rules


async def test_two_simultaneous_fires_twenty_times_over_make_one_invocation_each(night: Night) -> None:
    await night.add_mentors(150)
    functions = [await night.start_function(), await night.start_function()]
    for _ in range(20):
        answers = await asyncio.gather(*(night.fire(function) for function in functions))

        (invocation,) = await night.invocations()
        assert sorted(answer.json()["deduplicated"] for answer in answers) == [False, True]
        assert {answer.json()["id"] for answer in answers} == {invocation["id"]}
        assert invocation["status"] == "succeeded"
        assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
        await night.check_truth(invocation)
        # The same slot once more: forget that it was ever fired.
        await night.execute(b"delete from public.scheduler_invocations")
        await night.project.make_slot_due()


async def test_fired_ten_times_at_once_it_still_runs_once(night: Night) -> None:
    await night.add_mentors(150)
    function = await night.start_function()

    answers = await asyncio.gather(*(night.fire(function) for _ in range(10)))

    assert sorted(answer.json()["deduplicated"] for answer in answers) == [False] + [True] * 9
    (invocation,) = await night.invocations()
    await night.check_truth(invocation)


async def test_a_deleted_slot_stays_spent(night: Night) -> None:
    await night.add_mentors(20)
    function = await night.start_function()
    await night.fire(function)
    calls = len(night.engine.calls)
    await night.execute(b"delete from public.scheduler_invocations")

    for body in ({}, {"scheduled_for": night.slot.isoformat()}):
        answer = await night.fire(function, body)
        assert answer.status_code == 200
        assert answer.json() == {"status": "idle"}

    assert await night.invocations() == []
    assert len(night.engine.calls) == calls


async def test_several_workers_share_one_run_without_doing_anything_twice(night: Night) -> None:
    await night.add_mentors(1500)
    functions = [await night.start_function({"EVALUATION_BATCH_SIZE": "20"}) for _ in range(3)]

    await asyncio.gather(*(night.fire(function) for function in functions))
    while (invocation := (await night.invocations())[0])["status"] == "running":
        await night.fire(functions[0])

    assert invocation["status"] == "succeeded"
    assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
    await night.check_truth(invocation)
    assert max(night.engine.keys_seen.values()) == 1


async def test_a_function_killed_in_mid_run_is_resumed_and_nobody_is_notified_twice(night: Night) -> None:
    await night.add_mentors(300)
    gate = asyncio.Event()
    hold = _hold_from_call(3, gate)
    night.engine.rules.append(hold)
    env = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_MAX_CONCURRENCY": "2", "ENGINE_USERS_PER_CALL": "20"}
    victim = await night.start_function(env, restart=False)
    firing = asyncio.create_task(night.fire(victim))
    await night.engine.until_called(4)

    await victim.kill()
    await asyncio.gather(firing, return_exceptions=True)
    gate.set()
    night.engine.rules.remove(hold)
    # What it held becomes visible when its time is up; here its time is up now.
    await night.execute(b"update pgmq.q_scenario_evaluation_batches set vt = now()")
    heir = await night.start_function(env)
    answer = await night.fire(heir)

    assert answer.status_code == 200
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["deduplicated"] is True
    assert await night.recorded_pairs(answer.json()["id"]) == night.expected_pairs()
    await night.check_truth(answer.json())


def _hold_from_call(number: int, gate: asyncio.Event) -> Rule:
    return rules.only(lambda call: call.number >= number, rules.hold_until(gate))
