"""Runs about chosen mentors, and dry runs."""

from __future__ import annotations

from uuid import uuid4

from tests.integration.manual.caller import a_caller, asked_since, let_no_slot_be_due
from tests.integration.nightly.night import ESTABLISHED_TYPES, Night


async def test_only_the_chosen_are_evaluated_and_who_is_unknown_or_inactive_is_skipped(night: Night) -> None:
    *chosen, _, _, paused = (await night.add_mentors(9))[:6]
    unknown = str(uuid4())
    await night.execute(b"update public.peer_mentors set status = 'paused' where user_id = %s", [paused])
    caller = await a_caller(night)

    run = await caller.run({"user_ids": [unknown, paused, *chosen, chosen[0]]})

    expected = {pair: outcome for pair, outcome in night.expected_pairs().items() if pair[0] in chosen}
    pairs = await night.recorded_pairs(run["id"])
    assert {pair: outcome for pair, outcome in pairs.items() if pair[0] in chosen} == expected
    assert {user_id for user_id, _ in pairs} == {unknown, paused, *chosen}
    assert set(asked_since(night, 0)) == set(expected)
    assert (run["status"], run["counts"]["mentors"]) == ("succeeded", 5)
    for user_id in (unknown, paused):
        outcomes = (await caller.history(user_id))[run["id"]]
        assert set(outcomes.values()) == {"skipped"}
    reasons = await night.rows(
        b"select distinct error_code from public.scheduler_evaluations where outcome = 'skipped'"
    )
    assert reasons == [("mentor_not_active",)]


async def test_ten_thousand_can_be_chosen_at_once_in_any_order(night: Night) -> None:
    mentors = await night.add_mentors(40)
    chosen = mentors[::2]
    nobody = [str(uuid4()) for _ in range(10_000 - len(chosen))]
    caller = await a_caller(night, {"TIME_BUDGET_SECONDS": "60", "BATCH_VISIBILITY_SECONDS": "120"})

    run = await caller.run({"user_ids": [*nobody, *chosen], "scenario_types": ["milestone_reached"]})

    assert (run["status"], run["counts"]["mentors"], run["counts"]["skipped"]) == ("succeeded", 10_000, len(nobody))
    assert sorted(asked_since(night, 0)) == sorted((user_id, "milestone_reached") for user_id in chosen)
    asked = (await caller.see(run["id"]))["request"]
    assert (asked["users"], asked["sample_user_ids"]) == (10_000, sorted([*nobody, *chosen])[:10])


async def test_only_the_chosen_scenario_types_are_evaluated(night: Night) -> None:
    mentors = await night.add_mentors(20)
    caller = await a_caller(night)

    run = await caller.run({"scenario_types": ["inactivity_30_days"]})

    # every tenth is onboarding: that type does not apply to her
    established = [user_id for number, user_id in enumerate(mentors) if number % 10 != 9]
    assert sorted(asked_since(night, 0)) == sorted((user_id, "inactivity_30_days") for user_id in established)
    assert (run["counts"]["mentors"], run["counts"]["mentors_skipped"], run["counts"]["evaluations"]) == (20, 2, 18)


async def test_a_dry_run_tells_what_would_happen_and_leaves_nothing_at_the_engine(night: Night) -> None:
    await night.add_mentors(40)
    caller = await a_caller(night)

    dry = await caller.run({"dry_run": True})

    assert dry["dry_run"]
    assert await night.recorded_pairs(dry["id"]) == night.expected_pairs()
    assert all(call.dry_run for call in night.engine.calls)
    assert night.engine.acts == {}
    assert all(key.startswith(f"dry:{dry['id']}:") for key in night.engine.keys_seen)

    real = await caller.run()
    await night.check_truth(real)
    assert dry["counts"] == real["counts"]
    assert len(night.engine.acts) == real["counts"]["triggered"] > 0


async def test_a_run_of_nobody_who_is_active_asks_the_engine_nothing(night: Night) -> None:
    caller = await a_caller(night)
    unknown = str(uuid4())

    run = await caller.run({"user_ids": [unknown], "scenario_types": [ESTABLISHED_TYPES[0]]})

    assert (run["counts"]["skipped"], run["counts"]["evaluations"]) == (1, 1)
    assert night.engine.calls == []


async def test_a_run_that_nobody_waits_for_is_finished_by_the_slice_that_the_database_asks_for(night: Night) -> None:
    await night.add_mentors(30)
    function = await night.start_function()
    caller = await a_caller(night)
    await let_no_slot_be_due(night)
    await night.project.write_vault_secrets(function.url)
    await night.project.start_net()

    answer = await caller.ask({"note": "no hurry"}, prefer="wait=0, respond-async")

    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["location"].endswith(answer.json()["id"])
    assert answer.json()["status"] == "pending"
    ended = await caller.until_ended(answer.json()["id"])
    assert (ended["status"], ended["note"]) == ("succeeded", "no hurry")
    await night.check_truth(ended)


async def test_where_no_slice_could_be_asked_for_the_next_tick_finishes_it(night: Night) -> None:
    await night.add_mentors(30)
    function = await night.start_function()
    caller = await a_caller(night)
    await let_no_slot_be_due(night)
    run = (await caller.ask(prefer="respond-async")).json()

    await night.project.write_vault_secrets(function.url)
    await night.project.start_net()
    await night.project.cron_driver().run_all()

    ended = await caller.until_ended(run["id"])
    assert ended["status"] == "succeeded"
    await night.check_truth(ended)
