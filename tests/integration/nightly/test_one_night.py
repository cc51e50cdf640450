"""The main job: every active mentor, every applicable scenario type, once."""

from __future__ import annotations

from datetime import datetime

from functions.peer_mentors import PAGE_SIZE
from tests.integration.nightly.night import Night

TRACE = "0af7651916cd43dd8448eb211c80319c"
EVENTS = {"invocation_opened", "mentors_enumerated", "batch_recorded", "invocation_finished", "slice_ended"}


async def test_every_active_mentor_is_evaluated_for_every_applicable_type(night: Night) -> None:
    """In more than one page of mentors, and with a key of the older kind."""
    mentors = await night.add_mentors(PAGE_SIZE + 250)
    gone = set(mentors[-3:-1])
    for user_id, change in (
        (mentors[-3], b"status = 'left'"),
        (mentors[-2], b"status = 'paused', paused_until = now() + interval '1 day'"),
        (mentors[-1], b"status = 'paused', paused_until = now() - interval '1 day'"),
    ):
        await night.execute(b"update public.peer_mentors set " + change + b" where user_id = %s", [user_id])
    key = night.project.service_role_jwt
    function = await night.start_function({"SUPABASE_SECRET_KEY": key, "EVALUATION_BATCH_SIZE": "300"})

    answer = await night.fire(function, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})

    assert answer.status_code == 200
    invocation = answer.json()
    expected = {pair: outcome for pair, outcome in night.expected_pairs().items() if pair[0] not in gone}
    assert await night.recorded_pairs(invocation["id"]) == expected
    assert (invocation["status"], invocation["triggered_by"], invocation["deduplicated"]) == (
        "succeeded",
        "schedule",
        False,
    )
    assert invocation["scheduled_for"] == f"{night.slot:%Y-%m-%dT%H:%M:%S}Z"
    assert invocation["lateness_seconds"] >= 60
    assert (invocation["counts"]["mentors"], invocation["counts"]["evaluations"]) == (len(mentors) - 2, len(expected))

    # The engine is asked as the contract says.
    slot_key = f"slot:{night.slot:%Y-%m-%dT%H:%MZ}"
    assert {key for call in night.engine.calls for key in call.keys} == {
        f"{slot_key}:{user_id}:{scenario_type}" for user_id, scenario_type in expected
    }
    assert {(call.authorized, call.dry_run) for call in night.engine.calls} == {(True, False)}
    assert {(call.traceparent or "").split("-")[1] for call in night.engine.calls} == {TRACE}
    assert max(night.engine.keys_seen.values()) == 1
    assert night.engine.violations == []

    # The log tells of the run, and not of each evaluation.
    lines = {line["event"]: line for line in night.log_lines(function)}
    assert lines.keys() == EVENTS
    assert {line["trace_id"] for line in lines.values()} == {TRACE}
    assert lines["slice_ended"]["invocation_ids"] == [invocation["id"]]
    finished = lines["invocation_finished"]
    assert (finished["invocation_id"], finished["counts"]) == (invocation["id"], invocation["counts"])
    assert datetime.fromisoformat(finished["slot"]) == datetime.fromisoformat(invocation["scheduled_for"])


async def test_mentors_without_an_applicable_type_are_counted_as_skipped(night: Night) -> None:
    mentors = await night.add_mentors(20)
    function = await night.start_function(
        {"SCENARIO_TYPES": '[{"type": "onboarding_incomplete", "segments": ["onboarding"]}]'}
    )

    invocation = (await night.fire(function)).json()

    assert invocation["status"] == "succeeded"
    assert (invocation["counts"]["mentors"], invocation["counts"]["mentors_skipped"]) == (20, 18)
    assert set(await night.recorded_pairs(invocation["id"])) == {
        (mentors[9], "onboarding_incomplete"),
        (mentors[19], "onboarding_incomplete"),
    }
