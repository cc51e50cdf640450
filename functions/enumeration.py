"""Freezes who is to be evaluated: pages of the roster become batches in the queue."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from functions.read_ahead import read_ahead
from functions.roster import Roster
from shared.invocations import Invocations, OpenInvocation
from shared.observability import log_event
from shared.time_budget import TimeBudget


async def enumerate_mentors(
    invocation: OpenInvocation,
    *,
    roster: Roster,
    invocations: Invocations,
    batch_size: int,
    budget: TimeBudget,
    on_queued: Callable[[], None],
) -> None:
    """Goes on with an invocation's enumeration where it stands, to its end or the budget's.

    Args:
        invocation: the one to go on with.
        roster: where the mentors are read.
        invocations: where the batches are queued.
        batch_size: mentors in a batch, at most.
        budget: when to stop; what is left goes on in the next slice.
        on_queued: called after each page that is in the queue.

    Where another worker is faster, this one gives way.
    """
    cursor = invocation.enumeration.cursor
    mentors = batches = 0
    async with aclosing(read_ahead(roster.pages(invocation.enumeration))) as pages:
        async for page in pages:
            cut = [page.mentors[start : start + batch_size] for start in range(0, len(page.mentors), batch_size)]
            accepted = await invocations.enqueue(
                invocation.id,
                cut,
                expected_cursor=cursor,
                next_cursor=page.cursor,
                mentors_skipped=page.mentors_skipped,
                done=False,
            )
            if not accepted:
                return
            cursor = page.cursor
            mentors += len(page.mentors) + page.mentors_skipped
            batches += len(cut)
            on_queued()
            if budget.remaining() <= 0:
                return
    finished = await invocations.enqueue(
        invocation.id, [], expected_cursor=cursor, next_cursor=None, mentors_skipped=0, done=True
    )
    if finished:
        log_event(
            "mentors_enumerated",
            f"All whom this run is about are queued; this slice read {mentors}",
            invocation_id=invocation.id,
            slot=invocation.scheduled_for,
            mentors=mentors,
            batches=batches,
        )
