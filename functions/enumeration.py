"""Freezes who is to be evaluated: pages of mentors become batches in the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from functions.peer_mentors import ActivePeerMentor, fetch_active_peer_mentors
from shared.config import ScenarioEvaluationConfig
from shared.database import Database
from shared.evaluations import MentorScenarios
from shared.invocations import Invocations, OpenInvocation
from shared.observability import log_event
from shared.time_budget import TimeBudget


@dataclass(frozen=True, slots=True)
class CutPage:
    """A page of mentors, cut into batches; `skipped`: those to whom no scenario type applies."""

    batches: list[list[MentorScenarios]]
    skipped: int


def cut_page(page: Sequence[ActivePeerMentor], config: ScenarioEvaluationConfig) -> CutPage:
    """Cuts a page into batches of at most `evaluation_batch_size` mentors."""
    applicable = [
        MentorScenarios(mentor.user_id, types)
        for mentor in page
        if (types := config.scenario_types_for(mentor.segments))
    ]
    size = config.evaluation_batch_size
    batches = [applicable[start : start + size] for start in range(0, len(applicable), size)]
    return CutPage(batches, skipped=len(page) - len(applicable))


async def enumerate_mentors(
    invocation: OpenInvocation,
    *,
    database: Database,
    invocations: Invocations,
    config: ScenarioEvaluationConfig,
    budget: TimeBudget,
    on_queued: Callable[[], None],
) -> None:
    """Goes on with an invocation's enumeration where it stands, to its end or the budget's.

    Args:
        invocation: the one to go on with.
        database: where the mentors are read.
        invocations: where the batches are queued.
        config: which scenario types apply to whom, and how large a batch is.
        budget: when to stop; what is left goes on in the next slice.
        on_queued: called after each page that is in the queue.

    Where another worker is faster, this one gives way.
    """
    cursor = invocation.enumeration_cursor
    mentors = batches = 0
    async for page in fetch_active_peer_mentors(database, after=cursor):
        cut = cut_page(page, config)
        accepted = await invocations.enqueue(
            invocation.id,
            cut.batches,
            expected_cursor=cursor,
            next_cursor=page[-1].user_id,
            mentors_skipped=cut.skipped,
            done=False,
        )
        if not accepted:
            return
        cursor = page[-1].user_id
        mentors += len(page)
        batches += len(cut.batches)
        on_queued()
        if budget.remaining() <= 0:
            return
    finished = await invocations.enqueue(
        invocation.id, [], expected_cursor=cursor, next_cursor=None, mentors_skipped=0, done=True
    )
    if finished:
        log_event(
            "mentors_enumerated",
            f"All active mentors are queued; this slice read {mentors}",
            invocation_id=invocation.id,
            slot=invocation.scheduled_for,
            mentors=mentors,
            batches=batches,
        )
