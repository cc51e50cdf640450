"""Odd rows of the view active_peer_mentors cost themselves only."""

from __future__ import annotations

from uuid import uuid4

from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness

TYPES = ("inactivity", "milestone", "certification_expiry")


async def test_good_rows_are_evaluated_and_odd_ones_skipped(harness: Harness) -> None:
    mentors = await harness.add_mentors(300)
    null_element, too_long, no_segments = (str(uuid4()) for _ in range(3))
    odd_rows = (
        f"('{null_element}'::uuid, array['established', null]), ('{too_long}', array_fill(repeat('x', 64), "
        f"array[300000])), ('{mentors[0]}', array[null]), (null, array['established']), ('{no_segments}', null)"
    )
    ((view,),) = await harness.rows(b"select pg_get_viewdef('public.active_peer_mentors'::regclass)")
    query = f"{view.rstrip(';')} union all select * from (values {odd_rows}) as odd"
    view_of = "create or replace view public.active_peer_mentors with (security_invoker = true) as "
    await harness.execute((view_of + query).encode())
    function = await harness.start_function()
    caller = Caller(harness, function)

    run = await harness.run(function)

    expected = harness.expected_pairs() | {
        (no_segments, "milestone"): harness.engine.expected_outcome(no_segments, "milestone")
    }
    odd_pairs = {(user_id, type_) for user_id in (null_element, too_long) for type_ in TYPES}
    assert await harness.recorded_pairs(run["id"]) == expected | dict.fromkeys(odd_pairs, "skipped")
    assert (run["status"], run["counts"]["skipped"], run["counts"]["mentors_skipped"]) == ("success", 6, 1)
    assert (await caller.see(run["id"]))["skip_reasons"] == {
        "no_scenario_applies": 0,
        "user_id_missing": 1,
        "invalid_segments": 3,
    }
    assert await caller.history(null_element) == {run["id"]: dict.fromkeys(TYPES, "skipped")}
    (line,) = [each for each in harness.log_lines(function) if each["event"] == "mentor_rows_unusable"]
    assert (line["severity"], line["invalid_segments"], line["user_id_missing"]) == ("WARNING", 3, 1)
    assert set(line["sample_user_ids"]) == {null_element, too_long}

    # The list of mentors, a batch and a run of chosen mentors agree.
    page = (await caller.send("GET", "/active-peer-mentors?limit=1000")).json()
    assert {item["user_id"] for item in page["data"] if item["skip_reason"]} == {null_element, too_long}
    some = {"user_ids": [null_element, mentors[1]], "dry_run": True}
    batch = (await caller.send("POST", "/evaluation-batch", json=some)).json()
    assert {each["user_id"] for each in batch["results"] if each["error_code"] == "invalid_segments"} == {null_element}
    chosen = await caller.run(some)
    assert (chosen["status"], chosen["counts"]["skipped"], chosen["counts"]["evaluations"]) == ("success", 3, 5)
