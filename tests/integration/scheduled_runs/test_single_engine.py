"""A run with an engine of the protocol `single`, that promises idempotency and dry runs, or neither."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.manual.caller import Caller, asked_since
from tests.integration.scheduled_runs.harness import Harness, Pair
from tests.scripted_engine import rules
from tests.scripted_engine.server import innocent_outcome

# A slice has no time for all users, whose calls take a tenth of a second.
SINGLE = {
    "ENGINE_PROTOCOL": "single",
    "TIME_BUDGET_SECONDS": "4",
    "ENGINE_TIMEOUT_SECONDS": "1",
    "ENGINE_MAX_CONCURRENCY": "4",
    "EVALUATION_BATCH_SIZE": "20",
    "MAX_WORKERS": "1",
}
UNKNOWN = "outcome_unknown"


def triggered_or_not(user_id: str, scenario_type: str) -> str:
    return "triggered" if innocent_outcome(user_id, scenario_type) == "triggered" else "not_triggered"


async def run_to_its_end(harness: Harness, caller: Caller) -> dict[str, Any]:
    """Slice after slice; more than one."""
    slices = 0
    async with asyncio.timeout(120):
        while (answer := await harness.fire(caller.function)).status_code == 202:
            slices += 1
    assert slices > 0
    return await caller.see(answer.json()["id"])


async def failure_codes(harness: Harness, invocation_id: str) -> dict[Pair, str]:
    rows = await harness.rows(
        b"select user_id::text, scenario_type, error_code from public.scheduler_evaluations"
        b" where invocation_id = %s and outcome = 'failed'",
        [invocation_id],
    )
    return {(user_id, scenario_type): code for user_id, scenario_type, code in rows}


async def test_no_pair_is_sent_twice_without_idempotency(harness: Harness) -> None:
    mentors = await harness.add_mentors(120)
    engine = harness.engine
    engine.expected_outcome = triggered_or_not
    silent, lost, broken, refused, busy = mentors[7::60], mentors[13::40], mentors[19::40], mentors[23::40], mentors[31]
    engine.rules = [
        rules.refuse_calls_with(refused, status=422),
        rules.only(rules.naming([busy]), rules.only(rules.first(1), rules.respond(503))),
        rules.only(rules.naming(lost), rules.act_then(rules.reset())),
        rules.only(rules.naming(broken), rules.act_then(rules.respond(500))),
        rules.only(rules.naming(silent), rules.slow(2)),
        rules.slow(0.1),
    ]
    caller = Caller(harness, await harness.start_function(SINGLE))

    run = await run_to_its_end(harness, caller)

    assert run["status"] == "partial"
    assert (run["config"]["engine_protocol"], run["config"]["engine_supports"]) == ("single", [])
    await harness.check_truth(run)
    codes, seen = await failure_codes(harness, run["id"]), engine.pairs_seen
    assert {pair: calls for pair, calls in seen.items() if calls > 1}.keys() <= {(busy, name) for _, name in seen}
    assert {pair[0] for pair, code in codes.items() if code == "engine_http_422"} == set(refused)
    unknown = {pair for pair, code in codes.items() if code == UNKNOWN}
    assert {*silent, *lost, *broken} <= {user_id for user_id, _ in unknown}
    for pair, outcome in (await harness.recorded_pairs(run["id"])).items():
        if outcome != "failed":
            assert (outcome, seen[pair]) == (triggered_or_not(*pair), 2 if pair[0] == busy and seen[pair] > 1 else 1)
        elif codes[pair] == UNKNOWN:
            assert seen[pair] == 1
        elif codes[pair] == "time_budget_exceeded":
            assert seen[pair] == 0
        else:
            assert codes[pair] == "engine_http_422"

    engine.rules = []
    asked = len(engine.calls)
    retry = await caller.run({"retry_of": run["id"]})
    assert set(asked_since(harness, asked)) == codes.keys() - unknown
    assert (retry["status"], retry["counts"]["skipped"]) == ("success", len(unknown))
    assert (await caller.ask({"retry_of": run["id"]})).json()["code"] == "nothing_to_retry"
    asked = len(engine.calls)
    second = await caller.run({"retry_of": run["id"], "include_unknown": True})
    assert set(asked_since(harness, asked)) == unknown
    assert second["status"] == "success"
    refusal = await caller.ask({"dry_run": True})
    assert (refusal.status_code, refusal.json()["code"]) == (422, "dry_run_not_supported")
    assert engine.violations == []


async def test_with_idempotency_only_poison_users_fail(harness: Harness) -> None:
    mentors = await harness.add_mentors(60)
    engine = harness.engine
    engine.expected_outcome = triggered_or_not
    poison, lost = mentors[17], mentors[13::20]
    engine.rules = [
        rules.only(rules.naming([poison]), rules.respond(500)),
        rules.only(rules.naming(lost), rules.only(rules.first(4), rules.act_then(rules.reset()))),
        rules.slow(0.2),
    ]
    caller = Caller(
        harness,
        await harness.start_function(SINGLE | {"ENGINE_SUPPORTS": "dry_run,idempotency", "ENGINE_MAX_ATTEMPTS": "3"}),
    )

    run = await run_to_its_end(harness, caller)

    await harness.check_truth(run)
    assert await harness.recorded_pairs(run["id"]) == {
        pair: "failed" if pair[0] == poison else outcome for pair, outcome in harness.expected_pairs().items()
    }
    assert {*(await failure_codes(harness, run["id"])).values()} == {"engine_http_500"}
    assert max(engine.pairs_seen[pair] for pair in engine.pairs_seen if pair[0] in lost) > 1
    acts, engine.rules = dict(engine.acts), []
    dry = await caller.run({"dry_run": True, "user_ids": mentors[:10]})
    assert (dry["status"], dry["counts"]["failed"], engine.acts) == ("success", 0, acts)
    assert engine.violations == []
