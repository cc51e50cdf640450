"""Freezes the pairs of an invocation: pages of selected mentors become batches in the queue."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import TypeVar

from functions.runs.mentor_selection import NO_SCENARIO_APPLIES, USER_ID_MISSING, MentorSelector, SelectionPage
from functions.runs.services import Services
from shared.deadline import Deadline
from shared.evaluations import INVALID_SEGMENTS, MentorScenarios
from shared.logs import log_event
from shared.slice_repository import OpenInvocation

T = TypeVar("T")

SAMPLE_USER_IDS = 10


async def enumerate_mentors(
    services: Services, invocation: OpenInvocation, *, deadline: Deadline, on_enqueued: Callable[[], None]
) -> None:
    """Continues an invocation's enumeration until its end or the deadline, or where another worker is faster.

    Args:
        deadline: when to stop; the next slice continues.
        on_enqueued: called after each page that is in the queue.
    """
    selector = MentorSelector(services.database.with_longer_retries())
    batch_size = services.config.evaluation_batch_size
    cursor, done = invocation.enumeration.cursor, False
    mentors = batches = 0
    skip_reasons: Counter[str] = Counter()
    unusable_user_ids: list[str] = []
    try:
        async with aclosing(prefetch(selector.pages(invocation.enumeration))) as pages:
            while not done:
                page = await anext(pages, None) or SelectionPage([], Counter(), None)
                done = page.cursor is None
                cut = list(_cut(page.mentors, batch_size))
                accepted = await services.queue.enqueue(
                    invocation.id,
                    cut,
                    expected_cursor=cursor,
                    next_cursor=page.cursor,
                    skip_reasons=page.skip_reasons,
                    done=done,
                )
                if not accepted:
                    return
                cursor = page.cursor
                skip_reasons.update(page.skip_reasons)
                if page.skip_reasons[INVALID_SEGMENTS]:
                    unusable = (mentor.user_id for mentor in page.mentors if mentor.skip_reason == INVALID_SEGMENTS)
                    unusable_user_ids += islice(unusable, SAMPLE_USER_IDS - len(unusable_user_ids))
                mentors += len({mentor.user_id for mentor in page.mentors}) + page.skip_reasons[NO_SCENARIO_APPLIES]
                batches += len(cut)
                if not done:
                    on_enqueued()
                    if deadline.remaining() <= 0:
                        return
        log_event(
            "mentors_enumerated",
            f"Enumeration done; this slice read {mentors} mentors",
            invocation_id=invocation.id,
            slot=invocation.scheduled_for,
            mentors=mentors,
            batches=batches,
        )
    finally:
        # One line, however many rows there are.
        invalid, missing = skip_reasons[INVALID_SEGMENTS], skip_reasons[USER_ID_MISSING]
        if invalid or missing:
            log_event(
                "mentor_rows_unusable",
                f"Unusable rows of active_peer_mentors: {invalid} with invalid segments, {missing} without a user id",
                level=logging.WARNING,
                invocation_id=invocation.id,
                slot=invocation.scheduled_for,
                invalid_segments=invalid,
                user_id_missing=missing,
                sample_user_ids=unusable_user_ids,
            )


def _cut(mentors: Sequence[MentorScenarios], batch_size: int) -> Iterator[Sequence[MentorScenarios]]:
    """Cuts a page into batches; what comes several times of a mentor, by its reason to skip it, stays together."""
    start = 0
    while start < len(mentors):
        end = start + batch_size
        while end < len(mentors) and mentors[end].user_id == mentors[end - 1].user_id:
            end += 1
        yield mentors[start:end]
        start = end


async def prefetch(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Yields the same items in the same order, and reads the next one while the caller works on the one before it.

    Close it (`contextlib.aclosing`) where it may be left before the end: an item is then still being read.

    Args:
        items: none of them None, and none needed to make the next.
    """
    ahead = asyncio.ensure_future(anext(items, None))
    try:
        while (item := await ahead) is not None:
            ahead = asyncio.ensure_future(anext(items, None))
            yield item
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)
