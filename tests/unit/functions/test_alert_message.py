"""What an alert says, to a person and to a program."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest

from functions.alert_message import EVENT_TYPE, MOST_CAUSES, compose
from shared.alerts import Alert
from tests.unit.functions.pretend_sql import RUN_ID, SLOT, described, mentor_id

COUNTS = {
    "mentors": 500,
    "mentors_skipped": 0,
    "batches": 5,
    "batches_done": 5,
    "evaluations": 1000,
    "triggered": 100,
    "not_triggered": 800,
    "suppressed": 40,
    "skipped": 0,
    "failed": 45,
    "not_evaluated": 15,
}
NOW = datetime.fromisoformat(SLOT) + timedelta(hours=2, minutes=1)


def told(reason: Literal["failed", "partial", "late"], **members: Any) -> dict[str, Any]:
    invocation = described(**({"counts": COUNTS, "failures": {}} | members))
    return compose(Alert(f"alert_{RUN_ID}", reason, 1, False, invocation), NOW)


def headline(message: dict[str, Any]) -> str:
    text: str = message["text"]
    return text.split("\n")[0]


def test_a_failed_night_says_why() -> None:
    message = told("failed", status="failed", error="no_active_mentors")
    assert headline(message) == "The nightly evaluation of 2026-11-23 02:00 UTC failed"
    assert "Reason: no_active_mentors" in message["text"]


def test_a_partial_night_says_how_much_of_it() -> None:
    message = told("partial", status="partial", failures={"engine_timeout": 15, "engine_http_422": 30})
    assert headline(message).endswith("is partial: 6.0% of it failed or did not take place")
    assert (
        "500 mentors, 1000 evaluations: 940 done (100 triggered), 60 not (45 failed, 15 not evaluated)"
        in message["text"]
    )
    assert "Failures: engine_http_422 30, engine_timeout 15" in message["text"]


def test_a_late_night_that_has_ended_says_how() -> None:
    message = told("late", finished_at="2026-11-23T05:07:30+00:00")
    assert headline(message).endswith("was late: succeeded 3 h 7 min after its time")


def test_a_late_night_that_is_still_open_says_so_and_that_this_is_all_that_will_be_said() -> None:
    message = told("late", status="running", finished_at=None, error="engine_unavailable")
    assert headline(message).endswith("is late: not over 2 h 1 min after its time")
    assert "It goes on until 2026-11-23 22:00 UTC at the latest; there is no other alert for it." in message["text"]
    assert "Reason: engine_unavailable" in message["text"]


@pytest.mark.parametrize(
    ("reason", "members"),
    [
        ("failed", {"status": "failed", "started_at": None, "lateness_seconds": None, "error": "expired"}),
        ("partial", {"status": "partial", "failures": {f"cause_{number}": number + 1 for number in range(20)}}),
        ("late", {"status": "running", "finished_at": None}),
    ],
)
def test_it_has_only_what_slack_takes(reason: Literal["failed", "partial", "late"], members: dict[str, Any]) -> None:
    message = told(reason, **members)
    assert message.keys() == {"text", "blocks", "metadata"}
    for block in message["blocks"]:
        assert block["type"] == "section"
        assert 0 < len(block["text"]["text"]) <= 3000
    assert message["metadata"]["event_type"] == EVENT_TYPE
    for value in message["metadata"]["event_payload"].values():
        inner = value.values() if isinstance(value, dict) else [value]
        assert all(isinstance(member, str | int | float | bool) for member in inner)


def test_the_figures_are_there_for_programs() -> None:
    payload = told("partial", status="partial", failures={"engine_timeout": 45})["metadata"]["event_payload"]
    assert payload["reason"] == "partial"
    assert payload["invocation_id"] == RUN_ID
    assert payload["counts"] == COUNTS
    assert payload["failures"] == {"engine_timeout": 45}


def test_the_commonest_causes_come_first_and_not_all_are_told() -> None:
    message = told("partial", status="partial", failures={f"cause_{number:02}": number + 1 for number in range(20)})
    assert "Failures: cause_19 20, cause_18 19" in message["text"]
    assert message["text"].count("cause_") == MOST_CAUSES


def test_nobody_is_named() -> None:
    message = told("partial", status="partial", note=f"about {mentor_id(1)}", failures={"engine_timeout": 1})
    assert mentor_id(1) not in json.dumps(message)
