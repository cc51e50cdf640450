"""What an alert says, to a person and to a program."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest

from functions.alert_message import EVENT_TYPE, MOST_CAUSES, compose
from shared.alerts import Alert
from tests.unit.functions.pretend_sql import RUN_ID, SLOT, mentor_id, summarized

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


def told(
    reason: Literal["failed", "partial", "late"], *causes: tuple[str, int, bool], **members: Any
) -> dict[str, Any]:
    """What is said of a night with these causes of failures: code, count, whether the count is a lower bound."""
    failures = [{"code": code, "count": count, "is_lower_bound": at_least} for code, count, at_least in causes]
    invocation = summarized(**({"counts": COUNTS} | members))
    return compose(Alert(f"alert_{RUN_ID}", reason, 1, False, invocation, failures), NOW)


def headline(message: dict[str, Any]) -> str:
    text: str = message["text"]
    return text.split("\n")[0]


def test_a_failed_night_says_why() -> None:
    message = told("failed", status="failed", error="no_active_mentors")
    assert headline(message) == "The nightly evaluation of 2026-11-23 02:00 UTC failed"
    assert "Reason: no_active_mentors" in message["text"]


def test_a_partial_night_says_how_much_of_it() -> None:
    message = told("partial", ("engine_http_422", 30, False), ("engine_timeout", 15, False), status="partial")
    assert headline(message).endswith("is partial: 6.0% of it failed or did not take place")
    assert (
        "500 mentors, 1000 evaluations: 940 done (100 triggered), 60 not (45 failed, 15 not evaluated)"
        in message["text"]
    )
    assert "Failures: engine_http_422 30, engine_timeout 15\n" in message["text"]


def test_a_late_night_that_has_ended_says_how() -> None:
    message = told("late", finished_at="2026-11-23T05:07:30+00:00")
    assert headline(message).endswith("was late: succeeded 3 h 7 min after its time")


def test_a_late_night_that_is_still_open_says_so_and_that_this_is_all_that_will_be_said() -> None:
    message = told("late", status="running", finished_at=None, error="engine_unavailable")
    assert headline(message).endswith("is late: not over 2 h 1 min after its time")
    assert "It goes on until 2026-11-23 22:00 UTC at the latest; there is no other alert for it." in message["text"]
    assert "Reason: engine_unavailable" in message["text"]


@pytest.mark.parametrize(
    ("reason", "causes", "members"),
    [
        ("failed", [], {"status": "failed", "started_at": None, "lateness_seconds": None, "error": "expired"}),
        ("partial", [(f"cause_{number}", 2, True) for number in range(20)], {"status": "partial"}),
        ("late", [], {"status": "running", "finished_at": None}),
    ],
)
def test_it_has_only_what_slack_takes(
    reason: Literal["failed", "partial", "late"], causes: list[tuple[str, int, bool]], members: dict[str, Any]
) -> None:
    message = told(reason, *causes, **members)
    assert message.keys() == {"text", "blocks", "metadata"}
    for block in message["blocks"]:
        assert block["type"] == "section"
        assert 0 < len(block["text"]["text"]) <= 3000
    assert message["metadata"]["event_type"] == EVENT_TYPE
    for value in message["metadata"]["event_payload"].values():
        inner = value.values() if isinstance(value, dict) else [value]
        assert all(isinstance(member, str | int | float | bool) for member in inner)


def test_the_figures_are_there_for_programs() -> None:
    payload = told("partial", ("engine_timeout", 45, False), status="partial")["metadata"]["event_payload"]
    assert payload["reason"] == "partial"
    assert payload["invocation_id"] == RUN_ID
    assert payload["counts"] == COUNTS
    assert payload["failures"] == {"engine_timeout": 45}


def test_the_commonest_causes_come_first_and_the_others_are_counted() -> None:
    message = told("partial", *[(f"cause_{number}", 5 - number // 2, number > 0) for number in range(8)])
    assert message["text"].count("cause_") == MOST_CAUSES
    assert "Failures: cause_0 5, cause_1 at least 5, cause_2 at least 4, " in message["text"]
    assert f"others {COUNTS['failed'] - (5 + 5 + 4 + 4 + 3)}\n" in message["text"]


def test_nobody_is_named() -> None:
    message = told("partial", ("engine_timeout", 1, False), note=f"about {mentor_id(1)}")
    assert mentor_id(1) not in json.dumps(message)
