"""Scenario types as operators change them in SQL: what a run evaluates, what it has frozen, and what it says."""

from __future__ import annotations

from tests.integration.manual.caller import a_caller, asked_since
from tests.integration.scheduled_runs.harness import Harness, Pair

INVALID = "scenario_config_invalid"


async def configure(harness: Harness, row: str) -> None:
    """Adds a row as in Supabase's Studio: by role postgres, in the order of the columns."""
    columns = "scenario_type, organization, enabled, segments, schedule"
    await harness.execute(f"insert into public.scenario_evaluation_config ({columns}) values ({row})".encode())


async def move(harness: Harness, user_ids: list[str], organization: str) -> None:
    await harness.execute(
        b"update public.peer_mentors set segments = array['org:' || %s::text] where user_id = any(%s)",
        [organization, user_ids],
    )


async def test_a_switch_in_sql_holds_for_its_mentors_alone(harness: Harness) -> None:
    """A general switch and one of an organization, read by a new process and by one that has opened a run before."""
    mentors = await harness.add_mentors(60)
    north, south = mentors[::3], mentors[1::3]
    await move(harness, north, "north")
    await move(harness, south, "south")
    function, caller = await harness.start_function(), await a_caller(harness)
    assert (await caller.run({"user_ids": mentors[:1], "dry_run": True}))["status"] == "success"
    calls = len(harness.engine.calls)

    await configure(harness, "'inactivity', null, false, null, null")
    await configure(harness, "'milestone', 'north', false, null, null")
    await configure(harness, "'milestone', 'south', true, null, 'every day'")
    await configure(harness, "'inactivty', null, false, null, null")
    run = await harness.run(function)

    def is_on(pair: Pair) -> bool:
        return pair[1] != "inactivity" and not (pair[1] == "milestone" and pair[0] in north)

    expected = {pair: outcome for pair, outcome in harness.expected_pairs().items() if is_on(pair)}
    assert await harness.recorded_pairs(run["id"]) == expected
    assert sorted(asked_since(harness, calls)) == sorted(expected)
    evaluated = {user_id for user_id, _ in expected}
    assert run["status"] == "success"
    assert run["counts"]["mentors"] - run["counts"]["mentors_skipped"] == run["users_evaluated"] == len(evaluated)
    assert run["skip_reasons"]["no_scenario_applies"] == len(mentors) - len(evaluated) > 0

    # The list of mentors and a manual run follow the same rows.
    shown = {each["user_id"]: each["scenario_types"] for each in (await caller.page("/active-peer-mentors"))["data"]}
    assert {(user_id, name) for user_id, names in shown.items() for name in names} == expected.keys()
    manual = await caller.run({"dry_run": True})
    assert await harness.recorded_pairs(manual["id"]) == expected
    warnings = (await caller.see(run["id"]))["config"]["scenarios"]["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == ["inactivty", "milestone, organization south, schedule"]
    for process in (function, caller.function):
        assert [line["message"].split(": ", 1)[1] for line in harness.log_lines(process, INVALID)] == warnings


async def test_an_open_run_goes_on_with_what_it_has_frozen(harness: Harness) -> None:
    """In another process, although everything was changed before a mentor was read."""
    mentors = await harness.add_mentors(20)
    await harness.execute(b"alter view public.active_peer_mentors rename column segments to parts")
    first, second = [await harness.start_function() for _ in range(2)]
    assert (await harness.fire(first)).status_code == 500, "the run is open, and waits for the view"
    await harness.execute(b"alter view public.active_peer_mentors rename column parts to segments")
    await configure(harness, "'inactivity', null, false, null, null")
    await configure(harness, "'certification_expiry', null, null, array['elsewhere'], '0 0 1 1 *'")

    run = await harness.run(second)

    assert run["status"] == "success"
    await harness.check_truth(run)
    caller, calls = await a_caller(harness), len(harness.engine.calls)
    await caller.run({"dry_run": True})
    assert sorted(asked_since(harness, calls)) == sorted((user_id, "milestone") for user_id in mentors)
