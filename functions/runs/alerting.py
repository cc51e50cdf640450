"""Alert delivery, after a slice's work: a slow webhook delays no evaluation.

At least once: an attempt without an answer may have arrived, and is repeated with the same id.
"""

from __future__ import annotations

import logging
from typing import Any

from functions.runs.alert_message import compose
from functions.runs.services import Services
from shared.alerts import Alert, claim_alert, settle_alert
from shared.deadline import Deadline
from shared.errors import AlertNotSentError, DatabaseError
from shared.logs import log_event
from shared.webhook import AlertWebhook

# No attempt begins after this; more than one alert is rarely due.
SENDING_SECONDS = 5.0


async def send_due_alerts(services: Services, webhook: AlertWebhook) -> None:
    """Sends the alerts that are due, until one fails or the time is up. Raises nothing."""
    # Without the longer retries: the slice's caller is waiting, and another slice follows.
    database = services.database
    deadline = Deadline(SENDING_SECONDS)
    try:
        while deadline.remaining() > 0 and (alert := await claim_alert(database)) is not None:
            error = await _send(alert, webhook, services)
            await settle_alert(database, alert, error=error)
            if error is not None:
                return
    except DatabaseError as error:
        log_event("alerts_deferred", f"Alerts deferred to a later slice: {error}", level=logging.WARNING)


async def _send(alert: Alert, webhook: AlertWebhook, services: Services) -> str | None:
    """Sends one alert and logs it; returns the code of a failure."""
    fields: dict[str, Any] = {
        "invocation_id": str(alert.invocation.id),
        "slot": alert.invocation.scheduled_for.isoformat(),
        "reason": alert.reason,
        "attempts": alert.attempts,
    }
    try:
        await webhook.send(alert.webhook_id, compose(alert, services.now()))
    except AlertNotSentError as error:
        log_event(
            "alert_not_sent",
            f"Alert not delivered ({error.code}); " + ("abandoned" if alert.is_last else "it will be retried"),
            level=logging.ERROR if alert.is_last else logging.WARNING,
            **fields,
            error_code=error.code,
            given_up=alert.is_last,
        )
        return error.code
    log_event("alert_sent", f"Alert delivered: {alert.reason}", **fields)
    return None
