"""Retrying what a run left undone: nobody else is asked about, and nobody is notified twice."""

from __future__ import annotations

from functions.peer_mentors import PAGE_SIZE
from tests.integration.manual.caller import a_caller, asked_since, keys_since
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules


async def test_only_what_failed_is_evaluated_again_under_the_same_keys_and_the_source_stays_as_it_is(
    night: Night,
) -> None:
    failing = (await night.add_mentors(60))[::7]
    night.engine.rules.append(rules.items_failed(failing, times=1, retryable=False))
    function = await night.start_function({"EVALUATION_BATCH_SIZE": "20"})
    source = (await night.fire(function)).json()
    caller = await a_caller(night)
    before = await caller.see(source["id"])
    assert source["status"] == "partial"
    failed = {pair for pair in night.expected_pairs() if pair[0] in failing}
    asked, acted = len(night.engine.calls), set(night.engine.acts)
    assert not {pair for pair in failed if pair in {act.pair for act in night.engine.acts.values()}}

    retry = await caller.run({"retry_of": source["id"]})

    assert (retry["status"], retry["triggered_by"], retry["retry_of"]) == ("succeeded", "retry", source["id"])
    assert sorted(asked_since(night, asked)) == sorted(failed)
    slot = f"slot:{night.slot:%Y-%m-%dT%H:%MZ}"
    assert keys_since(night, asked) == {f"{slot}:{user_id}:{scenario_type}" for user_id, scenario_type in failed}
    assert await night.recorded_pairs(retry["id"]) == {pair: night.expected_pairs()[pair] for pair in failed}
    assert acted <= set(night.engine.acts)
    assert night.engine.notified_twice == []
    assert await caller.see(source["id"]) == before
    await night.check_truth(before)


async def test_what_the_engine_did_without_saying_so_it_does_not_do_again(night: Night) -> None:
    silent = (await night.add_mentors(30))[::3]
    rule = rules.missing(silent)
    night.engine.rules.append(rule)
    function = await night.start_function({"ENGINE_MAX_ATTEMPTS": "2"})
    source = (await night.fire(function)).json()
    assert {cause["code"] for cause in await night.failures(source)} == {"engine_missing_result"}
    acts = dict(night.engine.acts)
    night.engine.rules.remove(rule)
    caller = await a_caller(night)

    retry = await caller.run({"retry_of": source["id"]})

    expected = {pair: outcome for pair, outcome in night.expected_pairs().items() if pair[0] in silent}
    assert await night.recorded_pairs(retry["id"]) == expected
    assert retry["counts"]["triggered"] > 0
    assert night.engine.acts == acts
    again = await caller.ask({"retry_of": retry["id"]})
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_retry")


async def test_a_chain_of_retries_ends_with_everybody_evaluated_once(night: Night) -> None:
    mentors = await night.add_mentors(45)
    night.engine.rules.append(rules.items_failed(mentors[::3], times=1, retryable=False))
    night.engine.rules.append(rules.items_failed(mentors[::6], times=2, retryable=False))
    function = await night.start_function({"EVALUATION_BATCH_SIZE": "10"})
    caller = await a_caller(night)
    run = (await night.fire(function)).json()
    outcomes = await night.recorded_pairs(run["id"])

    while run["status"] != "succeeded":
        run = await caller.run({"retry_of": run["id"]})
        outcomes |= await night.recorded_pairs(run["id"])

    assert outcomes == night.expected_pairs()
    assert night.engine.notified_twice == []
    assert len({key.split(":20")[0] for key in night.engine.keys_seen}) == 1


async def test_who_is_not_active_any_more_is_skipped_by_the_retry(night: Night) -> None:
    failing = (await night.add_mentors(12))[:4]
    night.engine.rules.append(rules.items_failed(failing, times=1, retryable=False))
    function = await night.start_function()
    source = (await night.fire(function)).json()
    await night.execute(b"update public.peer_mentors set status = 'left' where user_id = %s", [failing[0]])
    caller = await a_caller(night)
    asked = len(night.engine.calls)

    retry = await caller.run({"retry_of": source["id"]})

    assert {user_id for user_id, _ in asked_since(night, asked)} == set(failing[1:])
    assert retry["counts"]["skipped"] == 2
    assert set((await caller.history(failing[0]))[retry["id"]].values()) == {"skipped"}


async def test_the_retry_of_a_run_cancelled_in_the_middle_of_its_enumeration_evaluates_everybody_else(
    night: Night,
) -> None:
    await night.add_mentors(PAGE_SIZE + 250)
    # the second page never gets in
    await night.execute(
        b"create function public.refuse() returns trigger language plpgsql as"
        b" 'begin raise exception ''no more''; end';"
        b"create trigger refuse before insert on public.scheduler_invocation_batches for each row"
        b" when (new.batch_no > %d) execute function public.refuse()" % (PAGE_SIZE // 50)
    )
    function = await night.start_function({"EVALUATION_BATCH_SIZE": "50"})
    assert (await night.fire(function)).status_code >= 500
    await night.execute(b"drop trigger refuse on public.scheduler_invocation_batches")
    caller = await a_caller(night, {"EVALUATION_BATCH_SIZE": "50"})
    (source,) = await night.invocations()
    assert (await caller.cancel(source["id"])).status_code == 200
    source = await caller.see(source["id"])
    assert (source["status"], source["enumeration_done"], source["counts"]["mentors"]) == (
        "cancelled",
        False,
        PAGE_SIZE,
    )
    first = await night.recorded_pairs(source["id"])
    settled = {pair: outcome for pair, outcome in first.items() if outcome != "not_evaluated"}
    asked = len(night.engine.calls)

    retry = await caller.run({"retry_of": source["id"]})
    if not retry["finished_at"]:
        await night.fire(function)
    retry = await caller.see(retry["id"])

    second = await night.recorded_pairs(retry["id"])
    assert retry["status"] == "succeeded"
    assert not settled.keys() & second.keys()
    assert settled | second == night.expected_pairs()
    assert sorted(asked_since(night, asked)) == sorted(second)
    assert night.engine.notified_twice == []
    assert {act.pair for act in night.engine.acts.values()} == {
        pair for pair, outcome in night.expected_pairs().items() if outcome == "triggered"
    }
