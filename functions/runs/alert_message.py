"""The text and metadata of an alert: counts and causes, no user ids.

Slack's incoming webhooks know these three members: `text`, shown in the notification, `blocks`, shown in the channel,
and `metadata`, which holds the figures for programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from shared.alerts import Alert
from shared.invocation import Cause, Counts

EVENT_TYPE = "scenario_evaluation_alert"
# The commonest come first; a message is no report.
MAX_CAUSES = 5
_MEMBERS = {"status", "scheduled_for", "started_at", "finished_at", "lateness_seconds", "error_code", "counts"}


def compose(alert: Alert, now: datetime) -> dict[str, Any]:
    """Returns the message of an alert.

    Args:
        alert: the alert, as it was claimed.
        now: an aware time, for the duration of a run that is still open.
    """
    invocation = alert.invocation
    headline = _headline(alert, now)
    lines = [_counts(invocation.counts)]
    if invocation.error_code:
        lines.append(f"Reason: {invocation.error_code}")
    if causes := alert.failures[:MAX_CAUSES]:
        lines.append("Failures: " + ", ".join([*map(_cause, causes), *_other_failures(invocation.counts, causes)]))
    if invocation.is_open:
        lines.append(f"It expires at {_minute(invocation.expires_at)}; no other alert follows for it.")
    lines.append(f"Invocation: {invocation.id}")
    return {
        "text": "\n".join([headline, *lines]),
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"*{headline}*"}},
            {"type": "section", "text": {"type": "plain_text", "text": "\n".join(lines)}},
        ],
        "metadata": {"event_type": EVENT_TYPE, "event_payload": _payload(alert)},
    }


def _headline(alert: Alert, now: datetime) -> str:
    invocation = alert.invocation
    run = f"The scheduled run of {_minute(invocation.scheduled_for)}"
    if alert.reason == "failed":
        return f"{run} failed"
    if alert.reason == "partial":
        share = invocation.counts.unfinished / max(1, invocation.counts.evaluations)
        return f"{run} is partial: {share:.1%} of its evaluations failed or did not take place"
    late = _span((invocation.finished_at or now) - invocation.scheduled_for)
    if invocation.is_open:
        return f"{run} is late: still open {late} after its slot"
    return f"{run} was late: {invocation.status} {late} after its slot"


def _counts(counts: Counts) -> str:
    done = counts.triggered + counts.not_triggered + counts.suppressed + counts.skipped
    unfinished = f"{counts.unfinished} not ({counts.failed} failed, {counts.not_evaluated} not evaluated)"
    total = f"{counts.mentors} mentors, {counts.evaluations} evaluations"
    return f"{total}: {done} done ({counts.triggered} triggered), {unfinished}"


def _cause(cause: Cause) -> str:
    return f"{cause.code} {'at least ' if cause.is_lower_bound else ''}{cause.count}"


def _other_failures(counts: Counts, shown: Sequence[Cause]) -> Iterator[str]:
    other = counts.failed - sum(cause.count for cause in shown)
    if other > 0:
        yield f"others {other}"


def _payload(alert: Alert) -> dict[str, Any]:
    """Returns what Slack accepts: strings, numbers, booleans, objects of these, and no null."""
    return {
        "reason": alert.reason,
        "invocation_id": str(alert.invocation.id),
        **alert.invocation.model_dump(mode="json", include=_MEMBERS, exclude_none=True),
        "failures": {cause.code: cause.count for cause in alert.failures[:MAX_CAUSES]},
    }


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _span(span: timedelta) -> str:
    hours, minutes = divmod(max(0, int(span.total_seconds())) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
