"""Who changed what: entries that the database writes."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from shared.database import Database
from shared.invocation import Id, Moment, Shape
from shared.run_repository import Position

AuditAction = Literal[
    "run",
    "retry",
    "cancel",
    "fail",
    "status_change",
    "note",
    "delete",
    "restore",
    "scenario_change",
    "pause",
    "resume",
    "engine_retry",
]


class AuditEntry(Shape):
    """One change that a person or a client made."""

    id: Id
    at: Moment
    actor: str = Field(description="The authenticated caller; of a change in SQL or in Studio, the database role.")
    action: AuditAction
    invocation_id: Id | None = Field(description="The run may be gone: an entry outlives it.")
    scenario_type: str | None
    before: dict[str, Any] | None = Field(description="The members that changed, as they were; null: there were none.")
    after: dict[str, Any] | None = Field(description="The members that changed, as they are; null: they are gone.")


async def read_audit(
    database: Database,
    *,
    invocation_id: str | None,
    actor: str | None,
    action: AuditAction | None,
    limit: int,
    after: Position | None,
) -> Sequence[AuditEntry]:
    """Reads entries of the audit, the newest first, at most `limit`; a filter that is None is none."""
    entries = await database.call(
        "scheduler_audit_page",
        invocation_id=invocation_id,
        actor=actor,
        action=action,
        limit=limit,
        after_at=after.invoked_at if after else None,
        after_id=after.id if after else None,
    )
    return [AuditEntry.model_validate(entry) for entry in entries]
