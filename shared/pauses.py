"""The pauses of the schedule and of the engine."""

from typing import Any

from pydantic import Field

from shared.database import Database
from shared.invocation import Moment, Shape


class Pause(Shape):
    """No slot opens a run meanwhile."""

    paused_at: Moment
    paused_by: str = Field(description="The authenticated caller.")
    until: Moment | None = Field(description="A slot at this time opens a run; null: until it is resumed.")
    reason: str | None


class EnginePause(Shape):
    """The engine is down, or rejects the function: it is not called meanwhile."""

    until: Moment
    outages: int = Field(description="Pauses since it last answered.")


class Pauses(Shape):
    """The pauses that are on, by the database's clock."""

    clock: Moment
    pause: Pause | None
    engine_pause: EnginePause | None


async def pauses_after(database: Database, changes: dict[str, Any], *, actor: str) -> Pauses | None:
    """Changes the given members of `paused`, `until`, `reason` and `retry_engine`, if any; returns what is then on.

    Returns None, and changes nothing, where `until` is not within ten years from now, by the database's clock.
    """
    answer = await database.call("scheduler_schedule", changes=changes, actor=actor)
    return None if answer is None else Pauses.model_validate(answer)
