"""Odd rows of the view active_peer_mentors cost themselves only; wrong columns are refused before anything starts."""

from __future__ import annotations

from uuid import uuid4

from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night

VIEW = b"create view public.active_peer_mentors with (security_invoker = true) as "
RIGHTS = b"""
revoke all on public.active_peer_mentors from public, anon, authenticated;
grant select on public.active_peer_mentors to service_role
"""
TYPES = ("inactivity_30_days", "milestone_reached", "onboarding_incomplete")


async def view_of(night: Night) -> bytes:
    ((definition,),) = await night.rows(b"select pg_get_viewdef('public.active_peer_mentors'::regclass)")
    return str(definition).rstrip(";").encode()


async def replace_view(night: Night, query: bytes) -> None:
    await night.execute(b"drop view public.active_peer_mentors; " + VIEW + query + b";" + RIGHTS)


async def test_good_rows_are_evaluated_and_odd_ones_counted(night: Night) -> None:
    mentors = await night.add_mentors(300)
    null_element, two_dimensions, too_long, no_segments = (str(uuid4()) for _ in range(4))
    odd_rows = (
        f"('{null_element}'::uuid, array['established', null]), ('{two_dimensions}', array[['established', 'near']]),"
        f" ('{too_long}', array_fill(repeat('x', 64), array[300000])),"
        f" ('{mentors[0]}', array[null]), (null, array['established']), (null, null), ('{no_segments}', null)"
    )
    good = await view_of(night)
    await replace_view(night, good + f" union all select * from (values {odd_rows}) as odd".encode())
    function = await night.start_function()
    caller = Caller(night, function)

    answer = await night.fire(function)

    assert answer.status_code == 200
    run = answer.json()
    pairs = await night.recorded_pairs(run["id"])
    odd_pairs = {(user_id, type_) for user_id in (null_element, two_dimensions, too_long) for type_ in TYPES}
    assert {pair for pair, outcome in pairs.items() if outcome == "skipped"} == odd_pairs
    everybody = night.expected_pairs() | {
        (no_segments, "milestone_reached"): night.engine.expected_outcome(no_segments, "milestone_reached")
    }
    assert {pair: outcome for pair, outcome in pairs.items() if outcome != "skipped"} == everybody
    assert (run["status"], run["counts"]["skipped"], run["counts"]["mentors_skipped"]) == ("succeeded", 9, 2)
    assert (await caller.see(run["id"]))["skip_reasons"] == {
        "no_scenario_applies": 0,
        "user_id_missing": 2,
        "invalid_segments": 4,
    }
    assert await caller.history(null_element) == {run["id"]: dict.fromkeys(TYPES, "skipped")}
    reasons = await night.rows(
        b"select distinct error_code from public.scheduler_evaluations where outcome = 'skipped'"
    )
    assert reasons == [("invalid_segments",)]
    (line,) = [each for each in night.log_lines(function) if each["event"] == "mentor_rows_unusable"]
    assert (line["severity"], line["invalid_segments"], line["user_id_missing"]) == ("WARNING", 4, 2)
    assert set(line["sample_user_ids"]) == {null_element, two_dimensions, too_long}

    # Who would be evaluated, a batch, and a run about chosen mentors say the same.
    page = (await caller.send("GET", "/active-peer-mentors?limit=1000")).json()
    shown = {item["user_id"]: item["skip_reason"] for item in page["items"]}
    assert {user_id for user_id, reason in shown.items() if reason} == {null_element, two_dimensions, too_long}
    assert (len(shown), page["user_id_missing"]) == (304, 2)
    batch = await caller.send(
        "POST", "/evaluation-batch", json={"user_ids": [null_element, mentors[1]], "dry_run": True}
    )
    outcomes = {(each["user_id"], each["scenario_type"]): each["error_code"] for each in batch.json()["results"]}
    assert {pair for pair, code in outcomes.items() if code == "invalid_segments"} == {
        (null_element, type_) for type_ in TYPES
    }
    chosen = await caller.run({"user_ids": [too_long, mentors[1]]})
    assert (chosen["status"], chosen["counts"]["skipped"], chosen["counts"]["evaluations"]) == ("succeeded", 3, 5)


async def test_wrong_columns_are_refused_by_name_until_they_are_mended(night: Night) -> None:
    await night.add_mentors(30)
    good = await view_of(night)
    await replace_view(night, b"select user_id, 'established'::text as segments from public.peer_mentors")
    function = await night.start_function()
    caller = Caller(night, function)

    refused = [
        await night.fire(function),
        await night.fire(function, {"scheduled_for": night.slot.isoformat()}),
        await caller.ask(),
        await caller.send("GET", "/active-peer-mentors"),
        await caller.send("POST", "/evaluation-batch", json={"user_ids": night.mentors[:1], "dry_run": True}),
    ]

    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (500, "mentors_view_invalid")
        assert "column segments: expected text[], found text" in answer.json()["detail"]
    logged = [line["event"] for line in night.log_lines(function) if line["severity"] == "ERROR"]
    assert logged == ["mentors_view_invalid"] * len(refused)
    (waiting,) = await night.invocations()
    assert (waiting["status"], waiting["error"], waiting["counts"]["mentors"]) == ("pending", "mentors_view_invalid", 0)
    assert night.engine.calls == []

    await replace_view(night, good)
    answer = await night.fire(function)
    assert (answer.status_code, answer.json()["status"], answer.json()["error"]) == (200, "succeeded", None)
    assert answer.json()["id"] == waiting["id"]
    await night.check_truth(answer.json())


async def test_a_run_whose_view_raises_goes_on_when_mended(night: Night) -> None:
    await night.add_mentors(30)
    good = await view_of(night)
    await replace_view(
        night, b"select user_id, array[(1 / length(left(status, 0)))::text] as segments from public.peer_mentors"
    )
    function = await night.start_function()

    answer = await night.fire(function)
    assert (answer.status_code, answer.json()["code"]) == (500, "mentors_view_invalid")
    assert "SQLSTATE 22012" in answer.json()["detail"]
    (run,) = await night.invocations()
    assert (run["status"], run["error"], run["counts"]["mentors"]) == ("running", "mentors_view_invalid", 0)

    await replace_view(night, good)
    mended = (await night.fire(function)).json()
    assert (mended["id"], mended["status"], mended["error"]) == (run["id"], "succeeded", None)
    await night.check_truth(mended)


async def test_a_run_without_a_usable_row_is_no_success(night: Night) -> None:
    await night.add_mentors(3)
    await replace_view(night, b"select user_id, array[null::text] as segments from public.peer_mentors")
    run = (await night.fire(await night.start_function())).json()
    assert (run["status"], run["error"], run["counts"]["skipped"]) == ("failed", "mentors_view_invalid", 9)
