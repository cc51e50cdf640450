"""A bad night is told of once, over a real webhook, by whichever slice comes; and the webhook can harm no night."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules
from tests.webhook_receiver import SIGNING_SECRET, WebhookReceiver

ALERT = b"select reason, attempts, sent_at is not null, error from scheduler.alerts"
# For the alerts, as Clockwork has it for all else that waits.
LATER = b"update scheduler.alerts set next_attempt_at = next_attempt_at - interval '2 minutes'"


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as receiver:
        yield receiver


async def start(night: Night, receiver: WebhookReceiver, **settings: str) -> FunctionProcess:
    """A function that is told where alerts go."""
    told = {
        "ALERT_WEBHOOK_URL": receiver.url,
        "ALERT_WEBHOOK_SECRET": SIGNING_SECRET,
        "ALERT_LATE_ABOVE_MINUTES": "60",
        "ENGINE_MAX_ATTEMPTS": "1",
    }
    return await night.start_function(told | settings)


async def alerts(night: Night) -> list[tuple[Any, ...]]:
    return await night.rows(ALERT)


def events(night: Night, function: FunctionProcess) -> list[str]:
    """What the function logged of alerts."""
    return [line["event"] for line in night.log_lines(function) if line["event"].startswith("alert")]


async def test_a_partial_night_is_told_of_once_with_its_figures_and_nobodys_name(
    night: Night, receiver: WebhookReceiver
) -> None:
    mentors = await night.add_mentors(20)
    night.engine.rules.append(rules.refuse_calls_with(mentors[:4]))
    function = await start(night, receiver)

    invocation = (await night.fire(function)).json()
    await night.fire(function)

    assert invocation["status"] == "partial"
    (delivery,) = receiver.deliveries
    assert delivery.id == f"alert_{invocation['id']}"
    assert delivery.told["reason"] == "partial"
    assert delivery.told["counts"] == invocation["counts"]
    assert delivery.told["failures"] == {"engine_http_422": 8}
    assert not any(user_id in str(delivery.message) for user_id in mentors)
    assert await alerts(night) == [("partial", 1, True, None)]
    assert events(night, function) == ["alert_sent"]
    await night.check_truth(invocation)


async def test_a_night_that_went_well_and_one_that_is_bearably_partial_are_not_told_of(
    night: Night, receiver: WebhookReceiver
) -> None:
    mentors = await night.add_mentors(20)
    night.engine.rules.append(rules.refuse_calls_with(mentors[:1]))
    function = await start(night, receiver, ALERT_PARTIAL_ABOVE="0.05")

    invocation = (await night.fire(function)).json()

    assert invocation["status"] == "partial"
    assert receiver.deliveries == []
    assert await alerts(night) == []


async def test_a_night_that_reads_nobody_is_told_of(night: Night, receiver: WebhookReceiver) -> None:
    function = await start(night, receiver)
    await night.fire(function)
    (delivery,) = receiver.deliveries
    assert (delivery.told["reason"], delivery.told["error"]) == ("failed", "no_active_mentors")


async def test_a_night_that_was_caught_up_late_is_told_of(night: Night, receiver: WebhookReceiver) -> None:
    await night.add_mentors(3)
    function = await start(night, receiver, ALERT_LATE_ABOVE_MINUTES="1")
    night_ended = (await night.fire(function)).json()
    (delivery,) = receiver.deliveries
    assert (delivery.told["reason"], delivery.told["status"]) == ("late", "succeeded")
    assert night_ended["status"] == "succeeded"


async def test_a_night_that_expires_without_a_slice_is_told_of_by_one_that_is_asked_for(
    night: Night, receiver: WebhookReceiver
) -> None:
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


async def test_a_night_that_does_not_end_is_told_of_while_it_is_open(night: Night, receiver: WebhookReceiver) -> None:
    await night.add_mentors(3)
    night.engine.rules.append(rules.respond(503))
    function = await start(night, receiver)
    await night.fire(function)
    clockwork = Clockwork(night)
    await clockwork.start()

    await night.execute(
        b"update public.scheduler_invocations set started_at = now() - interval '61 minutes',"
        b" scheduled_for = now() - interval '61 minutes'"
    )
    await clockwork.tick()
    await night.execute(LATER)
    await clockwork.tick()
    await receiver.until_delivered()
    await clockwork.until_quiet()

    (delivery,) = receiver.deliveries
    assert (delivery.told["reason"], delivery.told["status"]) == ("late", "running")


@pytest.mark.parametrize("answer", [None, 500, 404], ids=["hangs", "500", "404"])
async def test_a_webhook_that_fails_changes_nothing_of_the_night_and_is_tried_again_until_it_takes_it(
    night: Night, receiver: WebhookReceiver, answer: int | None
) -> None:
    receiver.answers += [answer, 500]
    function = await start(night, receiver)
    clockwork = Clockwork(night)
    await clockwork.start()

    answered = await night.fire(function)

    assert answered.status_code == 200
    assert answered.json()["status"] == "failed"
    code = "webhook_timeout" if answer is None else f"webhook_http_{answer}"
    assert await alerts(night) == [("failed", 1, False, code)]
    for attempt in (2, 3):
        await clockwork.tick()
        await clockwork.until_quiet()
        assert len(receiver.deliveries) == attempt - 1, "not before its time"
        await night.execute(LATER)
        await night.execute(LATER)
        await clockwork.tick()
        await receiver.until_delivered(attempt)
        await clockwork.until_quiet()
    assert len({delivery.id for delivery in receiver.deliveries}) == 1
    assert await alerts(night) == [("failed", 3, True, None)]
    assert events(night, function) == ["alert_not_sent", "alert_not_sent", "alert_sent"]


async def test_the_run_has_ended_and_the_next_slice_was_asked_for_before_the_webhook_is_called(
    night: Night, receiver: WebhookReceiver
) -> None:
    receiver.answers.append(500)
    function = await start(night, receiver)

    answered = await night.fire(function)

    order = [line["event"] for line in night.log_lines(function)]
    assert order.index("slice_ended") < order.index("alert_not_sent")
    assert answered.json()["status"] == "failed"


async def test_a_function_that_is_killed_while_it_sends_leaves_the_alert_to_another(
    night: Night, receiver: WebhookReceiver
) -> None:
    receiver.answers.append(None)
    function = await start(night, receiver)
    clockwork = Clockwork(night)
    await clockwork.start()
    await night.execute(b"update scheduler.settings set next_due_at = null")

    await clockwork.tick()
    await receiver.until_delivered()
    await function.kill()
    await clockwork.until_quiet()
    await function.until_ready()
    await night.execute(LATER)
    await night.execute(b"update scheduler.dispatches set ended_at = now() where ended_at is null")
    await clockwork.tick()
    await receiver.until_delivered(2)
    await clockwork.until_quiet()

    first, second = receiver.deliveries
    assert first.id == second.id
    assert await alerts(night) == [("failed", 2, True, None)]


async def test_slices_that_end_side_by_side_send_one_alert(night: Night, receiver: WebhookReceiver) -> None:
    mentors = await night.add_mentors(60)
    night.engine.rules.append(rules.refuse_calls_with(mentors))
    settings = {"EVALUATION_BATCH_SIZE": "5", "ENGINE_USERS_PER_CALL": "1"}
    functions = [await start(night, receiver, **settings) for _ in range(2)]

    await asyncio.gather(*(night.fire(function) for function in functions for _ in range(3)))
    await asyncio.gather(*(night.fire(function) for function in functions))

    assert len(receiver.deliveries) == 1
    assert await alerts(night) == [("failed", 1, True, None)]


async def test_without_a_webhook_nothing_is_raised(night: Night) -> None:
    function = await night.start_function()
    assert (await night.fire(function)).json()["status"] == "failed"
    assert await alerts(night) == []


async def test_neither_the_url_nor_the_secret_is_in_the_database(night: Night, receiver: WebhookReceiver) -> None:
    """That they are in no log is checked of every test (tests/secret_scan.py)."""
    receiver.answers.append(500)
    function = await start(night, receiver)
    await night.fire(function)
    found = await night.rows(
        b"select i::text from public.scheduler_invocations as i union all select a::text from scheduler.alerts as a"
        b" union all select s::text from scheduler.settings as s"
    )
    assert len(found) == 3
    for secret in ("hook-token-that-lets-you-post", SIGNING_SECRET):
        assert secret not in str(found)
