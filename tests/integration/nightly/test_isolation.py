"""One user's failure costs only that user."""

from __future__ import annotations

from tests.integration.nightly.night import Night
from tests.scripted_engine import rules

STRANGER = "00000000-0000-4000-8000-000000000000"


async def test_exactly_the_poison_users_fail_beside_passing_trouble(night: Night) -> None:
    mentors = await night.add_mentors(2000)
    poison = {mentors[number] for number in (3, 500, 501, 1203, 1999)}
    unsteady = {mentors[number] for number in (8, 777, 1500)}
    left_out = mentors[42]
    night.engine.rules += [
        rules.refuse_calls_with(poison, status=422),
        rules.fail_every(10, status=500),
        rules.items_retryable(unsteady, times=2),
        rules.missing({left_out}),
        rules.foreign_results({STRANGER}),
        rules.repeated_results(),
    ]
    function = await night.start_function({"ENGINE_USERS_PER_CALL": "7"})

    answer = await night.fire(function)

    assert answer.status_code == 200
    invocation = answer.json()
    assert invocation["status"] == "partial"
    # What the engine says of each pair, and of the poison users nothing.
    assert await night.recorded_pairs(invocation["id"]) == {
        pair: "failed" if pair[0] in {*poison, left_out} else outcome
        for pair, outcome in night.expected_pairs().items()
    }
    causes = {cause["code"]: cause for cause in await night.failures(invocation)}
    assert {code: cause["count"] for code, cause in causes.items()} == {
        "engine_http_422": 2 * len(poison),
        "engine_missing_result": 2,
    }
    assert set(causes["engine_http_422"]["sample_user_ids"]) <= poison
    assert causes["engine_missing_result"]["sample_user_ids"] == [left_out]
    await night.check_truth(invocation)
    failed = [line["user_id"] for line in night.log_lines(function) if line["event"] == "user_failed"]
    assert sorted(failed) == sorted([*poison, left_out])
