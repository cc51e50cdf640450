"""Users whom the engine cannot serve: exactly they fail, each with the cause, at the price of a few more calls."""

from __future__ import annotations

import math

from tests.faults.oracle import check_promises
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

MENTORS, USERS_PER_CALL = 1000, 100
SETTINGS = {"ENGINE_USERS_PER_CALL": str(USERS_PER_CALL), "ENGINE_MAX_ATTEMPTS": "2", "MAX_WORKERS": "1"}
HALVINGS = math.ceil(math.log2(USERS_PER_CALL))
# A refusal: the group, and both halves of each group with the user. A crash: two tries of each, and comparisons.
MOST_EXTRA_CALLS = (2 + 4) * HALVINGS


async def test_poison_users_fail_alone_after_few_calls(harness: Harness, time_control: TimeControl) -> None:
    mentors = sorted(await harness.add_mentors(MENTORS))
    poison = {mentors[250]: 422, mentors[750]: 500}
    harness.engine.rules += [rules.refuse_calls_with({user_id}, status) for user_id, status in poison.items()]
    await harness.start_function(SETTINGS)
    await time_control.start()

    # In the same minute, without another tick.
    await time_control.tick_and_wait()

    (invocation,) = await harness.invocations()
    assert invocation["status"] == "partial"
    assert await check_promises(harness, invocation) == {
        pair: "failed" if pair[0] in poison else outcome for pair, outcome in harness.expected_pairs().items()
    }
    causes = {cause["code"]: (cause["count"], cause["sample_user_ids"]) for cause in invocation["failures"]}
    assert causes == {f"engine_http_{status}": (2, [user_id]) for user_id, status in poison.items()}
    assert await harness.rows(b"select engine_outages from scheduler.settings") == [(0,)]
    assert 0 < len(harness.engine.calls) - MENTORS // USERS_PER_CALL <= MOST_EXTRA_CALLS
