"""What another invocation left undone: its pairs that failed or were not evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from functions.peer_mentors import call_through_view
from shared.database import Database
from shared.evaluations import MENTOR_NOT_ACTIVE, MentorScenarios
from shared.invocations import Enumeration


@dataclass(frozen=True, slots=True)
class UndonePage:
    """Some of what an invocation left undone.

    Args:
        mentors: who, for what; with a reason to skip those who are not active any more.
        last_user_id: where the next page begins; None: nobody is left.
        rest: the invocation's own enumeration, which may have been cut off before everybody was read.
    """

    mentors: list[MentorScenarios]
    last_user_id: str | None
    rest: Enumeration


async def fetch_undone(
    database: Database, invocation_id: str, *, after_user_id: str | None, mentors: int
) -> UndonePage | None:
    """Reads a page of what an invocation left undone.

    Args:
        database: the Data API.
        invocation_id: an invocation that has ended.
        after_user_id: where the page begins; None: at the start.
        mentors: about how many to read.

    Returns:
        A page, or None when there is no such invocation any more.

    Raises:
        DatabaseError: the database is away or refuses.
    """
    answer = await call_through_view(
        database, "scheduler_undone", invocation_id=invocation_id, after_user_id=after_user_id, mentors=mentors
    )
    if answer is None:
        return None
    return UndonePage(
        mentors=[
            MentorScenarios(row["user_id"], tuple(row["scenario_types"]), None if row["active"] else MENTOR_NOT_ACTIVE)
            for row in answer["mentors"]
        ],
        last_user_id=answer["last_user_id"],
        rest=Enumeration.from_row(answer["rest"]),
    )
