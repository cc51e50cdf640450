"""Delivery and format of alerts. Sent after a slice's work: a slow webhook delays no evaluation.

At least once: an attempt without an answer may have arrived, and is repeated with the same id.

Slack's incoming webhooks know the three members of a message: `text`, shown in the notification, `blocks`, shown in the
channel, and `metadata`, which holds the figures for programs. They hold counts and causes, no user ids.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from functions.runs.services import Services
from shared.alerts import Alert, claim_alert, settle_alert
from shared.deadline import Deadline
from shared.errors import AlertNotSentError, DatabaseError, RequestError
from shared.invocation import InvocationSummary
from shared.logs import log_event
from shared.webhook import AlertWebhook

# No attempt begins after this; more than one alert is rarely due.
SENDING_SECONDS = 5.0
EVENT_TYPE = "scenario_evaluation_alert"
# The commonest come first; a message is no report.
MAX_CAUSES = 5
# A scheduled run that began later than this is worth a look, also where it ended well. Seconds: some ticks of pg_cron.
LATE_START = 300
_MEMBERS = {"status", "scheduled_for", "started_at", "finished_at", "lateness_seconds", "error_code", "counts"}


async def send_due_alerts(services: Services, webhook: AlertWebhook) -> None:
    """Sends the alerts that are due, until one fails or the time is up. Raises nothing."""
    # Without the longer retries: the slice's caller is waiting, and another slice follows.
    database = services.database
    deadline = Deadline(SENDING_SECONDS)
    try:
        while deadline.remaining() > 0 and (alert := await claim_alert(database)) is not None:
            error = await _send(webhook, alert, services.now(), ZoneInfo(services.config.evaluation_timezone))
            await settle_alert(database, alert, error=error)
            if error is not None:
                return
    except DatabaseError as error:
        log_event("alerts_deferred", f"Alerts deferred to a later slice: {error}", level=logging.WARNING)


async def send_test_alert(services: Services, *, triggered_by: str) -> None:
    """Sends a test message now, by one attempt of three seconds at most.

    Raises:
        RequestError: 409 `no_webhook`: none is set; 502 `alert_not_delivered`: the webhook did not take it.
    """
    webhook = services.webhook
    if webhook is None:
        raise RequestError(409, "no_webhook", "expected ALERT_WEBHOOK_URL to be set, found that no alert is sent")
    runs = "each scheduled run" if services.config.alert_on == "always" else "scheduled runs with a problem"
    message = _message("A test alert", [f"Alerts about {runs} arrive here."], {"reason": "test"})
    try:
        await webhook.send(f"test_{uuid4()}", message)
    except AlertNotSentError as error:
        said = f"Test alert not delivered ({error.code})"
        fields = {"error_code": error.code, "triggered_by": triggered_by}
        log_event("test_alert_not_sent", said, level=logging.WARNING, **fields)
        detail = f"the webhook of ALERT_WEBHOOK_URL did not take the message: {error.code}"
        raise RequestError(502, "alert_not_delivered", detail) from error
    log_event("test_alert_sent", "Test alert delivered", triggered_by=triggered_by)


async def _send(webhook: AlertWebhook, alert: Alert, now: datetime, zone: ZoneInfo) -> str | None:
    """Sends one alert and logs it; returns the code of a failure."""
    fields: dict[str, Any] = {"reason": alert.reason, "attempts": alert.attempts}
    fields |= {"invocation_id": str(alert.invocation.id), "slot": alert.invocation.scheduled_for.isoformat()}
    try:
        await webhook.send(alert.webhook_id, compose(alert, now, zone))
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


def compose(alert: Alert, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    """Returns the message of an alert; `now`, an aware time, gives the duration of a run that is still open."""
    invocation = alert.invocation
    counts, causes = invocation.counts, alert.failures[:MAX_CAUSES]
    if alert.reason == "summary":
        headline, lines = _summary(invocation, zone), _worth_a_look(invocation)
    else:
        headline = _headline(alert, now, zone)
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
        lines.append(f"It expires at {_minute(invocation.expires_at, zone)}; no other alert follows for it.")
    lines.append(f"Invocation: {invocation.id}")
    # Slack accepts strings, numbers, booleans and objects of these, and no null.
    payload = {
        "reason": alert.reason,
        "invocation_id": str(invocation.id),
        **invocation.model_dump(mode="json", include=_MEMBERS, exclude_none=True),
        "failures": {cause.code: cause.count for cause in causes},
    }
    return _message(headline, lines, payload)


def _message(headline: str, lines: list[str], payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": "\n".join([headline, *lines]),
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"*{headline}*"}},
            {"type": "section", "text": {"type": "plain_text", "text": "\n".join(lines)}},
        ],
        "metadata": {"event_type": EVENT_TYPE, "event_payload": payload},
    }


def _summary(invocation: InvocationSummary, zone: ZoneInfo) -> str:
    counts = invocation.counts
    figures = f"{invocation.users_evaluated:,} mentors evaluated, {counts.triggered:,} notifications, "
    figures += f"{counts.suppressed:,} suppressed, {counts.failed:,} failed"
    took = _span((invocation.duration_ms or 0) / 1000)
    return f"Scheduled run of {_minute(invocation.scheduled_for, zone)}: {figures}, in {took}"


def _worth_a_look(invocation: InvocationSummary) -> list[str]:
    """Returns a line about each thing that a run without trouble should not have, or that it has none."""
    counts, reasons, late = invocation.counts, invocation.skip_reasons, invocation.lateness_seconds or 0
    found = [
        (counts.failed, f"{counts.failed:,} of {counts.evaluations:,} evaluations failed"),
        (counts.not_evaluated, f"{counts.not_evaluated:,} evaluations did not take place"),
        (reasons.invalid_segments, f"{reasons.invalid_segments:,} rows of mentors have segments that cannot be used"),
        (reasons.user_id_missing, f"{reasons.user_id_missing:,} rows of mentors have no user id"),
        (late > LATE_START, f"It began {_span(late)} after its slot"),
        (invocation.users_evaluated == 0, "No mentor was evaluated"),
    ]
    return [line for is_there, line in found if is_there] or ["Nothing needs a look."]


def _headline(alert: Alert, now: datetime, zone: ZoneInfo) -> str:
    invocation = alert.invocation
    run = f"The scheduled run of {_minute(invocation.scheduled_for, zone)}"
    if alert.reason == "failed":
        return f"{run} failed"
    if alert.reason == "partial":
        share = invocation.counts.unfinished / max(1, invocation.counts.evaluations)
        return f"{run} is partial: {share:.1%} of its evaluations failed or did not take place"
    late = _span(((invocation.finished_at or now) - invocation.scheduled_for).total_seconds())
    if invocation.is_open:
        return f"{run} is late: still open {late} after its slot"
    return f"{run} was late: {invocation.status} {late} after its slot"


def _span(seconds: float) -> str:
    """Returns a duration by its two largest units, in whole seconds."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _minute(time: datetime, zone: ZoneInfo) -> str:
    local = time.astimezone(zone)
    return f"{local.day} {local:%b %H:%M} {zone.key}"
