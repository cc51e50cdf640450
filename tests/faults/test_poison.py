"""Users whom the engine cannot serve: exactly they fail, each with the cause, at the price of a few more calls."""

from __future__ import annotations

import math

from tests.faults.breaker import breaker
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.manual.caller import Caller, asked_since, keys_since
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules

MENTORS, USERS_PER_CALL = 1000, 100
SETTINGS = {"ENGINE_USERS_PER_CALL": str(USERS_PER_CALL), "ENGINE_MAX_ATTEMPTS": "2", "MAX_WORKERS": "1"}
HALVINGS = math.ceil(math.log2(USERS_PER_CALL))
# A refusal: the group, and both halves of each group with the user. A crash: two tries of each, and comparisons.
MOST_EXTRA_CALLS = (2 + 4) * HALVINGS


async def test_poison_users_fail_alone_after_few_calls_and_are_retried(night: Night, clockwork: Clockwork) -> None:
    mentors = sorted(await night.add_mentors(MENTORS))
    poison = {mentors[250]: 422, mentors[750]: 500}
    poison_rules = [rules.refuse_calls_with({user_id}, status) for user_id, status in poison.items()]
    night.engine.rules += poison_rules
    function = await night.start_function(SETTINGS)
    await clockwork.start()

    # In the same minute, without another tick.
    await clockwork.tick_and_wait()

    (invocation,) = await night.invocations()
    expected = night.expected_pairs()
    assert invocation["status"] == "partial"
    assert await check_promises(night, invocation) == {
        pair: "failed" if pair[0] in poison else outcome for pair, outcome in expected.items()
    }
    causes = {cause["code"]: (cause["count"], cause["sample_user_ids"]) for cause in invocation["failures"]}
    assert causes == {f"engine_http_{status}": (2, [user_id]) for user_id, status in poison.items()}
    assert (await breaker(night)).outages == 0
    assert 0 < len(night.engine.calls) - MENTORS // USERS_PER_CALL <= MOST_EXTRA_CALLS

    # Once it is cured, exactly they are evaluated again, under the keys that the engine knows.
    for rule in poison_rules:
        night.engine.rules.remove(rule)
    calls = len(night.engine.calls)
    retry = await Caller(night, function).run({"retry_of": invocation["id"]})
    assert retry["status"] == "succeeded"
    pairs = {pair for pair in expected if pair[0] in poison}
    assert sorted(asked_since(night, calls)) == sorted(pairs)
    scope = f"slot:{night.slot:%Y-%m-%dT%H:%MZ}"
    assert keys_since(night, calls) == {f"{scope}:{user_id}:{scenario_type}" for user_id, scenario_type in pairs}
    assert await night.recorded_pairs(retry["id"]) == {pair: expected[pair] for pair in pairs}
    assert night.engine.notified_twice == []
