"""What an alert says: to a person in a chat, and to a program in its metadata. No user ids, only how many and why.

Of the members that Slack's incoming webhooks know these three: `text`, which is what a notification shows, `blocks`,
which is what is seen in the channel, and `metadata`, which holds the figures for whoever reads them by program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.alerts import Alert

EVENT_TYPE = "scenario_evaluation_alert"
# The commonest come first; a message is no report.
MOST_CAUSES = 5
OPEN = ("pending", "running")
_MEMBERS = ("status", "scheduled_for", "started_at", "finished_at", "lateness_seconds", "error", "counts")


def compose(alert: Alert, now: datetime) -> dict[str, Any]:
    """The message.

    Args:
        alert: what is to be told.
        now: for how long a run that is still open has taken.
    """
    invocation = alert.invocation
    headline = _headline(alert, now)
    lines = [_counts(invocation["counts"])]
    if invocation["error"]:
        lines.append(f"Reason: {invocation['error']}")
    if causes := alert.failures[:MOST_CAUSES]:
        lines.append("Failures: " + ", ".join([*map(_cause, causes), *_other_failures(invocation["counts"], causes)]))
    if invocation["status"] in OPEN:
        lines.append(
            f"It goes on until {_minute(invocation['expires_at'])} at the latest; there is no other alert for it."
        )
    lines.append(f"Invocation: {invocation['id']}")
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
    harness = f"The nightly evaluation of {_minute(invocation['scheduled_for'])}"
    if alert.reason == "failed":
        return f"{harness} failed"
    if alert.reason == "partial":
        share = _unfinished(invocation["counts"]) / max(1, invocation["counts"]["evaluations"])
        return f"{harness} is partial: {share:.1%} of it failed or did not take place"
    slot = datetime.fromisoformat(invocation["scheduled_for"])
    if invocation["status"] in OPEN:
        return f"{harness} is late: not over {_span(now - slot)} after its time"
    ended = datetime.fromisoformat(invocation["finished_at"])
    return f"{harness} was late: {invocation['status']} {_span(ended - slot)} after its time"


def _counts(counts: dict[str, int]) -> str:
    done = sum(counts[outcome] for outcome in ("triggered", "not_triggered", "suppressed", "skipped"))
    not_done = f"{_unfinished(counts)} not ({counts['failed']} failed, {counts['not_evaluated']} not evaluated)"
    asked = f"{counts['mentors']} mentors, {counts['evaluations']} evaluations"
    return f"{asked}: {done} done ({counts['triggered']} triggered), {not_done}"


def _unfinished(counts: dict[str, int]) -> int:
    return counts["failed"] + counts["not_evaluated"]


def _cause(cause: dict[str, Any]) -> str:
    return f"{cause['code']} {'at least ' if cause['is_lower_bound'] else ''}{cause['count']}"


def _other_failures(counts: dict[str, int], shown: Sequence[dict[str, Any]]) -> Iterator[str]:
    other = counts["failed"] - sum(cause["count"] for cause in shown)
    if other > 0:
        yield f"others {other}"


def _payload(alert: Alert) -> dict[str, Any]:
    """Slack takes texts, numbers, truth values, and objects of these here, and nothing that is null."""
    invocation = alert.invocation
    told = {
        "reason": alert.reason,
        "invocation_id": invocation["id"],
        **{name: invocation[name] for name in _MEMBERS},
        "failures": {cause["code"]: cause["count"] for cause in alert.failures[:MOST_CAUSES]},
    }
    return {name: value for name, value in told.items() if value is not None}


def _minute(time: str) -> str:
    return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _span(span: timedelta) -> str:
    hours, minutes = divmod(max(0, int(span.total_seconds())) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
