"""Runs about chosen mentors and scenario types, dry runs, batches, and runs that the caller does not wait for."""

from __future__ import annotations

from uuid import uuid4

from tests.integration.manual.caller import a_caller, asked_since, let_no_slot_be_due
from tests.integration.scheduled_runs.harness import Harness, eventually

NOTE = "".join(map(chr, range(1, 32))) + "\x7f\u2028\ufffe\U0010ffff \N{RIGHT-TO-LEFT OVERRIDE}'\"`\\ \\u0041 %s "


async def test_only_chosen_mentors_and_types_are_evaluated(harness: Harness) -> None:
    mentors = await harness.add_mentors(20)
    *chosen, paused = mentors[:6]
    unknown = str(uuid4())
    await harness.execute(b"update public.peer_mentors set status = 'paused' where user_id = %s", [paused])
    caller = await a_caller(harness)

    run = await caller.run({"user_ids": [unknown, paused, *chosen, chosen[0]]})

    expected = {pair: outcome for pair, outcome in harness.expected_pairs().items() if pair[0] in chosen}
    pairs = await harness.recorded_pairs(run["id"])
    assert {pair: outcome for pair, outcome in pairs.items() if pair[0] in chosen} == expected
    assert {user_id for user_id, _ in pairs} == {unknown, paused, *chosen}
    assert sorted(asked_since(harness, 0)) == sorted(expected)
    assert (run["status"], run["counts"]["mentors"]) == ("success", 7)
    for user_id in (unknown, paused):
        assert set((await caller.history(user_id))[run["id"]].values()) == {"skipped"}
    ((reason,),) = await harness.rows(
        b"select distinct error_code from public.scheduler_evaluations where outcome = 'skipped'"
    )
    assert reason == "mentor_not_active"

    # Every tenth is onboarding: this type does not apply then.
    calls = len(harness.engine.calls)
    run = await caller.run({"scenario_types": ["inactivity"]})
    established = [user_id for number, user_id in enumerate(mentors) if number % 10 != 9 and user_id != paused]
    assert sorted(asked_since(harness, calls)) == sorted((user_id, "inactivity") for user_id in established)
    assert (run["counts"]["mentors"], run["counts"]["mentors_skipped"], run["counts"]["evaluations"]) == (19, 2, 17)


async def test_a_dry_run_leaves_nothing_at_the_engine(harness: Harness) -> None:
    await harness.add_mentors(40)
    caller = await a_caller(harness)

    dry = await caller.run({"dry_run": True})

    assert dry["dry_run"]
    assert await harness.recorded_pairs(dry["id"]) == harness.expected_pairs()
    assert all(call.dry_run for call in harness.engine.calls)
    assert harness.engine.acts == {}
    assert all(key.startswith(f"dry:{dry['id']}:") for key in harness.engine.keys_seen)
    real = await caller.run()
    await harness.check_truth(real)
    assert dry["counts"] == real["counts"]
    assert len(harness.engine.acts) == real["counts"]["triggered"] > 0


async def test_a_batch_acts_once_per_key_and_is_no_run(harness: Harness) -> None:
    mentors = sorted(await harness.add_mentors(25))
    caller = await a_caller(harness)
    first = await caller.page("/active-peer-mentors", limit=20)
    last = await caller.page("/active-peer-mentors", limit=20, cursor=first["pagination"]["next_cursor"])
    shown = {item["user_id"]: item["scenario_types"] for item in first["data"] + last["data"]}
    assert (list(shown), last["pagination"]["next_cursor"], last["user_id_missing"]) == (mentors, None, 0)
    assert {(user_id, kind) for user_id, kinds in shown.items() for kind in kinds} == harness.expected_pairs().keys()

    batch, key = {"user_ids": [*mentors, str(uuid4())]}, {"Idempotency-Key": "once"}
    notifications = []
    for headers, dry_run in ((None, True), (key, False), (key, False)):
        answer = await caller.send("POST", "/evaluation-batch", json=batch | {"dry_run": dry_run}, headers=headers)
        results = {(result["user_id"], result["scenario_type"]): result for result in answer.json()["results"]}
        known = {pair: result["outcome"] for pair, result in results.items() if pair[0] in mentors}
        assert known == harness.expected_pairs()
        assert {results[pair]["error_code"] for pair in results.keys() - known.keys()} == {"mentor_not_active"}
        notifications.append({pair: result["notification_id"] for pair, result in results.items()})
        assert dry_run == (harness.engine.acts == {})
    triggered = [pair for pair, outcome in harness.expected_pairs().items() if outcome == "triggered"]
    assert sorted(act.pair for act in harness.engine.acts.values()) == sorted(triggered)
    assert notifications[1] == notifications[2]
    assert await harness.invocations() == []


async def test_a_run_without_a_waiting_caller_ends_by_itself(harness: Harness) -> None:
    await harness.add_mentors(30)
    caller = await a_caller(harness)
    await let_no_slot_be_due(harness)
    await harness.project.write_vault_secrets((await harness.start_function()).url)
    await harness.project.start_net()

    answer = await caller.ask({"note": NOTE}, prefer="wait=0, respond-async")

    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["location"].endswith(answer.json()["id"])
    ended = await eventually(harness.ended)
    assert ended is not None
    assert (ended["status"], ended["note"]) == ("success", NOTE)
    await harness.check_truth(ended)
