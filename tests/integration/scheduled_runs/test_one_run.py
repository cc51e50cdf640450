"""The main job: every active mentor, every applicable scenario type, once."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from functions.runs.peer_mentors import PAGE_SIZE
from tests.integration.scheduled_runs.harness import Harness, mentor_ids

# A programme may call its groups anything; two are the same to the eye.
ODD_SEGMENTS = [
    "bereavement 🕊️ 家族",
    "caf\u00e9",
    "cafe\u0301",
    '{brace,"quoted"}',
    "back\\slash \\u0000 %s $1 ${HOME}",
    '"}\n{"severity": "ERROR", "event": "forged"}\t\u2028\x1b[31m',
    "'; drop table public.peer_mentors; --",
    "null",
    "NULL",
    " ",
    "",
    "x" * 20_000,
]
TRACE = "0af7651916cd43dd8448eb211c80319c"
EVENTS = {"invocation_opened", "mentors_enumerated", "batch_recorded", "invocation_finished", "slice_ended"}


async def test_every_active_mentor_is_evaluated_for_every_applicable_type(harness: Harness) -> None:
    """In more than one page of mentors, and with a key of the older kind."""
    mentors = await harness.add_mentors(PAGE_SIZE + 250)
    gone = set(mentors[-3:-1])
    for user_id, change in (
        (mentors[-3], b"status = 'left'"),
        (mentors[-2], b"status = 'paused', paused_until = now() + interval '1 day'"),
        (mentors[-1], b"status = 'paused', paused_until = now() - interval '1 day'"),
    ):
        await harness.execute(b"update public.peer_mentors set " + change + b" where user_id = %s", [user_id])
    key = harness.project.service_role_jwt
    function = await harness.start_function({"SUPABASE_SECRET_KEY": key, "EVALUATION_BATCH_SIZE": "300"})

    invocation = await harness.run(function, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})

    expected = {pair: outcome for pair, outcome in harness.expected_pairs().items() if pair[0] not in gone}
    assert await harness.recorded_pairs(invocation["id"]) == expected
    assert (invocation["status"], invocation["trigger"]) == ("success", "schedule")
    assert datetime.fromisoformat(invocation["scheduled_for"]) == harness.slot
    assert invocation["lateness_seconds"] >= 60
    assert (invocation["counts"]["mentors"], invocation["counts"]["evaluations"]) == (len(mentors) - 2, len(expected))

    # The engine is asked as the contract says.
    slot_key = f"slot:{harness.slot:%Y-%m-%dT%H:%MZ}"
    assert {key for call in harness.engine.calls for key in call.keys} == {
        f"{slot_key}:{user_id}:{scenario_type}" for user_id, scenario_type in expected
    }
    assert {(call.authorized, call.dry_run) for call in harness.engine.calls} == {(True, False)}
    assert {(call.traceparent or "").split("-")[1] for call in harness.engine.calls} == {TRACE}
    assert max(harness.engine.keys_seen.values()) == 1
    assert harness.engine.violations == []

    # The log has lines for the run, and none for each evaluation.
    lines = {line["event"]: line for line in harness.log_lines(function)}
    assert lines.keys() == EVENTS
    assert {line["trace_id"] for line in lines.values()} == {TRACE}
    assert lines["slice_ended"]["invocation_ids"] == [invocation["id"]]
    finished = lines["invocation_finished"]
    assert (finished["invocation_id"], finished["counts"]) == (invocation["id"], invocation["counts"])
    assert datetime.fromisoformat(finished["slot"]) == datetime.fromisoformat(invocation["scheduled_for"])


async def test_segments_decide_the_types_however_odd_they_are(harness: Harness) -> None:
    idle, *others = harness.mentors = mentor_ids(1 + len(ODD_SEGMENTS))
    segments = dict(zip(others, ODD_SEGMENTS, strict=True))
    async with harness.project.connect() as connection, connection.cursor() as cursor:
        await cursor.executemany(
            b"insert into public.peer_mentors (user_id, segments, onboarding_completed_at) values (%s, %s, %s)",
            [(user_id, [segments.get(user_id, "other"), "all"], datetime.now(UTC)) for user_id in harness.mentors],
        )
    types = [{"type": f"scenario_{n}", "segments": [segment]} for n, segment in enumerate(ODD_SEGMENTS)]
    function = await harness.start_function({"SCENARIO_TYPES": json.dumps(types)})

    invocation = await harness.run(function)

    assert (invocation["status"], invocation["counts"]["mentors_skipped"]) == ("success", 1)
    assert await harness.recorded_pairs(invocation["id"]) == {
        (user_id, f"scenario_{n}"): harness.engine.expected_outcome(user_id, f"scenario_{n}")
        for n, user_id in enumerate(others)
    }
    assert idle not in {user_id for user_id, _ in harness.engine.pairs_seen}
    assert harness.engine.violations == []
    assert {line["event"] for line in harness.log_lines(function)} == EVENTS
    log = function.log_path.read_text()
    assert not [segment for segment in ODD_SEGMENTS if len(segment) > 5 and segment in log]
