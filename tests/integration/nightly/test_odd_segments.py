"""Segments are whatever a programme calls its groups: they come through as they are, or are told apart wrongly."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tests.integration.nightly.night import Night, mentor_ids

ODD_SEGMENTS = [
    "bereavement 🕊️ 家族",
    "👩‍👩‍👧‍👦",
    "\U0001f600\U0002f81a\U0010fffd",
    "caf\u00e9",
    "cafe\u0301",  # the same to the eye, and not the same
    "quoted \"twice\" 'once'",
    "{brace,comma}",
    "back\\slash \\u0000 %s %(x)s $1 ${HOME}",
    "line\nbreak\ttab\r\u2028 \x1b[31mred",
    '"}\n{"severity": "ERROR", "event": "forged"}',
    "right \u202eto left\u202c",
    "'; drop table public.peer_mentors; --",
    "<script>alert(1)</script>",
    "null",
    "NULL",
    " ",
    "",
    "x" * 20_000,
    "🎉" * 5_000,
]


async def test_each_mentor_is_evaluated_for_the_scenario_of_her_own_odd_segment_and_no_other(night: Night) -> None:
    night.mentors = mentor_ids(len(ODD_SEGMENTS))
    groups = dict(zip(night.mentors, ODD_SEGMENTS, strict=True))
    async with night.project.connect() as connection, connection.cursor() as cursor:
        await cursor.executemany(
            b"insert into public.peer_mentors (user_id, segments, onboarding_completed_at) values (%s, %s, %s)",
            [(user_id, [segment, "everybody"], datetime.now(UTC)) for user_id, segment in groups.items()],
        )
    types = [{"type": f"scenario_{n}", "segments": [segment]} for n, segment in enumerate(ODD_SEGMENTS)]
    # JSON has two spellings of each: the function must not care which its environment holds
    for ascii_only in (True, False):
        function = await night.start_function({"SCENARIO_TYPES": json.dumps(types, ensure_ascii=ascii_only)})
        invocation = (await night.fire(function)).json()

        assert invocation["status"] == "succeeded"
        assert await night.recorded_pairs(invocation["id"]) == {
            (user_id, f"scenario_{n}"): night.engine.expected_outcome(user_id, f"scenario_{n}")
            for n, user_id in enumerate(night.mentors)
        }
        assert night.engine.violations == []
        assert {line["event"] for line in night.log_lines(function)} == {
            "invocation_opened",
            "mentors_enumerated",
            "batch_recorded",
            "invocation_finished",
            "slice_ended",
        }
        log = function.log_path.read_text()
        assert not [segment for segment in ODD_SEGMENTS if len(segment) > 5 and segment in log]
        ((recorded,),) = await night.rows(b"select config -> 'scenario_types' from public.scheduler_invocations")
        assert {scenario["type"]: scenario["segments"] for scenario in recorded} == {
            scenario["type"]: scenario["segments"] for scenario in types
        }
        # The same slot once more, in the other spelling: forget that it was ever fired.
        await night.execute(b"delete from public.scheduler_invocations")
        await night.project.make_slot_due()

    kept = await night.http.get(
        f"{night.project.rest_url}/active_peer_mentors?select=user_id,segments",
        headers={"apikey": night.project.secret_key},
    )
    assert {row["user_id"]: row["segments"] for row in kept.json()} == {
        user_id: ["established", segment, "everybody"] for user_id, segment in groups.items()
    }
