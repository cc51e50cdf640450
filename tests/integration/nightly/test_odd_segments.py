"""Segments are whatever a programme calls its groups: they come through as they are, or are told apart wrongly."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tests.integration.nightly.night import Night, mentor_ids

ODD_SEGMENTS = [
    "bereavement 🕊️ 家族",
    "\U0001f600\U0002f81a\U0010fffd",
    "caf\u00e9",
    "cafe\u0301",  # the same to the eye, and not the same
    "quoted \"twice\" 'once'",
    "{brace,comma}",
    "back\\slash \\u0000 %s %(x)s $1 ${HOME}",
    "line\nbreak\ttab\r\u2028 \x1b[31mred",
    '"}\n{"severity": "ERROR", "event": "forged"}',
    "'; drop table public.peer_mentors; --",
    "null",
    "NULL",
    " ",
    "",
    "x" * 20_000,
    "🎉" * 5_000,
]


async def test_each_mentor_is_evaluated_for_the_own_odd_segment(night: Night) -> None:
    night.mentors = mentor_ids(len(ODD_SEGMENTS))
    async with night.project.connect() as connection, connection.cursor() as cursor:
        await cursor.executemany(
            b"insert into public.peer_mentors (user_id, segments, onboarding_completed_at) values (%s, %s, %s)",
            [
                (user_id, [segment, "all"], datetime.now(UTC))
                for user_id, segment in zip(night.mentors, ODD_SEGMENTS, strict=True)
            ],
        )
    types = [{"type": f"scenario_{n}", "segments": [segment]} for n, segment in enumerate(ODD_SEGMENTS)]
    function = await night.start_function({"SCENARIO_TYPES": json.dumps(types)})

    invocation = (await night.fire(function)).json()

    assert invocation["status"] == "succeeded"
    assert await night.recorded_pairs(invocation["id"]) == {
        (user_id, f"scenario_{n}"): night.engine.expected_outcome(user_id, f"scenario_{n}")
        for n, user_id in enumerate(night.mentors)
    }
    assert night.engine.violations == []
    assert "forged" not in {line["event"] for line in night.log_lines(function)}
    log = function.log_path.read_text()
    assert not [segment for segment in ODD_SEGMENTS if len(segment) > 5 and segment in log]
    ((recorded,),) = await night.rows(b"select config -> 'scenario_types' from public.scheduler_invocations")
    assert {scenario["type"]: scenario["segments"] for scenario in recorded} == {
        scenario["type"]: scenario["segments"] for scenario in types
    }
