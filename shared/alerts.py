"""The alerts that wait in the database to be sent. SQL has the rules (supabase/migrations, send_alerts)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.database import Database, from_row
from shared.invocation import Cause, InvocationSummary


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert, taken for one attempt to send it."""

    webhook_id: str  # the same in each attempt
    reason: Literal["failed", "partial", "late", "summary"]
    attempts: int  # this one included
    is_last: bool  # it is abandoned if this attempt fails
    invocation: InvocationSummary
    failures: Sequence[Cause]  # the commonest first


async def claim_alert(database: Database) -> Alert | None:
    """Takes the alert that is due the longest, if one is. Others leave it alone for a minute or more."""
    answer = await database.call("scheduler_claim_alert")
    if answer is None:
        return None
    return from_row(
        Alert,
        answer,
        is_last=answer["last"],
        invocation=InvocationSummary.model_validate(answer["invocation"]),
        failures=[Cause.model_validate(cause) for cause in answer["failures"]],
    )


async def settle_alert(database: Database, alert: Alert, *, error: str | None) -> None:
    """Records how the attempt went: None, it was sent; else a code for why not."""
    await database.call("scheduler_settle_alert", invocation_id=str(alert.invocation.id), error=error)
