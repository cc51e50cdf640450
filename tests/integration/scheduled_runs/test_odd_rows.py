"""Odd rows of the view active_peer_mentors cost themselves only; wrong columns are refused before anything starts."""

from __future__ import annotations

from uuid import uuid4

from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness

VIEW = b"create view public.active_peer_mentors with (security_invoker = true) as "
RIGHTS = b"""
revoke all on public.active_peer_mentors from public, anon, authenticated;
grant select on public.active_peer_mentors to service_role
"""
TYPES = ("inactivity_30_days", "milestone_reached", "onboarding_incomplete")


async def view_of(harness: Harness) -> bytes:
    ((definition,),) = await harness.rows(b"select pg_get_viewdef('public.active_peer_mentors'::regclass)")
    return str(definition).rstrip(";").encode()


async def replace_view(harness: Harness, query: bytes) -> None:
    await harness.execute(b"drop view public.active_peer_mentors; " + VIEW + query + b";" + RIGHTS)


async def test_good_rows_are_evaluated_and_odd_ones_skipped(harness: Harness) -> None:
    mentors = await harness.add_mentors(300)
    null_element, too_long, no_segments = (str(uuid4()) for _ in range(3))
    odd_rows = (
        f"('{null_element}'::uuid, array['established', null]), ('{too_long}', array_fill(repeat('x', 64), "
        f"array[300000])), ('{mentors[0]}', array[null]), (null, array['established']), ('{no_segments}', null)"
    )
    good = await view_of(harness)
    await replace_view(harness, good + f" union all select * from (values {odd_rows}) as odd".encode())
    function = await harness.start_function()
    caller = Caller(harness, function)

    run = (await harness.fire(function)).json()

    expected = harness.expected_pairs() | {
        (no_segments, "milestone_reached"): harness.engine.expected_outcome(no_segments, "milestone_reached")
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


async def test_a_wrong_view_is_refused_until_it_is_fixed(harness: Harness) -> None:
    await harness.add_mentors(30)
    good = await view_of(harness)
    await replace_view(harness, b"select user_id, 'established'::text as segments from public.peer_mentors")
    function = await harness.start_function()
    caller = Caller(harness, function)

    refused = [
        await harness.fire(function),
        await caller.ask(),
        await caller.send("GET", "/active-peer-mentors"),
        await caller.send("POST", "/evaluation-batch", json={"user_ids": harness.mentors[:1], "dry_run": True}),
    ]
    (waiting,) = await harness.invocations()
    # One that raises when it is read.
    await replace_view(
        harness, b"select user_id, array[(1 / length(left(status, 0)))::text] as segments from public.peer_mentors"
    )
    raised = await harness.fire(function)
    (still_waiting,) = await harness.invocations()
    await replace_view(harness, good)
    run = (await harness.fire(function)).json()

    assert {(answer.status_code, answer.json()["code"]) for answer in [*refused, raised]} == {
        (500, "mentors_view_invalid")
    }
    assert all("column segments: expected text[], found text" in answer.json()["detail"] for answer in refused)
    assert "SQLSTATE 22012" in raised.json()["detail"]
    logged = [line["event"] for line in harness.log_lines(function) if line["severity"] == "ERROR"]
    assert logged == ["mentors_view_invalid"] * (len(refused) + 1)
    assert (waiting["status"], waiting["error_code"]) == ("pending", "mentors_view_invalid")
    assert (still_waiting["error_code"], still_waiting["counts"]["mentors"]) == ("mentors_view_invalid", 0)
    assert (run["id"], run["status"], run["error_code"]) == (waiting["id"], "success", None)
    await harness.check_truth(run)
