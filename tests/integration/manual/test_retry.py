"""Retrying what a run left: only that is asked about again, under the same keys, and the engine acts once."""

from __future__ import annotations

from tests.integration.manual.caller import a_caller, asked_since, keys_since
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules


async def test_a_retry_evaluates_only_failures_under_the_same_keys(harness: Harness) -> None:
    mentors = await harness.add_mentors(60)
    left, *failing = mentors[::7]
    failing_twice, silent = failing[::3], mentors[1::7]
    missing = rules.missing(silent)
    harness.engine.rules = [
        rules.items_failed([left, *failing], times=1, retryable=False),
        rules.items_failed(failing_twice, times=1, retryable=False),
        missing,
    ]
    function = await harness.start_function({"EVALUATION_BATCH_SIZE": "20", "ENGINE_MAX_ATTEMPTS": "2"})
    source = await harness.run(function)
    caller = await a_caller(harness)
    before = await caller.see(source["id"])
    assert before["status"] == "partial"
    assert {cause["code"] for cause in before["failures"]} == {"scripted_failure", "engine_missing_result"}
    expected = {pair: outcome for pair, outcome in harness.expected_pairs().items() if pair[0] != left}
    failed = {pair for pair in expected if pair[0] in (*failing, *silent)}
    # The engine acted on those whom it left out of its answers, and on none that it answered as failed.
    acts = dict(harness.engine.acts)
    assert {user_id for user_id, _ in failed & {act.pair for act in acts.values()}} <= set(silent)
    assert failed & {act.pair for act in acts.values()}
    asked = len(harness.engine.calls)
    harness.engine.rules.remove(missing)
    await harness.execute(b"update public.peer_mentors set status = 'left' where user_id = %s", [left])

    retry = await caller.run({"retry_of": source["id"]})

    assert (retry["status"], retry["trigger"], retry["retry_of"]) == ("partial", "retry", source["id"])
    assert set(asked_since(harness, asked)) == failed
    slot = f"slot:{harness.slot:%Y-%m-%dT%H:%MZ}"
    assert keys_since(harness, asked) == {f"{slot}:{user_id}:{scenario_type}" for user_id, scenario_type in failed}
    assert set((await caller.history(left))[retry["id"]].values()) == {"skipped"}
    assert await caller.see(source["id"]) == before

    asked = len(harness.engine.calls)
    last = await caller.run({"retry_of": retry["id"]})

    assert last["status"] == "success"
    assert {user_id for user_id, _ in asked_since(harness, asked)} == set(failing_twice)
    outcomes = await harness.recorded_pairs(source["id"])
    for run in (retry, last):
        outcomes |= await harness.recorded_pairs(run["id"])
    assert {pair: outcome for pair, outcome in outcomes.items() if pair[0] != left} == expected
    assert acts.items() <= harness.engine.acts.items()
    triggered = {pair for pair, outcome in expected.items() if outcome == "triggered"}
    assert {act.pair for act in harness.engine.acts.values()} == triggered
    assert harness.engine.notified_twice == []
