"""Alerts over real HTTP: signed as the standard's own library checks it; what goes wrong is named without the URL."""

from __future__ import annotations

import traceback

import pytest
from pydantic import SecretStr

from shared.errors import AlertNotSentError
from shared.webhook import ANSWER_BYTES, AlertWebhook
from tests.webhook_receiver import SIGNING_SECRET, WebhookReceiver

MESSAGE = {"text": "ein Übel: “quoted”, \u2028 and 🎉", "metadata": {"event_payload": {"counts": {"failed": 1}}}}


async def send(url: str, secret: str | None = SIGNING_SECRET, *, seconds: float = 20) -> None:
    webhook = AlertWebhook(SecretStr(url), None if secret is None else SecretStr(secret), timeout_seconds=seconds)
    await webhook.send("alert_1", MESSAGE)


async def failure(url: str, *, seconds: float = 20) -> str:
    with pytest.raises(AlertNotSentError) as caught:
        await send(url, seconds=seconds)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in ("hook-token-that-lets-you-post", "hush"))
    return caught.value.code


@pytest.mark.parametrize("secret", [SIGNING_SECRET, None], ids=["signed", "unsigned"])
async def test_a_message_arrives_as_it_was_and_its_signature_holds(secret: str | None) -> None:
    async with WebhookReceiver(secret=secret) as receiver:
        for _ in range(2):
            await send(receiver.url, secret)
    for delivery in receiver.deliveries:
        assert (delivery.message, delivery.id) == (MESSAGE, "alert_1")
        assert delivery.headers["content-type"] == "application/json"
        assert receiver.url.endswith(delivery.path)
    assert len(receiver.deliveries) == 2


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        *((200, b"ok", None), (204, b"", None), (299, b"", None), (200, b"x" * (ANSWER_BYTES + 1), None)),
        *((200, b"cut", "Content-Length: 9"), (200, b"no gzip", "Content-Length: 7\r\nContent-Encoding: gzip")),
    ],
    ids=["ok", "none", "another", "too long", "cut off", "no gzip"],
)
async def test_any_success_is_taken_for_yes_whatever_its_body(status: int, body: bytes, headers: str | None) -> None:
    async with WebhookReceiver(answers=[status], body=body, headers=headers) as receiver:
        await send(receiver.url)
    assert len(receiver.deliveries) == 1


@pytest.mark.parametrize("status", [301, 400, 410, 429, 500])
async def test_another_status_is_an_error_and_redirects_are_not_followed(status: int) -> None:
    async with WebhookReceiver(answers=[status], body=b"no_service") as receiver:
        assert await failure(receiver.url) == f"webhook_http_{status}"
    assert len(receiver.deliveries) == 1


async def test_a_receiver_that_is_silent_or_away_is_an_error() -> None:
    async with WebhookReceiver(answers=[None]) as receiver:
        assert await failure(receiver.url, seconds=0.2) == "webhook_timeout"
    assert await failure(receiver.url) == "webhook_unreachable"
    for url in ("http://127.0.0.1:99999/hush", f"http://{'a' * 70}.example/hush", "http://[::1/hush"):
        assert await failure(url) in ("webhook_bad_url", "webhook_unreachable")
