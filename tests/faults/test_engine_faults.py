"""An engine that is late, breaks off, or acts without saying so: no pair is lost, none is notified twice."""

from __future__ import annotations

from tests.faults.oracle import check_success
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

SETTINGS = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_USERS_PER_CALL": "2",
    "ENGINE_MAX_CONCURRENCY": "4",
    "ENGINE_TIMEOUT_SECONDS": "1",
    "TIME_BUDGET_SECONDS": "10",
    "MAX_WORKERS": "1",
}
LATE, HANGING = range(1, 5), range(10, 14)


async def test_what_passes_costs_no_evaluation(harness: Harness, time_control: TimeControl) -> None:
    """The late calls are answered when the function has given them up, and asks about the same pairs again."""
    await harness.add_mentors(200)
    harness.engine.rules += [
        rules.only(rules.calls(*LATE), rules.slow(None, 1.3)),
        rules.only(rules.calls(*HANGING), rules.never_answer()),
        rules.only(rules.every(20), rules.act_then(rules.respond(500))),
        rules.only(rules.every(23), rules.reset()),
        rules.only(rules.every(29), rules.act_then(rules.reset())),
        rules.only(rules.every(31), rules.cut_short()),
    ]
    await harness.start_function(SETTINGS)
    await time_control.start()

    invocation = await time_control.until_ended()
    await harness.engine.until(lambda engine: engine.in_flight == len(HANGING))

    await check_success(harness, invocation)
    calls = {call.number: call for call in harness.engine.calls}
    assert [calls[number].status for number in HANGING] == [None] * len(HANGING)
    assert all(harness.engine.keys_seen[key] > 1 for number in LATE for key in calls[number].keys)
    acted_in = {act.call_number for act in harness.engine.acts.values()}
    assert acted_in & {number for number, call in calls.items() if call.status != 200}, "no act went unheard"
