"""Alerts over real HTTP: signed as the standard's own library checks it; what goes wrong is named without the URL."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from standardwebhooks import WebhookVerificationError

from shared.alert_webhook import ANSWER_BYTES, AlertWebhook
from shared.errors import AlertNotSentError
from tests.webhook_receiver import SIGNING_SECRET, WebhookReceiver

MESSAGE = {"text": "ein Übel: “quoted”, \u2028 and 🎉", "metadata": {"event_payload": {"counts": {"failed": 1}}}}


def webhook_to(url: str, secret: str | None = SIGNING_SECRET, *, minutes_off: int = 0) -> AlertWebhook:
    return AlertWebhook(
        SecretStr(url),
        None if secret is None else SecretStr(secret),
        now=lambda: datetime.now(UTC) + timedelta(minutes=minutes_off),
        timeout_seconds=0.2,
    )


async def failure(url: str) -> AlertNotSentError:
    with pytest.raises(AlertNotSentError) as caught:
        await webhook_to(url).send("alert_1", MESSAGE)
    return caught.value


async def test_a_message_arrives_as_it_was_and_its_signature_holds() -> None:
    async with WebhookReceiver() as receiver:
        await webhook_to(receiver.url).send("alert_1", MESSAGE)
    (delivery,) = receiver.deliveries
    assert delivery.message == MESSAGE
    assert delivery.id == "alert_1"
    assert delivery.headers["content-type"] == "application/json"
    assert receiver.url.endswith(delivery.path)


async def test_the_same_message_sent_again_has_the_same_id() -> None:
    async with WebhookReceiver() as receiver:
        for _ in range(2):
            await webhook_to(receiver.url).send("alert_1", MESSAGE)
    assert [delivery.id for delivery in receiver.deliveries] == ["alert_1", "alert_1"]


async def test_without_a_secret_nothing_is_signed() -> None:
    async with WebhookReceiver(secret=None) as receiver:
        await webhook_to(receiver.url, None).send("alert_1", MESSAGE)
    assert receiver.deliveries[0].message == MESSAGE


@pytest.mark.parametrize(
    ("secret", "minutes_off"),
    [("whsec_b3RoZXIgc2VjcmV0IG90aGVyIHNlY3JldA==", 0), (SIGNING_SECRET, 10)],
    ids=["another secret", "another time"],
)
async def test_the_receiver_of_these_tests_takes_no_signature_that_does_not_hold(secret: str, minutes_off: int) -> None:
    receiver = WebhookReceiver()
    with pytest.RaisesGroup(WebhookVerificationError):
        async with receiver:
            await webhook_to(receiver.url, secret, minutes_off=minutes_off).send("alert_1", MESSAGE)
    assert receiver.deliveries == []


@pytest.mark.parametrize("status", [200, 202, 204, 299])
async def test_whatever_says_yes_is_taken_for_yes(status: int) -> None:
    async with WebhookReceiver(answers=[status], body=b"" if status == 204 else b"ok") as receiver:
        await webhook_to(receiver.url).send("alert_1", MESSAGE)


@pytest.mark.parametrize("status", [301, 302, 400, 404, 410, 429, 500, 503])
async def test_whatever_does_not_is_an_error_with_its_status(status: int) -> None:
    """A redirect among them: what is sent is meant for this address."""
    async with WebhookReceiver(answers=[status], body=b"no_service") as receiver:
        assert (await failure(receiver.url)).code == f"webhook_http_{status}"


async def test_no_answer_is_waited_for_only_so_long() -> None:
    async with WebhookReceiver(answers=[None]) as receiver:
        assert (await failure(receiver.url)).code == "webhook_timeout"


async def test_what_took_a_message_took_it_whatever_else_it_answers() -> None:
    async with WebhookReceiver(body=b"x" * (ANSWER_BYTES + 1)) as receiver:
        await webhook_to(receiver.url).send("alert_1", MESSAGE)
    assert len(receiver.deliveries) == 1


async def test_nobody_at_the_address_is_an_error_that_does_not_show_it() -> None:
    async with WebhookReceiver() as receiver:
        url = receiver.url
    error = await failure(url)
    assert error.code == "webhook_unreachable"
    shown = "".join(traceback.format_exception(error))
    assert "hook-token-that-lets-you-post" not in shown


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/hush", f"http://{'a' * 70}.example/hush", "http://[::1/hush"])
async def test_a_url_that_leads_nowhere_is_an_error_like_others(url: str) -> None:
    error = await failure(url)
    assert error.code in ("webhook_bad_url", "webhook_unreachable")
    assert "hush" not in "".join(traceback.format_exception(error))
