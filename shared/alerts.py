"""The alerts that wait to be sent, in the database.

The rules, what raises an alert and when it is retried, are in SQL (supabase/migrations, send_alerts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.database import Database, from_row
from shared.invocation import Cause, InvocationSummary


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert, taken for one attempt to send it.

    Args:
        webhook_id: the same in each attempt.
        reason: why it was raised.
        attempts: this one included.
        is_last: it is given up if this attempt fails.
        failures: the commonest causes, the commonest first.
    """

    webhook_id: str
    reason: Literal["failed", "partial", "late"]
    attempts: int
    is_last: bool
    invocation: InvocationSummary
    failures: Sequence[Cause]


class Alerts:
    """Takes alerts and says what came of them.

    Args:
        database: the Data API.

    Every method raises `DatabaseUnavailableError` or `DatabaseRefusedError` where the Data API does not comply.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self) -> Alert | None:
        """Takes the alert that is due the longest; None: none is. Others leave it alone for a minute or more."""
        answer = await self._database.call("scheduler_claim_alert")
        if answer is None:
            return None
        return from_row(
            Alert,
            answer,
            is_last=answer["last"],
            invocation=InvocationSummary.model_validate(answer["invocation"]),
            failures=[Cause.model_validate(cause) for cause in answer["failures"]],
        )

    async def settle(self, alert: Alert, *, error: str | None) -> None:
        """Says how the attempt went: None, it was sent; else a code for why not."""
        await self._database.call("scheduler_settle_alert", invocation_id=str(alert.invocation.id), error=error)
