"""The SQL functions of the queues: enqueueing, claiming, recording, splitting and releasing batches.

The SQL functions hold the rules (supabase/migrations); this module only names their arguments and reads their answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shared.database import from_row
from shared.evaluations import EvaluationBatch, GroupedResults, MentorScenarios, from_pairs, to_pairs
from shared.repository import Repository

# When a claim may return a poison batch: where nothing else is left, or before all else.
Poison = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class ClaimedBatches:
    """What a claim found.

    Args:
        stale: messages of batches that are over, deleted on the way; more may follow.
        poison_waits: nothing else was left, but there are poison batches.
    """

    batches: tuple[EvaluationBatch, ...]
    stale: int
    engine_paused: bool
    poison_waits: bool = False


class QueueRepository(Repository):
    """State changes of batches."""

    async def enqueue(
        self,
        invocation_id: str,
        batches: Sequence[Sequence[MentorScenarios]],
        *,
        expected_cursor: str | None,
        next_cursor: str | None,
        skip_reasons: Mapping[str, int],
        done: bool,
    ) -> bool:
        """Freezes one page of the enumeration.

        Args:
            invocation_id: whose page it is.
            batches: the page's mentors with a scenario type that applies, cut into batches.
            expected_cursor: where the page began; another worker that was faster has moved it on.
            next_cursor: where the next page begins; None leaves it where it is.
            skip_reasons: rows of the page that lead to no evaluation, by reason.
            done: no page follows.

        Returns:
            Whether this worker's page was taken.
        """
        answer = await self._database.call(
            "scheduler_enqueue",
            invocation_id=invocation_id,
            expected_cursor=expected_cursor,
            next_cursor=next_cursor,
            done=done,
            batches=[to_pairs(batch) for batch in batches],
            skip_reasons=dict(skip_reasons),
        )
        return bool(answer["accepted"])

    async def claim(self, quantity: int, *, manual_only: bool, poison: Poison | None = None) -> ClaimedBatches:
        """Claims up to `quantity` batches for `batch_visibility_seconds`, manual ones first, or no others.

        Args:
            quantity: batches, at most.
            manual_only: those of manual runs and no others.
            poison: one batch at most, of whatever kind, and of poison ones when; None: none.
        """
        answer = await self._database.call(
            "scheduler_claim",
            quantity=quantity,
            visibility_seconds=self._config.batch_visibility_seconds,
            manual_only=manual_only,
            poison=poison,
        )
        return ClaimedBatches(
            batches=tuple(from_row(EvaluationBatch, row, users=from_pairs(row["pairs"])) for row in answer["batches"]),
            stale=answer["stale"],
            engine_paused=answer["engine_paused_until"] is not None,
            poison_waits=answer["poison_waits"],
        )

    async def complete(
        self,
        batch: EvaluationBatch,
        results: GroupedResults,
        *,
        remaining: Sequence[str] = (),
        duration_ms: int,
        worker: str,
    ) -> str:
        """Records a batch: rows, counts and the queue's acknowledgement in one transaction.

        Args:
            batch: the batch, as it was claimed.
            results: one for each of its pairs but those of `remaining`.
            remaining: users of it without results, not all of them; they become a batch of their own.
            duration_ms: how long its evaluation took.
            worker: a name for this process.

        Returns:
            `done`, `already_done` (another worker's record stands) or `gone` (the invocation was pruned, or another
            worker split the batch); `remaining` is put back only where it is done.
        """
        state: str = await self._database.call(
            "scheduler_complete",
            invocation_id=batch.invocation_id,
            batch_no=batch.batch_no,
            deliveries=batch.deliveries,
            results=results.stored_rows(),
            scenario_counts=results.scenario_counts(),
            duration_ms=duration_ms,
            worker=worker,
            remaining=list(remaining) or None,
        )
        return state

    async def split(self, batch: EvaluationBatch) -> bool:
        """Replaces a batch by one for each of its users, in the poison queue.

        Args:
            batch: the batch, as it was claimed.

        Returns:
            False where another worker has claimed, split or recorded it since; it is not ours any more in any case.
        """
        return bool(
            await self._database.call(
                "scheduler_split",
                invocation_id=batch.invocation_id,
                batch_no=batch.batch_no,
                read_count=batch.read_count,
            )
        )

    async def release(self, batch: EvaluationBatch, *, delay_seconds: int = 0, count_delivery: bool) -> None:
        """Releases a batch, to be visible again after `delay_seconds`.

        Args:
            batch: the batch, as it was claimed.
            delay_seconds: how long it stays hidden.
            count_delivery: the batch may have had a part in it, so this delivery counts.
        """
        await self._database.call(
            "scheduler_release",
            invocation_id=batch.invocation_id,
            batch_no=batch.batch_no,
            read_count=batch.read_count,
            delay_seconds=delay_seconds,
            count_delivery=count_delivery,
        )
