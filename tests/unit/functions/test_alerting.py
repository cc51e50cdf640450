"""When a slice looks for alerts, how many it sends, what they say, and that nothing of it fails the slice."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from functions.runs.alerting import EVENT_TYPE, MAX_CAUSES, compose
from shared.alerts import Alert
from shared.errors import DatabaseRefusedError, DatabaseUnavailableError
from shared.invocation import Cause, InvocationSummary
from shared.post_client import HttpError, HttpResponse, HttpTimeoutError
from shared.webhook import AlertWebhook
from tests.unit.fake_post_client import FakePostClient, reply
from tests.unit.functions.fake_sql import RUN_ID, SLOT, mentor_id, slot_answer, summarized
from tests.unit.functions.http_function import ADMIN, Function, problem_in
from tests.unit.log_lines import LogLines

Reason = Literal["failed", "partial", "late", "summary"]
TEST = "/api/v1/test-alert"


def ids_sent(webhook: FakePostClient) -> list[str]:
    return [posted.headers["webhook-id"] for posted in webhook.posted]


def function_with(webhook: FakePostClient | None, *, due: bool = True, last: bool = False) -> Function:
    """A function where two alerts wait, for the last time or not, and nothing else is to be done."""
    function = Function()
    if webhook is not None:
        hook = AlertWebhook(SecretStr("http://hook"), None, connect=webhook.connect)
        function.services = replace(function.services, webhook=hook)
    about: dict[str, Any] = {"invocation": summarized(status="failed"), "reason": "failed", "failures": []}
    left = [about | {"webhook_id": f"alert_{number}", "attempts": 1, "last": last} for number in (1, 2)]
    function.sql.answers["scheduler_open_slot"] = slot_answer(alert_due=due)
    function.sql.answers["scheduler_claim_alert"] = lambda _: left.pop(0) if left else None
    return function


@pytest.mark.parametrize(("webhook", "due"), [(FakePostClient(), False), (None, True)])
async def test_without_need_no_alert_is_claimed(log: LogLines, webhook: FakePostClient | None, due: bool) -> None:
    function = function_with(webhook, due=due)
    await function.start()
    assert function.sql.called() == ["scheduler_open_slot"]


async def test_all_due_alerts_are_sent_and_settled(log: LogLines) -> None:
    webhook = FakePostClient(reply(200))
    function = function_with(webhook)
    assert ((await function.start()).status_code, ids_sent(webhook)) == (200, ["alert_1", "alert_2"])
    each = ["scheduler_claim_alert", "scheduler_settle_alert"]
    assert function.sql.called()[1:] == [*each, *each, "scheduler_claim_alert"]
    settled = [asked for name, asked in function.sql.database.called if name == "scheduler_settle_alert"]
    assert settled == [{"invocation_id": RUN_ID, "error": None}] * 2
    assert [line["reason"] for line in log.of("alert_sent")] == ["failed", "failed"]


@pytest.mark.parametrize(("last", "severity"), [(False, "WARNING"), (True, "ERROR")])
async def test_after_a_failure_other_alerts_wait_for_a_later_slice(log: LogLines, last: bool, severity: str) -> None:
    webhook, error = FakePostClient(reply(503)), "webhook_http_503"
    function = function_with(webhook, last=last)
    assert ((await function.start()).status_code, ids_sent(webhook)) == (200, ["alert_1"])
    assert function.sql.arguments_of("scheduler_settle_alert") == {"invocation_id": RUN_ID, "error": error}
    (line,) = log.of("alert_not_sent")
    assert (line["severity"], line["given_up"], line["error_code"]) == (severity, last, error)


@pytest.mark.parametrize("at", ["scheduler_claim_alert", "scheduler_settle_alert"])
@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), DatabaseRefusedError("42883", "no function")])
async def test_a_database_error_about_alerts_fails_no_slice(log: LogLines, at: str, error: Exception) -> None:
    function = function_with(FakePostClient(reply(200)))
    function.sql.answers[at] = error
    assert (await function.start()).status_code == 200
    assert len(log.of("alerts_deferred")) == 1


COUNTS = {"mentors": 500, "mentors_skipped": 0, "batches": 5, "batches_done": 5, "evaluations": 1000}
COUNTS |= {"triggered": 100, "not_triggered": 800, "suppressed": 40, "skipped": 0, "failed": 45, "not_evaluated": 15}


def message(reason: Reason, *causes: tuple[str, int, bool], zone: str = "UTC", **members: Any) -> dict[str, Any]:
    """About a run with these causes of failures: code, count, whether the count is a lower bound."""
    failures = [Cause(code=code, count=count, is_lower_bound=at_least) for code, count, at_least in causes]
    invocation = InvocationSummary.model_validate(summarized(**({"counts": COUNTS} | members)))
    now = datetime.fromisoformat(SLOT) + timedelta(hours=2, minutes=1)
    return compose(Alert(f"alert_{RUN_ID}", reason, 1, False, invocation, failures), now, ZoneInfo(zone))


FIGURES = "500 mentors, 1000 evaluations: 940 done (100 triggered), 60 not (45 failed, 15 not evaluated)"
LAST_ALERT = "It expires at 23 Nov 22:00 UTC; no other alert follows for it."
ENDED_LATE = {"finished_at": "2026-11-23T05:07:30+00:00"}
OPEN = {"status": "running", "finished_at": None, "error_code": "engine_unavailable"}


@pytest.mark.parametrize(
    ("reason", "members", "headline", "line"),
    [
        ("failed", {"status": "failed", "error_code": "no_active_mentors"}, "failed", "Reason: no_active_mentors"),
        ("partial", {"status": "partial"}, "is partial: 6.0% of its evaluations failed or did not take place", FIGURES),
        ("late", ENDED_LATE, "was late: success 3 h 7 min after its slot", f"Invocation: {RUN_ID}"),
        ("late", OPEN, "is late: still open 2 h 1 min after its slot", LAST_ALERT),
    ],
)
def test_an_alert_says_what_happened(reason: Reason, members: dict[str, Any], headline: str, line: str) -> None:
    first, *others = message(reason, **members)["text"].split("\n")
    assert first == f"The scheduled run of 23 Nov 02:00 UTC {headline}"
    assert line in others


FINE = {"counts": COUNTS | {"failed": 0, "not_evaluated": 0, "triggered": 1318}, "users_evaluated": 12412}
ODD_ROWS = {"no_scenario_applies": 9, "user_id_missing": 2, "invalid_segments": 3}


@pytest.mark.parametrize(
    ("members", "figures", "lines"),
    [
        (
            FINE | {"duration_ms": 192_400},
            "12,412 mentors evaluated, 1,318 notifications, 40 suppressed, 0 failed, in 3 min 12 s",
            ["Nothing needs a look."],
        ),
        (
            {"duration_ms": 7_500_000, "users_evaluated": 0, "skip_reasons": ODD_ROWS, "lateness_seconds": 301},
            "0 mentors evaluated, 100 notifications, 40 suppressed, 45 failed, in 2 h 5 min",
            [
                "45 of 1,000 evaluations failed",
                "15 evaluations did not take place",
                "3 rows of mentors have segments that cannot be used",
                "2 rows of mentors have no user id",
                "It began 5 min 1 s after its slot",
                "No mentor was evaluated",
                "Failures: no_device 45",
            ],
        ),
    ],
)
def test_a_summary_has_the_figures_and_what_needs_a_look(
    members: dict[str, Any], figures: str, lines: list[str]
) -> None:
    causes = [("no_device", 45, False)] if "counts" not in members else []
    first, *others = message("summary", *causes, zone="Europe/Berlin", **members)["text"].split("\n")
    assert first == f"Scheduled run of 23 Nov 03:00 Europe/Berlin: {figures}"
    assert others == [*lines, f"Invocation: {RUN_ID}"]


def test_an_alert_names_the_commonest_causes_and_counts_the_others() -> None:
    said = message("partial", *[(f"cause_{number}", 5 - number // 2, number > 0) for number in range(8)])
    causes = "cause_0 5, cause_1 at least 5, cause_2 at least 4, cause_3 at least 4, cause_4 at least 3"
    assert f"Failures: {causes}, others {COUNTS['failed'] - (5 + 5 + 4 + 4 + 3)}" in said["text"].split("\n")


ENDED_UNREAD = {"status": "failed", "started_at": None, "lateness_seconds": None, "error_code": "expired"}


@pytest.mark.parametrize(
    ("reason", "causes", "members"),
    [("failed", 0, ENDED_UNREAD), ("partial", 20, {}), ("late", 0, OPEN), ("summary", 5, {})],
)
def test_an_alert_has_only_what_slack_takes_and_no_user(reason: Reason, causes: int, members: dict[str, Any]) -> None:
    failures = [(f"cause_{number}", 2, True) for number in range(causes)]
    said = message(reason, *failures, note=f"about {mentor_id(1)}", **members)
    assert mentor_id(1) not in json.dumps(said)
    assert said.keys() == {"text", "blocks", "metadata"}
    assert all(0 < len(block["text"]["text"]) <= 3000 for block in said["blocks"])
    payload = said["metadata"]["event_payload"]
    shown = {"reason": reason, "invocation_id": RUN_ID, "counts": COUNTS, "scheduled_for": "2026-11-23T02:00:00Z"}
    shown["failures"] = {code: count for code, count, _ in failures[:MAX_CAUSES]}
    assert payload.items() >= shown.items()
    assert (said["metadata"]["event_type"], payload.get("error_code")) == (EVENT_TYPE, members.get("error_code"))
    for value in payload.values():
        inner = value.values() if isinstance(value, dict) else [value]
        assert all(isinstance(member, str | int | float | bool) for member in inner)


# A test alert


async def test_a_test_alert_is_sent_at_once(log: LogLines) -> None:
    webhook = FakePostClient(reply(200))
    function = function_with(webhook)
    answers = [await function.http.post(TEST, headers=ADMIN) for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"delivered": True})] * 2
    first, second = ids_sent(webhook)
    assert first.startswith("test_")
    assert first != second
    sent = json.loads(webhook.posted[0].content)
    assert sent["text"] == "A test alert\nAlerts about scheduled runs with a problem arrive here."
    assert sent.keys() == {"text", "blocks", "metadata"}
    assert [line["triggered_by"] for line in log.of("test_alert_sent")] == ["anna"] * 2
    assert function.sql.called() == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply(404, content=b"hush"), "webhook_http_404"),
        (HttpTimeoutError(), "webhook_timeout"),
        (HttpError("hush"), "webhook_unreachable"),
        (ValueError("http://hook/hush"), "webhook_bad_url"),
    ],
)
async def test_a_test_alert_that_fails_says_why(log: LogLines, answer: HttpResponse | Exception, code: str) -> None:
    function = function_with(FakePostClient(answer))
    problem = problem_in(await function.http.post(TEST, headers=ADMIN), 502, "alert_not_delivered")
    assert problem["detail"] == f"the webhook of ALERT_WEBHOOK_URL did not take the message: {code}"
    (line,) = log.of("test_alert_not_sent")
    assert (line["error_code"], line["triggered_by"]) == (code, "anna")
    assert "hook/" not in log.text


async def test_a_test_alert_needs_a_webhook(log: LogLines) -> None:
    problem_in(await function_with(None).http.post(TEST, headers=ADMIN), 409, "no_webhook")
