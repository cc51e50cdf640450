"""A hostile engine against the function as deployed: its answers affect only the users that they are about.

tests/unit/shared has what our own code makes of each kind of answer; this is about all else on the way: the HTTP
client, the database, the log.
"""

from __future__ import annotations

from typing import Any

from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import Rule, hostile, rules

MEBIBYTE = 1024 * 1024
# Short, so that what never ends costs a test little; a call that is not repeated fails soon.
SHORT_TIMEOUTS = {"ENGINE_TIMEOUT_SECONDS": "2", "ENGINE_MAX_ATTEMPTS": "2", "ENGINE_USERS_PER_CALL": "4"}
HOSTILE_TEXT = 'first\x00 line\r\n{"severity": "ERROR", "event": "forged"}\n\u2028\x1b[31mred \ud800 end'
STORED_TEXT = 'first  line {"severity": "ERROR", "event": "forged"} [31mred ? end'

NO_ANSWERS: dict[str, tuple[Rule, str]] = {
    "huge": (rules.huge_body(17 * MEBIBYTE), "engine_bad_answer"),
    "compressed": (hostile.compressed_body(17 * MEBIBYTE), "engine_bad_answer"),
    "dripping": (hostile.dripping_body(), "engine_timeout"),
    "interim": (hostile.endless_interim_answers(), "engine_timeout"),
    "longer-than-promised": (hostile.longer_than_promised(), "engine_bad_answer"),
    "huge-headers": (hostile.huge_headers(), "engine_unreachable"),
    "no-http": (hostile.raw(b"220 mail ESMTP\r\n"), "engine_unreachable"),
    "deep": (rules.deep_json(), "engine_bad_answer"),
    "number": (rules.other_json(b'{"results": [' + b"9" * 100_000 + b"]}"), "engine_bad_answer"),
    "not-utf-8": (rules.other_json(b'\xff\xfe{"results": []}'), "engine_bad_answer"),
    "wrong-types": (rules.wrong_types(), "engine_missing_result"),
}


async def test_hostile_answers_cost_only_the_users_they_are_for(harness: Harness) -> None:
    """All other answers hold results of users that were not sent, and each result twice."""
    mentors = await harness.add_mentors(8 * len(NO_ANSWERS))
    affected = dict(zip(mentors[::8], NO_ANSWERS.values(), strict=True))
    for user_id, (rule, _) in affected.items():
        harness.engine.rules.append(rules.only(rules.naming({user_id}), rule))
    harness.engine.rules += [hostile.speaking_for(mentors), rules.repeated_results()]
    function = await harness.start_function(SHORT_TIMEOUTS)

    invocation = await harness.run(function)

    assert invocation["status"] == "partial"
    found = await harness.rows(
        b"select distinct user_id::text, error_code from public.scheduler_evaluations where outcome = 'failed'"
    )
    assert dict(found) == {user_id: code for user_id, (_, code) in affected.items()}
    assert await harness.recorded_pairs(invocation["id"]) == {
        pair: "failed" if pair[0] in affected else outcome for pair, outcome in harness.expected_pairs().items()
    }
    await harness.check_truth(invocation)
    failed = harness.log_lines(function, "mentor_evaluation_error")
    assert sorted(line["peer_mentor_id"] for line in failed) == sorted(affected)
    assert harness.log_lines(function, "engine_results_dropped")


async def test_hostile_texts_are_sanitized(harness: Harness) -> None:
    mentors = await harness.add_mentors(30)
    words: dict[str, dict[str, Any]] = {
        mentors[0]: {"outcome": "failed", "error": {"code": HOSTILE_TEXT, "message": HOSTILE_TEXT, "retryable": "no"}},
        mentors[1]: {"outcome": "failed", "error": {"code": "c" * 100_000, "message": "m" * 100_000}},
        mentors[2]: {"outcome": "failed", "error": {"code": "No Device", "message": "ann@example.org\nhas none"}},
        mentors[3]: {"outcome": "triggered", "notification_id": HOSTILE_TEXT},
        mentors[4]: {"outcome": "triggered", "notification_id": 10**4000},
        mentors[5]: {"outcome": "triggered", "notification_id": {HOSTILE_TEXT: [HOSTILE_TEXT]}},
    }
    harness.engine.rules.append(
        rules.alter_results(lambda results: [result | words.get(result["user_id"], {}) for result in results])
    )
    function = await harness.start_function()

    invocation = await harness.run(function)

    outcomes = {user_id: word["outcome"] for user_id, word in words.items()}
    assert await harness.recorded_pairs(invocation["id"]) == {
        pair: outcomes.get(pair[0], outcome) for pair, outcome in harness.expected_pairs().items()
    }
    messages = {cause["code"]: cause["message"] for cause in invocation["failures"]}
    assert messages == {
        "first_line_severity_error_event_forged_31mred_end": STORED_TEXT,
        "c" * 64: "m" * 300,
        "no_device": "[address] has none",
    }
    kept = await harness.rows(
        b"select distinct user_id::text, notification_id from public.scheduler_evaluations"
        b" where user_id = any(%s::uuid[])",
        [mentors[3:6]],
    )
    assert dict(kept) == {mentors[3]: STORED_TEXT, mentors[4]: "1" + "0" * 299, mentors[5]: None}
    assert await harness.queue_lengths() == [0, 0, 0]
    assert harness.log_lines(function, "forged", "log") == []
    assert "ann@example.org" not in function.log_path.read_text()
