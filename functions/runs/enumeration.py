"""Freezes the pairs of an invocation: pages of selected mentors become batches in the queue."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from itertools import islice
from typing import TypeVar

from functions.runs.mentor_selection import NO_SCENARIO_APPLIES, USER_ID_MISSING, MentorSelector, SelectionPage
from shared.deadline import Deadline
from shared.evaluations import INVALID_SEGMENTS
from shared.logs import log_event
from shared.queue_repository import QueueRepository
from shared.slice_repository import OpenInvocation

T = TypeVar("T")

SAMPLE_USER_IDS = 10


async def enumerate_mentors(
    invocation: OpenInvocation,
    *,
    selector: MentorSelector,
    queue: QueueRepository,
    batch_size: int,
    deadline: Deadline,
    on_enqueued: Callable[[], None],
) -> None:
    """Continues an invocation's enumeration until its end or the deadline.

    Args:
        invocation: the invocation to enumerate.
        selector: where the mentors are read.
        queue: where the batches are queued.
        batch_size: mentors in a batch, at most.
        deadline: when to stop; the next slice continues.
        on_enqueued: called after each page that is in the queue.

    Stops where another worker has enumerated further.
    """
    unusable = _UnusableRows()
    try:
        cursor = invocation.enumeration.cursor
        mentors = batches = 0
        end = SelectionPage([], Counter(), None)
        async with aclosing(prefetch(selector.pages(invocation.enumeration))) as pages:
            async for page in pages:
                if page.cursor is None:
                    end = page
                    break
                cut = [page.mentors[start : start + batch_size] for start in range(0, len(page.mentors), batch_size)]
                accepted = await queue.enqueue(
                    invocation.id,
                    cut,
                    expected_cursor=cursor,
                    next_cursor=page.cursor,
                    skip_reasons=page.skip_reasons,
                    done=False,
                )
                if not accepted:
                    return
                cursor = page.cursor
                unusable.add(page)
                mentors += len(page.mentors) + page.skip_reasons[NO_SCENARIO_APPLIES]
                batches += len(cut)
                on_enqueued()
                if deadline.remaining() <= 0:
                    return
        finished = await queue.enqueue(
            invocation.id, [], expected_cursor=cursor, next_cursor=None, skip_reasons=end.skip_reasons, done=True
        )
        if finished:
            unusable.add(end)
            log_event(
                "mentors_enumerated",
                f"Enumeration done; this slice read {mentors} mentors",
                invocation_id=invocation.id,
                slot=invocation.scheduled_for,
                mentors=mentors,
                batches=batches,
            )
    finally:
        unusable.log(invocation)


class _UnusableRows:
    """Rows of the view that a slice could not use: counts, and some user ids."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._user_ids: list[str] = []

    def add(self, page: SelectionPage) -> None:
        self._counts.update(page.skip_reasons)
        if page.skip_reasons[INVALID_SEGMENTS]:
            skipped = (mentor.user_id for mentor in page.mentors if mentor.skip_reason == INVALID_SEGMENTS)
            self._user_ids += islice(skipped, SAMPLE_USER_IDS - len(self._user_ids))

    def log(self, invocation: OpenInvocation) -> None:
        """Logs one line, however many rows there are."""
        invalid, missing = self._counts[INVALID_SEGMENTS], self._counts[USER_ID_MISSING]
        if invalid or missing:
            log_event(
                "mentor_rows_unusable",
                f"Unusable rows of active_peer_mentors: {invalid} with invalid segments, {missing} without a user id",
                level=logging.WARNING,
                invocation_id=invocation.id,
                slot=invocation.scheduled_for,
                invalid_segments=invalid,
                user_id_missing=missing,
                sample_user_ids=self._user_ids,
            )


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
