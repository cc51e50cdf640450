"""A run that ended badly is alerted once, over a real webhook, by whichever slice comes; no webhook harms a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.faults.time_control import TimeControl
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules
from tests.webhook_receiver import SIGNING_SECRET, WebhookReceiver

# For the alerts, as TimeControl has it for all else that waits.
LATER = b"update scheduler.alerts set next_attempt_at = next_attempt_at - interval '4 minutes'"
WHERE_A_SECRET_MAY_NOT_BE = (
    b"select i::text from public.scheduler_invocations as i union all select a::text from scheduler.alerts as a"
    b" union all select s::text from scheduler.settings as s"
)


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as receiver:
        yield receiver


async def alerts(harness: Harness) -> list[tuple[Any, ...]]:
    return await harness.rows(b"select reason, attempts, sent_at is not null, error from scheduler.alerts")


async def test_an_alert_is_repeated_until_the_webhook_accepts_it(harness: Harness, receiver: WebhookReceiver) -> None:
    mentors = await harness.add_mentors(20)
    harness.engine.rules.append(rules.refuse_calls_with(mentors[:4]))
    receiver.answers.append(500)
    webhook = {"ALERT_WEBHOOK_URL": receiver.url, "ALERT_WEBHOOK_SECRET": SIGNING_SECRET}
    function = await harness.start_function(webhook | {"ENGINE_MAX_ATTEMPTS": "1"})
    time_control = TimeControl(harness)
    await time_control.start()

    invocation = await harness.run(function)
    await harness.fire(function)
    await time_control.tick_and_wait()

    assert invocation["status"] == "partial"
    assert await alerts(harness) == [("partial", 1, False, "webhook_http_500")]
    assert len(receiver.deliveries) == 1, "it was sent before its time"
    events = [line["event"] for line in harness.log_lines(function)]
    assert events.index("slice_ended") < events.index("alert_not_sent"), "the run waited for the webhook"
    await harness.execute(LATER)
    await time_control.tick()
    await receiver.until_delivered(2)
    await time_control.until_quiet()
    await harness.fire(function)

    tested = await Caller(harness, function).call("POST", "/api/v1/test-alert")
    assert (tested.json(), receiver.deliveries[2].payload) == ({"delivered": True}, {"reason": "test"})

    first, second, _ = receiver.deliveries
    assert first.id == second.id == f"alert_{invocation['id']}"
    assert second.payload["reason"] == "partial"
    assert second.payload["counts"] == invocation["counts"]
    assert second.payload["failures"] == {"engine_http_422": 8}
    assert not any(user_id in str(second.message) for user_id in mentors)
    assert await alerts(harness) == [("partial", 2, True, None)]
    found = str(await harness.rows(WHERE_A_SECRET_MAY_NOT_BE))
    for secret in ("hook-token-that-lets-you-post", SIGNING_SECRET):
        assert secret not in found
    await harness.check_truth(invocation)
