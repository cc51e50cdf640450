"""The SQL functions of the queues: enqueueing, claiming, recording, splitting and releasing batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shared.database import Repository, from_row
from shared.evaluations import EvaluationBatch, GroupedResults, MentorScenarios, from_pairs, to_pairs

# When a claim may return a poison batch: before all else, or where nothing else is left.
Poison = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class ClaimedBatches:
    """What a claim found; with `stale` messages, of batches that are over, it deleted them, and more may follow.

    `poison_waits`: nothing else was left, but there are poison batches.
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
        """Freezes one page of the enumeration; returns False where another worker was faster.

        Args:
            expected_cursor: where the page began.
            next_cursor: where the next page begins; None leaves it where it is.
            skip_reasons: rows of the page that lead to no evaluation, by reason.
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

        `poison`: one batch at most, of whatever kind, and of poison ones when; None: no poison batch.
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
        remaining: Sequence[str],
        duration_ms: int,
        worker: str,
    ) -> str:
        """Records a batch: rows, counts and the queue's acknowledgement in one transaction.

        `remaining`: users without results, not all of the batch's; where this is done, they become another batch.

        Returns:
            `done`, `already_done` (another worker's record stands) or `gone` (the invocation was pruned, or another
            worker split the batch).
        """
        state: str = await self._database.call(
            "scheduler_complete",
            invocation_id=batch.invocation_id,
            batch_no=batch.batch_no,
            deliveries=batch.deliveries,
            results=results.stored_rows(),
            scenario_counts=results.scenario_counts(),
            users_evaluated=results.users_evaluated(),
            duration_ms=duration_ms,
            worker=worker,
            remaining=list(remaining) or None,
        )
        return state

    async def split(self, batch: EvaluationBatch) -> bool:
        """Replaces a batch by one for each of its users, in the poison queue.

        Returns False where another worker has claimed, split or recorded it since; in no case is it ours any more.
        """
        return bool(await self._database.call("scheduler_split", **_claim_of(batch)))

    async def release(self, batch: EvaluationBatch, *, delay_seconds: int = 0, count_delivery: bool) -> None:
        """Releases a batch, to be visible again after `delay_seconds`.

        `count_delivery`: the batch may have had a part in it, so this delivery counts.
        """
        await self._database.call(
            "scheduler_release", **_claim_of(batch), delay_seconds=delay_seconds, count_delivery=count_delivery
        )


def _claim_of(batch: EvaluationBatch) -> dict[str, Any]:
    return {"invocation_id": batch.invocation_id, "batch_no": batch.batch_no, "read_count": batch.read_count}
