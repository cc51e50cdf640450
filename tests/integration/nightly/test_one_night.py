"""The main job: every active mentor, every applicable scenario type, once."""

from __future__ import annotations

import math
from datetime import datetime

from functions.peer_mentors import PAGE_SIZE
from tests.integration.nightly.night import Night


async def test_every_active_mentor_is_evaluated_for_every_applicable_type(night: Night) -> None:
    await night.add_mentors(1250)
    function = await night.start_function()

    answer = await night.fire(function)

    assert answer.status_code == 200
    invocation = answer.json()
    assert invocation["status"] == "succeeded"
    assert invocation["deduplicated"] is False
    assert invocation["triggered_by"] == "schedule"
    assert invocation["scheduled_for"] == f"{night.slot:%Y-%m-%dT%H:%M:%S}Z"
    assert invocation["lateness_seconds"] >= 60
    assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
    await night.check_truth(invocation)


async def test_the_engine_is_asked_as_the_contract_says(night: Night) -> None:
    mentors = await night.add_mentors(10)
    function = await night.start_function()
    trace_id = "0af7651916cd43dd8448eb211c80319c"

    await night.fire(function, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})

    (call,) = night.engine.calls
    slot_key = f"slot:{night.slot:%Y-%m-%dT%H:%MZ}"
    assert call.authorized
    assert call.dry_run is False
    assert call.traceparent is not None
    assert call.traceparent.split("-")[1] == trace_id
    assert set(call.keys) == {
        f"{slot_key}:{user_id}:{scenario_type}" for user_id, scenario_type in night.expected_pairs()
    }
    assert sorted(call.user_ids) == sorted(mentors)


async def test_the_same_slot_fired_again_does_nothing_and_says_so(night: Night) -> None:
    await night.add_mentors(30)
    function = await night.start_function()
    first = (await night.fire(function)).json()
    calls = len(night.engine.calls)

    for body in ({}, {"scheduled_for": night.slot.isoformat()}):
        again = await night.fire(function, body)
        assert again.status_code == 200
        assert again.json() == first | {"deduplicated": True}

    assert len(night.engine.calls) == calls
    assert len(await night.invocations()) == 1


async def test_paused_and_departed_mentors_are_left_alone(night: Night) -> None:
    mentors = await night.add_mentors(4)
    await night.execute(b"update public.peer_mentors set status = 'left' where user_id = %s", [mentors[0]])
    await night.execute(
        b"update public.peer_mentors set status = 'paused', paused_until = now() + interval '1 day' where user_id = %s",
        [mentors[1]],
    )
    await night.execute(
        b"update public.peer_mentors set status = 'paused', paused_until = now() - interval '1 day' where user_id = %s",
        [mentors[2]],
    )
    function = await night.start_function()

    invocation = (await night.fire(function)).json()

    evaluated = {user_id for user_id, _ in await night.recorded_pairs(invocation["id"])}
    assert evaluated == set(mentors[2:])


async def test_mentors_to_whom_no_type_applies_are_counted_as_skipped(night: Night) -> None:
    mentors = await night.add_mentors(20)
    function = await night.start_function(
        {"SCENARIO_TYPES": '[{"type": "onboarding_incomplete", "segments": ["onboarding"]}]'}
    )

    invocation = (await night.fire(function)).json()

    assert invocation["status"] == "succeeded"
    assert invocation["counts"]["mentors"] == 20
    assert invocation["counts"]["mentors_skipped"] == 18
    assert set(await night.recorded_pairs(invocation["id"])) == {
        (mentors[9], "onboarding_incomplete"),
        (mentors[19], "onboarding_incomplete"),
    }


async def test_a_data_api_that_cuts_answers_short_loses_nobody(night: Night) -> None:
    # 1,000 rows is what the emulator's Data API answers at most, as hosted projects do; a page of mentors is one.
    await night.add_mentors(PAGE_SIZE + 100)
    function = await night.start_function({"EVALUATION_BATCH_SIZE": "300"})

    invocation = (await night.fire(function)).json()

    assert invocation["counts"]["batches"] == math.ceil(PAGE_SIZE / 300) + 1
    await night.check_truth(invocation)


async def test_each_run_is_told_in_the_log_without_a_secret_and_without_a_line_for_each_evaluation(
    night: Night,
) -> None:
    await night.add_mentors(250)
    function = await night.start_function({"EVALUATION_BATCH_SIZE": "100"})

    invocation = (await night.fire(function)).json()

    lines = night.log_lines(function)
    events = [line["event"] for line in lines]
    assert sorted(events) == sorted(
        ["invocation_opened", "mentors_enumerated", *["batch_recorded"] * 3, "invocation_finished", "slice_ended"]
    )
    (ended,) = (line for line in lines if line["event"] == "slice_ended")
    assert ended["invocation_ids"] == [invocation["id"]]
    assert {line["invocation_id"] for line in lines if line is not ended} == {invocation["id"]}
    assert len({line["trace_id"] for line in lines}) == 1
    finished = next(line for line in lines if line["event"] == "invocation_finished")
    assert finished["counts"] == invocation["counts"]
    assert datetime.fromisoformat(finished["slot"]) == datetime.fromisoformat(invocation["scheduled_for"])
    log = function.log_path.read_text()
    project = night.project
    for secret in (project.secret_key, project.service_role_jwt, project.invoke_token, project.engine_token, "Bearer"):
        assert secret not in log
