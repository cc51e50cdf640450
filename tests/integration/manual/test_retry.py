"""Retrying what a run left: only that is evaluated again, under the same keys, and the engine acts once."""

from __future__ import annotations

from tests.integration.manual.caller import a_caller, asked_since, keys_since
from tests.integration.scheduled_runs.harness import Harness, Pair
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
    after = await caller.see(source["id"])
    assert after == before | {"retry": after["retry"]}
    assert before["retry"] == {"invocation_id": source["id"], "mentors": len({user_id for user_id, _ in failed}) + 1}
    assert after["retry"] == {"invocation_id": retry["id"], "mentors": len(failing_twice)}

    asked = len(harness.engine.calls)
    last = await caller.run({"retry_of": source["id"]})

    assert (last["status"], last["retry_of"]) == ("success", retry["id"])
    assert [(await caller.see(run["id"]))["retry"] for run in (source, retry, last)] == [None] * 3
    assert {user_id for user_id, _ in asked_since(harness, asked)} == set(failing_twice)
    outcomes = await harness.recorded_pairs(source["id"])
    for run in (retry, last):
        outcomes |= await harness.recorded_pairs(run["id"])
    assert {pair: outcome for pair, outcome in outcomes.items() if pair[0] != left} == expected
    assert acts.items() <= harness.engine.acts.items()
    triggered = {pair for pair, outcome in expected.items() if outcome == "triggered"}
    assert {act.pair for act in harness.engine.acts.values()} == triggered
    assert harness.engine.notified_twice == []


async def test_a_retry_skips_what_was_switched_off_since(harness: Harness) -> None:
    """For all or in one organization; where it is switched on again, another retry evaluates it."""
    mentors = await harness.add_mentors(60)
    failing, failing_twice, north = mentors[::3], mentors[::9], mentors[::12]
    await harness.execute(
        b"update public.peer_mentors set segments = array['org:north'] where user_id = any(%s)", [north]
    )
    harness.engine.rules = [rules.items_failed(some, times=1, retryable=False) for some in (failing, failing_twice)]
    function = await harness.start_function({"EVALUATION_BATCH_SIZE": "7"})
    source = await harness.run(function)
    failed = {pair for pair, outcome in (await harness.recorded_pairs(source["id"])).items() if outcome == "failed"}
    assert {user_id for user_id, _ in failed} == {*failing}
    caller, expected = await a_caller(harness, {"EVALUATION_BATCH_SIZE": "7"}), harness.expected_pairs()

    async def retried(run: str, pairs: set[Pair], off: set[Pair], failing_again: set[Pair]) -> None:
        """A retry that finds these pairs, skips those that are off, and evaluates the others."""
        calls = len(harness.engine.calls)
        retry = await caller.run({"retry_of": run})
        evaluated = {pair: "failed" if pair in failing_again else expected[pair] for pair in pairs - off}
        assert await harness.recorded_pairs(retry["id"]) == evaluated | dict.fromkeys(off, "skipped")
        assert sorted(asked_since(harness, calls)) == sorted(evaluated)
        counts, users = retry["counts"], {user_id for user_id, _ in pairs}
        assert (counts["mentors"], counts["evaluations"], counts["skipped"]) == (len(users), len(pairs), len(off))
        assert (counts["failed"], counts["not_evaluated"]) == (len(failing_again), 0)
        assert retry["status"] == ("partial" if failing_again else "success")
        reasons = await caller.page(f"/{retry['id']}/evaluations", outcome="skipped", limit=1000)
        assert {result["error_code"] for result in reasons["data"]} <= {"scenario_disabled"}

    await harness.execute(
        b"insert into public.scenario_evaluation_config (scenario_type, organization, enabled, segments, schedule)"
        b" values ('inactivity', null, false, null, null), ('milestone', 'north', false, null, null),"
        b" ('certification_expiry', null, null, array['elsewhere'], '0 0 1 1 *')"
    )
    off = {
        (user_id, kind)
        for user_id, kind in failed
        if kind == "inactivity" or (kind == "milestone" and user_id in north)
    }
    failing_again = {(user_id, kind) for user_id, kind in failed - off if user_id in failing_twice}
    assert {kind for _, kind in failing_again} == {"milestone", "certification_expiry"}
    await retried(source["id"], failed, off, failing_again)

    harness.engine.rules.clear()
    await harness.execute(
        b"update public.scenario_evaluation_config"
        b" set enabled = scenario_type <> 'certification_expiry' where scenario_type <> 'milestone'"
    )
    left = off | failing_again
    off = {pair for pair in left if pair[1] == "certification_expiry" or (pair[1] == "milestone" and pair[0] in north)}
    await retried(source["id"], left, off, set())

    await harness.execute(b"delete from public.scenario_evaluation_config where true")
    await retried(source["id"], off, set(), set())
    assert (await caller.ask({"retry_of": source["id"]})).json()["code"] == "nothing_to_retry"
    assert {key.split(":", 1)[0] for key in harness.engine.keys_seen} == {"slot"}
    assert harness.engine.notified_twice == []


async def test_mentors_a_run_did_not_read_are_retried_as_it_froze(harness: Harness) -> None:
    """Also by a retry of a retry that read none of them either."""
    mentors = await harness.add_mentors(20)
    caller = await a_caller(harness)
    source = (await caller.ask(prefer="respond-async")).json()
    assert (await caller.cancel(source["id"])).json()["counts"]["mentors"] == 0
    await harness.execute(
        b"insert into public.scenario_evaluation_config (scenario_type, enabled, segments) values"
        b" ('inactivity', false, null), ('milestone', null, array['elsewhere'])"
    )

    unread = (await caller.ask({"retry_of": source["id"]}, prefer="respond-async")).json()
    assert (await caller.cancel(unread["id"])).json()["counts"]["mentors"] == 0
    retry = await caller.run({"retry_of": unread["id"]})

    expected = {
        pair: "skipped" if pair[1] == "inactivity" else outcome for pair, outcome in harness.expected_pairs().items()
    }
    assert await harness.recorded_pairs(retry["id"]) == expected
    assert (retry["status"], retry["counts"]["mentors"], retry["counts"]["skipped"]) == ("success", len(mentors), 18)
