"""The published lines about runs and failed mentors: their names, members and kinds of failure."""

from __future__ import annotations

from typing import Any

import pytest

from functions.runs.run_log import log_failed_users
from shared.evaluations import EvaluationResult
from tests.unit.functions.fake_sql import mentor_id, slot_answer, summarized
from tests.unit.functions.http_function import Function
from tests.unit.log_lines import LogLines

KINDS = {
    "network_error": ["engine_unreachable"],
    "timeout_error": ["engine_timeout", "time_budget_exceeded", "outcome_unknown"],
    "evaluation_logic_error": ["engine_http_422", "engine_http_504", "engine_bad_answer", "no_device"],
    "database_error": ["worker_lost"],
}


@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, codes in KINDS.items() for code in codes])
def test_a_failure_has_the_kind_of_its_cause(log: LogLines, kind: str, code: str) -> None:
    log_failed_users([EvaluationResult(mentor_id(1), "milestone", "failed", 3, code)])
    (line,) = log.of("mentor_evaluation_error")
    assert (line["peer_mentor_id"], line["error_type"], line["error_code"]) == (mentor_id(1), kind, code)


@pytest.mark.parametrize(
    ("status", "event", "severity"),
    [
        ("success", "completed", "INFO"),
        *((status, "completed", "WARNING") for status in ("partial", "cancelled")),
        ("failed", "failed", "WARNING"),
    ],
)
async def test_a_slice_logs_runs_that_ended_before_it(log: LogLines, status: str, event: str, severity: str) -> None:
    """Even one whose caller names no slot: no other slice is given them."""
    same: dict[str, Any] = {"status": status, "trigger": "manual", "triggered_by": "ann", "error_code": "expired"}
    same |= {"pages_processed": 2}
    ended = summarized(users_evaluated=8, notifications_dispatched=3, lateness_seconds=None, **same)
    ended["counts"] |= {"mentors": 10, "triggered": 4, "suppressed": 1, "failed": 5}
    about = {"invocation": ended, "failures": [{"code": "engine_timeout", "count": 3, "is_lower_bound": False}]}
    about["ended_by"] = "berit"
    function = Function()
    function.sql.answers["scheduler_open_slot"] = slot_answer(not_a_slot=True, ended=[about, about])
    assert (await function.start({"scheduled_for": "2020-01-01T00:00:00Z"})).status_code == 422
    line, _ = log.of(f"scheduler_run_{event}")
    totals = {"active_mentors": 10, "evaluated": 8, "dispatched": 3, "suppressed": 1, "errors": 5}
    same |= {f"total_{name}": total for name, total in totals.items()} | {"completed": True}
    same |= {
        "ended_by": "berit",
        "failures": {"engine_timeout": 3},
        "other_failures": 2,
        "counts": ended["counts"],
        "severity": severity,
    }
    assert line == line | same
