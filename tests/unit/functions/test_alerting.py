"""When a slice looks for alerts, how many it sends, and that nothing of it fails the slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from shared.alert_webhook import AlertWebhook
from shared.errors import DatabaseRefusedError, DatabaseUnavailableError
from shared.post_client import HttpAnswer
from tests.unit.functions.http_function import Function
from tests.unit.functions.pretend_sql import RUN_ID, slot_answer, summarized
from tests.unit.log_lines import LogLines


class PretendWebhook:
    """Takes what it is sent, with these statuses and then with 200."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.ids: list[str] = []

    def connect(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> PretendWebhook:
        return self

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        self.ids.append(headers["webhook-id"])
        return HttpAnswer(self._statuses.pop(0) if self._statuses else 200, {})


def waiting(number: int, *, last: bool = False) -> dict[str, Any]:
    """An alert as the database hands it out."""
    return {
        "webhook_id": f"alert_{number}",
        "attempts": 1,
        "last": last,
        "reason": "failed",
        "invocation": summarized(status="failed"),
        "failures": [],
    }


def function_with(webhook: PretendWebhook, *alerts: dict[str, Any], due: bool = True) -> Function:
    """A function with a webhook, where these alerts wait and nothing else is to be done."""
    function = Function()
    function.work = replace(
        function.work, webhook=AlertWebhook(SecretStr("http://hook"), None, connect=webhook.connect)
    )
    left = [*alerts]
    function.sql.answers["scheduler_open_slot"] = slot_answer(alert_due=due)
    function.sql.answers["scheduler_claim_alert"] = lambda _: left.pop(0) if left else None
    return function


async def test_a_slice_that_finds_nothing_to_do_is_one_round_trip_with_a_webhook_too(log: LogLines) -> None:
    function = function_with(PretendWebhook(), waiting(1), due=False)
    await function.start()
    assert function.sql.called() == ["scheduler_open_slot"]


async def test_where_nobody_is_to_be_told_nobody_looks_for_alerts(log: LogLines) -> None:
    function = function_with(PretendWebhook(), waiting(1))
    function.work = replace(function.work, webhook=None)
    await function.start()
    assert function.sql.called() == ["scheduler_open_slot"]


async def test_all_that_is_due_is_sent_and_settled(log: LogLines) -> None:
    webhook = PretendWebhook()
    function = function_with(webhook, waiting(1), waiting(2))
    assert (await function.start()).status_code == 200
    assert webhook.ids == ["alert_1", "alert_2"]
    assert function.sql.called()[1:] == [
        *["scheduler_claim_alert", "scheduler_settle_alert"] * 2,
        "scheduler_claim_alert",
    ]
    settled = [asked for name, asked in function.sql.database.called if name == "scheduler_settle_alert"]
    assert settled == [{"invocation_id": RUN_ID, "error": None}] * 2
    assert [line["reason"] for line in log.of("alert_sent")] == ["failed", "failed"]


@pytest.mark.parametrize(("last", "severity"), [(False, "WARNING"), (True, "ERROR")])
async def test_after_a_failure_the_others_are_left_to_a_later_slice(log: LogLines, last: bool, severity: str) -> None:
    webhook = PretendWebhook(503)
    function = function_with(webhook, waiting(1, last=last), waiting(2))
    assert (await function.start()).status_code == 200
    assert webhook.ids == ["alert_1"]
    assert function.sql.arguments_of("scheduler_settle_alert") == {"invocation_id": RUN_ID, "error": "webhook_http_503"}
    (line,) = log.of("alert_not_sent")
    assert (line["severity"], line["given_up"], line["error_code"]) == (severity, last, "webhook_http_503")


@pytest.mark.parametrize("at", ["scheduler_claim_alert", "scheduler_settle_alert"])
@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), DatabaseRefusedError("42883", "no function")])
async def test_a_database_that_does_not_answer_about_alerts_fails_no_slice(
    log: LogLines, at: str, error: Exception
) -> None:
    function = function_with(PretendWebhook(), waiting(1))
    function.sql.answers[at] = error
    answer: httpx.Response = await function.start()
    assert answer.status_code == 200
    assert len(log.of("alerts_put_off")) == 1
