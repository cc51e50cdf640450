"""One user's failure costs only that user."""

from __future__ import annotations

from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"


async def test_exactly_the_poison_users_fail_beside_transient_errors(harness: Harness) -> None:
    mentors = await harness.add_mentors(2000)
    poison = {mentors[number] for number in (3, 500, 501, 1203, 1999)}
    unsteady = {mentors[number] for number in (8, 777, 1500)}
    left_out = mentors[42]
    harness.engine.rules += [
        rules.refuse_calls_with(poison, status=422),
        rules.fail_every(10, status=500),
        rules.items_retryable(unsteady, times=2),
        rules.missing({left_out}),
        rules.foreign_results({UNKNOWN_USER}),
        rules.repeated_results(),
    ]
    function = await harness.start_function({"ENGINE_USERS_PER_CALL": "7"})

    invocation = await harness.run(function)

    assert invocation["status"] == "partial"
    # What the engine says of each pair, and of the poison users nothing.
    assert await harness.recorded_pairs(invocation["id"]) == {
        pair: "failed" if pair[0] in {*poison, left_out} else outcome
        for pair, outcome in harness.expected_pairs().items()
    }
    causes = {cause["code"]: cause for cause in invocation["failures"]}
    assert {code: cause["count"] for code, cause in causes.items()} == {
        "engine_http_422": 2 * len(poison),
        "engine_missing_result": 2,
    }
    assert set(causes["engine_http_422"]["sample_user_ids"]) <= poison
    assert causes["engine_missing_result"]["sample_user_ids"] == [left_out]
    await harness.check_truth(invocation)
    failed = [line["user_id"] for line in harness.log_lines(function) if line["event"] == "user_failed"]
    assert sorted(failed) == sorted([*poison, left_out])
