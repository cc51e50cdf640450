"""A run that ended badly is alerted once, over a real webhook, by whichever slice comes; no webhook harms a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules
from tests.webhook_receiver import SIGNING_SECRET, WebhookReceiver

# For the alerts, as Clockwork has it for all else that waits.
LATER = b"update scheduler.alerts set next_attempt_at = next_attempt_at - interval '4 minutes'"
WHERE_A_SECRET_MAY_NOT_BE = (
    b"select i::text from public.scheduler_invocations as i union all select a::text from scheduler.alerts as a"
    b" union all select s::text from scheduler.settings as s"
)


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as receiver:
        yield receiver


async def start(night: Night, receiver: WebhookReceiver) -> FunctionProcess:
    return await night.start_function(
        {
            "ALERT_WEBHOOK_URL": receiver.url,
            "ALERT_WEBHOOK_SECRET": SIGNING_SECRET,
            "ALERT_LATE_ABOVE_MINUTES": "60",
            "ENGINE_MAX_ATTEMPTS": "1",
        }
    )


async def alerts(night: Night) -> list[tuple[Any, ...]]:
    return await night.rows(b"select reason, attempts, sent_at is not null, error from scheduler.alerts")


async def test_an_alert_is_repeated_until_the_webhook_takes_it(night: Night, receiver: WebhookReceiver) -> None:
    mentors = await night.add_mentors(20)
    night.engine.rules.append(rules.refuse_calls_with(mentors[:4]))
    receiver.answers.append(500)
    function = await start(night, receiver)
    clockwork = Clockwork(night)
    await clockwork.start()

    invocation = (await night.fire(function)).json()
    await night.fire(function)
    await clockwork.tick_and_wait()

    assert invocation["status"] == "partial"
    assert await alerts(night) == [("partial", 1, False, "webhook_http_500")]
    assert len(receiver.deliveries) == 1, "it was sent before its time"
    events = [line["event"] for line in night.log_lines(function)]
    assert events.index("slice_ended") < events.index("alert_not_sent"), "the run waited for the webhook"
    await night.execute(LATER)
    await clockwork.tick()
    await receiver.until_delivered(2)
    await clockwork.until_quiet()
    await night.fire(function)

    first, second = receiver.deliveries
    assert first.id == second.id == f"alert_{invocation['id']}"
    assert second.told["reason"] == "partial"
    assert second.told["counts"] == invocation["counts"]
    assert second.told["failures"] == {"engine_http_422": 8}
    assert not any(user_id in str(second.message) for user_id in mentors)
    assert await alerts(night) == [("partial", 2, True, None)]
    found = str(await night.rows(WHERE_A_SECRET_MAY_NOT_BE))
    for secret in ("hook-token-that-lets-you-post", SIGNING_SECRET):
        assert secret not in found
    await night.check_truth(invocation)


async def test_a_run_that_expires_without_a_slice_is_alerted(night: Night, receiver: WebhookReceiver) -> None:
    await night.add_mentors(3)
    night.engine.rules.append(rules.respond(503))
    function = await start(night, receiver)
    await night.fire(function)
    assert receiver.deliveries == []
    clockwork = Clockwork(night)
    await clockwork.start()

    await night.execute(b"update public.scheduler_invocations set expires_at = now() - interval '1 second'")
    await clockwork.tick()
    await night.execute(LATER)
    await clockwork.tick()
    await receiver.until_delivered()
    await clockwork.until_quiet()

    assert [delivery.told["error"] for delivery in receiver.deliveries] == ["engine_unavailable"]
    assert await alerts(night) == [("failed", 1, True, None)]
