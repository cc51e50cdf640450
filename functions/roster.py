"""Who an invocation is about, for what: all who are active, chosen mentors, or what another left undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import NamedTuple

from functions.peer_mentors import ActivePeerMentor, fetch_active_among, fetch_active_peer_mentors
from functions.undone import fetch_undone
from shared.config import ScenarioEvaluationConfig
from shared.database import Database
from shared.evaluations import MENTOR_NOT_ACTIVE, MentorScenarios
from shared.invocations import Enumeration

PAGE_SIZE = 1000
# A retry that is through with what another left undone goes on where that one's own enumeration was cut off; from there
# on its cursor is this and the other's cursor.
REST = "rest:"
LAST_USER_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class RosterPage(NamedTuple):
    """Some of those whom an invocation is about, in the order of their ids.

    Args:
        mentors: each with the scenario types to be evaluated.
        mentors_skipped: mentors to whom no scenario type applies.
        cursor: where the next page begins.
    """

    mentors: list[MentorScenarios]
    mentors_skipped: int
    cursor: str


class Roster:
    """Reads rosters.

    Args:
        database: where the active mentors are read, and what other invocations left undone.
        config: which scenario types apply to whom.
    """

    def __init__(self, database: Database, config: ScenarioEvaluationConfig) -> None:
        self._database = database
        self._config = config

    def pages(self, enumeration: Enumeration) -> AsyncIterator[RosterPage]:
        """Reads on from where `enumeration` stands, to the end.

        Raises:
            DatabaseError: the database is away or refuses.
        """
        if enumeration.is_retry:
            return self._undone(enumeration)
        if enumeration.user_ids is not None:
            return self._chosen(enumeration, enumeration.user_ids)
        return self._everybody(enumeration)

    async def _everybody(self, enumeration: Enumeration) -> AsyncIterator[RosterPage]:
        async for page in fetch_active_peer_mentors(self._database, after=enumeration.cursor):
            yield self._applicable(page, enumeration.scenario_types, cursor=page[-1].user_id)

    async def _chosen(self, enumeration: Enumeration, user_ids: Iterable[str]) -> AsyncIterator[RosterPage]:
        ahead = [user_id for user_id in user_ids if enumeration.cursor is None or user_id > enumeration.cursor]
        for start in range(0, len(ahead), PAGE_SIZE):
            chosen = ahead[start : start + PAGE_SIZE]
            active = await fetch_active_among(self._database, chosen)
            page = self._applicable(active, enumeration.scenario_types, cursor=chosen[-1])
            known = {mentor.user_id for mentor in active}
            types = self._config.enabled_types(enumeration.scenario_types)
            unknown = [MentorScenarios(user_id, types, MENTOR_NOT_ACTIVE) for user_id in chosen if user_id not in known]
            yield page._replace(mentors=sorted(page.mentors + unknown))

    async def _undone(self, enumeration: Enumeration) -> AsyncIterator[RosterPage]:
        source, cursor = enumeration.retry_of, enumeration.cursor
        if source is None:
            return
        in_rest = cursor is not None and cursor.startswith(REST)
        after = LAST_USER_ID if in_rest else cursor
        while True:
            undone = await fetch_undone(self._database, source, after_user_id=after, mentors=PAGE_SIZE)
            if undone is None:
                return
            if undone.last_user_id is None:
                break
            after = undone.last_user_id
            yield RosterPage(undone.mentors, 0, after)
        rest = undone.rest
        if rest.done:
            return
        if cursor is not None and in_rest:
            rest = replace(rest, cursor=cursor.removeprefix(REST))
        async for page in self.pages(rest):
            yield page._replace(cursor=REST + page.cursor)

    def _applicable(
        self, mentors: Iterable[ActivePeerMentor], chosen_types: frozenset[str] | None, *, cursor: str
    ) -> RosterPage:
        applicable: list[MentorScenarios] = []
        skipped = 0
        types_for: dict[frozenset[str], tuple[str, ...]] = {}
        for user_id, segments in mentors:
            types = types_for.get(segments)
            if types is None:
                types = types_for[segments] = self._config.scenario_types_for(segments, chosen_types)
            if types:
                applicable.append(MentorScenarios(user_id, types))
            else:
                skipped += 1
        return RosterPage(applicable, skipped, cursor)
