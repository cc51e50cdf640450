"""Selects the mentors of an invocation: all active ones, chosen ones, or what another invocation left unfinished."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

from functions.runs.peer_mentors import (
    ActivePeerMentor,
    call_through_view,
    fetch_active_among,
    fetch_active_peer_mentors,
)
from shared.database import Database
from shared.errors import OUTCOME_UNKNOWN
from shared.evaluations import INVALID_SEGMENTS, MENTOR_NOT_ACTIVE, SCENARIO_DISABLED, MentorScenarios
from shared.scenario_config import ORGANIZATION_PREFIX
from shared.slice_repository import Enumeration

PAGE_SIZE = 1000
# After the unfinished pairs of its source, a retry continues the source's own enumeration, which may have been cut off;
# its cursor is then this prefix and the source's cursor.
REMAINING = "remaining:"
LAST_USER_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

# Why a row of the view is in no batch; the reasons to skip a pair of a batch are in shared/evaluations.py.
NO_SCENARIO_APPLIES = "no_scenario_applies"
USER_ID_MISSING = "user_id_missing"


class SelectionPage(NamedTuple):
    """A page of selected mentors, in the order of their ids, each with the scenario types to be evaluated.

    Args:
        skip_reasons: rows that lead to no evaluation, by reason.
        cursor: where the next page begins; None: the end, a page without mentors.
    """

    mentors: list[MentorScenarios]
    skip_reasons: Counter[str]
    cursor: str | None


class MentorSelector:
    """Reads the mentors of invocations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pages(self, enumeration: Enumeration) -> AsyncIterator[SelectionPage]:
        """Yields pages from the position of `enumeration` to the end; raises DatabaseError."""
        if enumeration.is_retry:
            return self._unfinished(enumeration)
        if enumeration.user_ids is not None:
            return self._chosen(enumeration, enumeration.user_ids)
        return self._all_active(enumeration)

    async def _all_active(self, enumeration: Enumeration) -> AsyncIterator[SelectionPage]:
        async for page in fetch_active_peer_mentors(self._database, after=enumeration.cursor):
            if page.mentors:
                yield _applicable(page.mentors, enumeration, cursor=page.mentors[-1].user_id)
            if page.without_user_id:
                yield SelectionPage([], Counter({USER_ID_MISSING: page.without_user_id}), None)

    async def _chosen(self, enumeration: Enumeration, user_ids: Iterable[str]) -> AsyncIterator[SelectionPage]:
        ahead = [user_id for user_id in user_ids if enumeration.cursor is None or user_id > enumeration.cursor]
        for start in range(0, len(ahead), PAGE_SIZE):
            chosen = ahead[start : start + PAGE_SIZE]
            active = {mentor.user_id: mentor for mentor in await fetch_active_among(self._database, chosen)}
            mentors = [
                active.get(user_id, ActivePeerMentor(user_id, frozenset(), MENTOR_NOT_ACTIVE)) for user_id in chosen
            ]
            yield _applicable(mentors, enumeration, cursor=chosen[-1])

    async def _unfinished(self, enumeration: Enumeration) -> AsyncIterator[SelectionPage]:
        source, cursor, scenarios = enumeration.retry_of, enumeration.cursor, enumeration.scenarios
        if source is None:
            return
        in_remaining = cursor is not None and cursor.startswith(REMAINING)
        after = LAST_USER_ID if in_remaining else cursor
        while True:
            unfinished = await call_through_view(
                self._database,
                "scheduler_unfinished",
                invocation_id=source,
                after_user_id=after,
                mentors=PAGE_SIZE,
                organizations=scenarios.organizations_with_types_off(),
            )
            if unfinished is None:
                return  # the source is gone
            after = unfinished["last_user_id"]
            if after is None:
                break
            mentors: list[MentorScenarios] = []
            for row in unfinished["mentors"]:
                segments = [ORGANIZATION_PREFIX + name for name in row["organizations"]]
                off, unknown = scenarios.switched_off(row["scenario_types"], segments), row["unknown_types"]
                # What is skipped is recorded, so that the newest retry has all that is left of its chain.
                reasons = dict.fromkeys(off, SCENARIO_DISABLED)
                reasons |= {name: OUTCOME_UNKNOWN for name in unknown if name in off or not enumeration.include_unknown}
                reason = None if row["active"] else MENTOR_NOT_ACTIVE
                left = MentorScenarios(row["user_id"], tuple(row["scenario_types"]), reason, tuple(unknown))
                mentors += _parts(left, reasons)
            yield SelectionPage(mentors, Counter(), after)
        # The source's own enumeration, which may have been cut off.
        remaining = replace(
            Enumeration.from_row(unfinished["remaining"]),
            scenarios=scenarios,
            include_unknown=enumeration.include_unknown,
        )
        if remaining.done:
            return
        if cursor is not None and in_remaining:
            remaining = replace(remaining, cursor=cursor.removeprefix(REMAINING))
        async for page in self.pages(remaining):
            yield page if page.cursor is None else page._replace(cursor=REMAINING + page.cursor)


def _applicable(mentors: Iterable[ActivePeerMentor], enumeration: Enumeration, *, cursor: str) -> SelectionPage:
    scenarios, chosen = enumeration.scenarios, enumeration.scenario_types
    applicable: list[MentorScenarios] = []
    skip_reasons: Counter[str] = Counter()
    enabled = scenarios.enabled_types(chosen)
    types_for = cache(partial(scenarios.types_for, chosen=chosen))
    for user_id, segments, skip_reason, unusable_rows in mentors:
        if types := enabled if skip_reason else types_for(segments):
            off = scenarios.switched_off(types, segments)
            applicable += _parts(MentorScenarios(user_id, types, skip_reason), dict.fromkeys(off, SCENARIO_DISABLED))
        else:
            skip_reasons[NO_SCENARIO_APPLIES] += 1
        if unusable_rows and enabled:  # where no type is due, no row is of use
            skip_reasons[INVALID_SEGMENTS] += unusable_rows
    return SelectionPage(applicable, skip_reasons, cursor)


def _parts(mentor: MentorScenarios, reasons: Mapping[str, str]) -> Iterator[MentorScenarios]:
    """Yields the mentor with the types that have no reason to be skipped, and with those that have, by reason."""
    if not reasons:
        yield mentor
        return
    for reason in dict.fromkeys([mentor.skip_reason, *reasons.values()]):
        if types := tuple(name for name in mentor.scenario_types if reasons.get(name, mentor.skip_reason) == reason):
            unknown = tuple(name for name in types if name in mentor.unknown_types)
            yield MentorScenarios(mentor.user_id, types, reason, unknown)
