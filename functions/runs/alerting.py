"""Sends the alerts that are due, after a slice's work: what the webhook does delays nobody's evaluation.

At least once: an attempt that nobody answered may have arrived, and is made again with the same id.
"""

from __future__ import annotations

import logging
from typing import Any

from functions.runs.alert_message import compose
from functions.runs.slice import Services
from shared.alerts import Alert, Alerts
from shared.deadline import Deadline
from shared.errors import AlertNotSentError, DatabaseError
from shared.logs import log_event
from shared.webhook import AlertWebhook

# Nothing new is begun after this; there is rarely more than one.
SENDING_SECONDS = 5.0


async def send_due_alerts(services: Services, webhook: AlertWebhook) -> None:
    """Sends what is due, until something fails or the time is up; the rest is for a later slice. Raises nothing."""
    # With little patience: whoever asked for this slice is waiting, and another one comes.
    alerts = Alerts(services.slices)
    deadline = Deadline(SENDING_SECONDS)
    try:
        while deadline.remaining() > 0 and (alert := await alerts.claim()) is not None:
            error = await _send(alert, webhook, services)
            await alerts.settle(alert, error=error)
            if error is not None:
                return
    except DatabaseError as error:
        log_event("alerts_deferred", f"Alerts are left to a later slice: {error}", level=logging.WARNING)


async def _send(alert: Alert, webhook: AlertWebhook, services: Services) -> str | None:
    """Sends one and logs it; answers why it was not taken, if it was not."""
    which: dict[str, Any] = {
        "invocation_id": alert.invocation["id"],
        "slot": alert.invocation["scheduled_for"],
        "reason": alert.reason,
        "attempts": alert.attempts,
    }
    try:
        await webhook.send(alert.webhook_id, compose(alert, services.now()))
    except AlertNotSentError as error:
        log_event(
            "alert_not_sent",
            f"An alert was not taken ({error.code}); " + ("it is given up" if alert.is_last else "it is tried again"),
            level=logging.ERROR if alert.is_last else logging.WARNING,
            **which,
            error_code=error.code,
            given_up=alert.is_last,
        )
        return error.code
    log_event("alert_sent", f"An alert was sent: {alert.reason}", **which)
    return None
