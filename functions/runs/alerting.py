"""Delivery and format of alerts. Sent after a slice's work: a slow webhook delays no evaluation.

At least once: an attempt without an answer may have arrived, and is repeated with the same id.

Slack's incoming webhooks know the three members of a message: `text`, shown in the notification, `blocks`, shown in the
channel, and `metadata`, which holds the figures for programs. They hold counts and causes, no user ids.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from functions.runs.services import Services
from shared.alerts import Alert, claim_alert, settle_alert
from shared.deadline import Deadline
from shared.errors import AlertNotSentError, DatabaseError
from shared.logs import log_event
from shared.webhook import AlertWebhook

# No attempt begins after this; more than one alert is rarely due.
SENDING_SECONDS = 5.0
EVENT_TYPE = "scenario_evaluation_alert"
# The commonest come first; a message is no report.
MAX_CAUSES = 5
_MEMBERS = {"status", "scheduled_for", "started_at", "finished_at", "lateness_seconds", "error_code", "counts"}


async def send_due_alerts(services: Services, webhook: AlertWebhook) -> None:
    """Sends the alerts that are due, until one fails or the time is up. Raises nothing."""
    # Without the longer retries: the slice's caller is waiting, and another slice follows.
    database = services.database
    deadline = Deadline(SENDING_SECONDS)
    try:
        while deadline.remaining() > 0 and (alert := await claim_alert(database)) is not None:
            error = await _send(webhook, alert, services.now())
            await settle_alert(database, alert, error=error)
            if error is not None:
                return
    except DatabaseError as error:
        log_event("alerts_deferred", f"Alerts deferred to a later slice: {error}", level=logging.WARNING)


async def _send(webhook: AlertWebhook, alert: Alert, now: datetime) -> str | None:
    """Sends one alert and logs it; returns the code of a failure."""
    fields: dict[str, Any] = {"reason": alert.reason, "attempts": alert.attempts}
    fields |= {"invocation_id": str(alert.invocation.id), "slot": alert.invocation.scheduled_for.isoformat()}
    try:
        await webhook.send(alert.webhook_id, compose(alert, now))
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


def compose(alert: Alert, now: datetime) -> dict[str, Any]:
    """Returns the message of an alert; `now`, an aware time, gives the duration of a run that is still open."""
    invocation = alert.invocation
    counts, causes = invocation.counts, alert.failures[:MAX_CAUSES]
    headline = _headline(alert, now)
    done = counts.triggered + counts.not_triggered + counts.suppressed + counts.skipped
    unfinished = f"{counts.unfinished} not ({counts.failed} failed, {counts.not_evaluated} not evaluated)"
    total = f"{counts.mentors} mentors, {counts.evaluations} evaluations"
    lines = [f"{total}: {done} done ({counts.triggered} triggered), {unfinished}"]
    if invocation.error_code:
        lines.append(f"Reason: {invocation.error_code}")
    if causes:
        shown = [f"{cause.code} {'at least ' if cause.is_lower_bound else ''}{cause.count}" for cause in causes]
        if (others := counts.failed - sum(cause.count for cause in causes)) > 0:
            shown.append(f"others {others}")
        lines.append("Failures: " + ", ".join(shown))
    if invocation.is_open:
        lines.append(f"It expires at {_minute(invocation.expires_at)}; no other alert follows for it.")
    lines.append(f"Invocation: {invocation.id}")
    # Slack accepts strings, numbers, booleans and objects of these, and no null.
    payload = {
        "reason": alert.reason,
        "invocation_id": str(invocation.id),
        **invocation.model_dump(mode="json", include=_MEMBERS, exclude_none=True),
        "failures": {cause.code: cause.count for cause in causes},
    }
    return {
        "text": "\n".join([headline, *lines]),
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"*{headline}*"}},
            {"type": "section", "text": {"type": "plain_text", "text": "\n".join(lines)}},
        ],
        "metadata": {"event_type": EVENT_TYPE, "event_payload": payload},
    }


def _headline(alert: Alert, now: datetime) -> str:
    invocation = alert.invocation
    run = f"The scheduled run of {_minute(invocation.scheduled_for)}"
    if alert.reason == "failed":
        return f"{run} failed"
    if alert.reason == "partial":
        share = invocation.counts.unfinished / max(1, invocation.counts.evaluations)
        return f"{run} is partial: {share:.1%} of its evaluations failed or did not take place"
    since_slot = (invocation.finished_at or now) - invocation.scheduled_for
    hours, minutes = divmod(max(0, int(since_slot.total_seconds())) // 60, 60)
    late = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    if invocation.is_open:
        return f"{run} is late: still open {late} after its slot"
    return f"{run} was late: {invocation.status} {late} after its slot"


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
