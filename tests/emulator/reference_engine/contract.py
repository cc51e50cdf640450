"""What a call to the engine must look like. A member the engine does not know is ignored: the contract may grow."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

# PostgreSQL's text cannot hold a NUL, and no honest name or key has control characters.
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
KeyPrefix = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f]+$")]


class Evaluation(BaseModel):
    """One mentor, and the scenarios to decide for them."""

    user_id: UUID
    scenario_types: list[Name]
    idempotency_key_prefix: KeyPrefix


class EvaluationCall(BaseModel):
    """`dry_run` has no default: guessing wrong would notify people."""

    invocation_id: str | None = None
    scheduled_for: str | None = None
    dry_run: bool = Field(strict=True)
    evaluations: list[Evaluation]
