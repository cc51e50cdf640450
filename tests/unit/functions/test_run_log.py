"""The published lines about runs and failed mentors: their names, members and kinds of failure."""

from __future__ import annotations

from typing import Any

import pytest

from functions.runs.run_log import log_failed_users
from shared.evaluations import EvaluationResult
from tests.unit.functions.fake_sql import mentor_id, slot_answer, summarized
from tests.unit.functions.http_function import Function
from tests.unit.log_lines import LogLines

ANSWERED = ("engine_http_422", "engine_http_504", "engine_bad_answer", "engine_missing_result", "no_device")


@pytest.mark.parametrize(
    ("code", "error_type"),
    [
        ("engine_unreachable", "network_error"),
        *((code, "timeout_error") for code in ("engine_timeout", "time_budget_exceeded", "outcome_unknown")),
        ("worker_lost", "database_error"),
        *((code, "evaluation_logic_error") for code in ANSWERED),
    ],
)
def test_a_failure_has_the_kind_of_its_cause(log: LogLines, code: str, error_type: str) -> None:
    log_failed_users([EvaluationResult(mentor_id(1), "milestone", "failed", 3, code)])
    (line,) = log.of("mentor_evaluation_error")
    assert (line["peer_mentor_id"], line["error_type"], line["error_code"]) == (mentor_id(1), error_type, code)


@pytest.mark.parametrize(
    ("status", "event", "severity"),
    [
        ("success", "scheduler_run_completed", "INFO"),
        ("partial", "scheduler_run_completed", "WARNING"),
        ("cancelled", "scheduler_run_completed", "WARNING"),
        ("failed", "scheduler_run_failed", "WARNING"),
    ],
)
async def test_a_slice_logs_runs_that_ended_before_it(log: LogLines, status: str, event: str, severity: str) -> None:
    """Even one that its caller named wrongly: no other slice is given them."""
    ended = summarized(status=status, trigger="manual", triggered_by="ann", error_code="expired", reason="Ann Miller")
    ended |= {"users_evaluated": 8, "notifications_dispatched": 3, "pages_processed": 2, "lateness_seconds": None}
    ended["counts"] |= {"mentors": 10, "triggered": 4, "suppressed": 1, "failed": 5}
    causes = [{"code": "engine_timeout", "count": 3, "is_lower_bound": False}]
    function = Function()
    given = slot_answer(not_a_slot=True, ended=[{"invocation": ended, "failures": causes}] * 2)
    function.sql.answers["scheduler_open_slot"] = given
    assert (await function.start({"scheduled_for": "2020-01-01T00:00:00Z"})).status_code == 422
    line, _ = log.of(event)
    members: dict[str, Any] = {"status": status, "trigger": "manual", "triggered_by": "ann", "error_code": "expired"}
    members |= {"total_active_mentors": 10, "total_evaluated": 8, "total_dispatched": 3, "total_suppressed": 1}
    members |= {"total_errors": 5, "completed": True, "pages_processed": 2, "counts": ended["counts"]}
    members |= {"failures": {"engine_timeout": 3}, "other_failures": 2, "severity": severity}
    assert line == line | members
    assert "Miller" not in log.text


async def test_a_skipped_slot_is_not_logged_as_started(log: LogLines) -> None:
    skipped = summarized(status="skipped", error_code="overlap", started_at=None, lateness_seconds=None)
    function = Function()
    function.sql.answers["scheduler_open_slot"] = slot_answer(opened=True, invocation=skipped)
    await function.start()
    assert [(line["event"], line["severity"]) for line in log.all()] == [("scheduler_run_skipped", "WARNING")]
