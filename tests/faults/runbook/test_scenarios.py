"""How docs/operations.md has an operator change scenario types, pause and resume, and what the next run evaluates."""

from __future__ import annotations

from tests.faults.runbook.operator import Operator, incidents
from tests.integration.scheduled_runs.harness import Harness


async def test_types_and_the_schedule_change_as_the_document_says(harness: Harness) -> None:
    mentors = await harness.add_mentors(40)
    north = mentors[::3]
    await harness.execute(
        b"update public.peer_mentors set segments = array['org:north'] where user_id = any(%s)", [north]
    )
    function = await harness.start_function()

    seen = await Operator(harness, incidents()[-1], function).follow("Changing scenario types")

    before, off, weekly = seen.answers
    assert {each["effective"]["enabled"] for each in before["data"]} == {True}
    assert (off["effective"]["enabled"], off["updated_by"]) == (False, "admin")
    assert (weekly["schedule"], weekly["enabled"]) == ("0 2 * * 1", False)
    run = await harness.run(function)
    assert (run["status"], await harness.recorded_pairs(run["id"])) == (
        "success",
        {
            pair: outcome
            for pair, outcome in harness.expected_pairs().items()
            if pair[1] == "inactivity" or (pair[1] == "milestone" and pair[0] not in north)
        },
    )
    states = (await Operator(harness, incidents()[-1], function).follow("Pausing the schedule")).answers
    assert [each["pause"] and each["pause"]["reason"] for each in states] == [None, "the engine is being moved", None]
    changed_by = await harness.rows(b"select distinct updated_by from public.scenario_evaluation_config")
    assert changed_by == [("postgres",)]
