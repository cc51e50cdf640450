"""What a slice of work does to invocations: one method for each SQL function.

The SQL functions hold the rules (supabase/migrations); this module only names their arguments and reads their answers.
What callers of the REST API ask for is in `run_repository.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from shared.config import ScenarioEvaluationConfig
from shared.database import Database, from_row
from shared.evaluations import EvaluationBatch, GroupedResults, MentorScenarios, from_pairs, to_pairs

# Calls end with the time budget of their slice; a process that is short of CPU notices it late.
PERMIT_MARGIN_SECONDS = 5.0

# When a claim may return a poison batch: where nothing else is left, or before all else.
Poison = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Enumeration:
    """Who an invocation is about, and how far they were read.

    Args:
        cursor: where it stands, in the terms of whatever is enumerated (functions/runs/mentor_selection.py); None: at the start.
        done: everybody was read.
        is_retry: it is about what another invocation left unfinished.
        retry_of: that invocation; None when it is none, or is gone.
        user_ids: the chosen mentors, in the order of their ids; None: everybody who is active.
        scenario_types: the chosen types; None: all that apply.
    """

    cursor: str | None = None
    done: bool = False
    is_retry: bool = False
    retry_of: str | None = None
    user_ids: tuple[str, ...] | None = None
    scenario_types: frozenset[str] | None = None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Enumeration:
        """Reads it as the database writes it."""
        request = row["request"] or {}
        user_ids, scenario_types = request.get("user_ids"), request.get("scenario_types")
        return cls(
            cursor=row["enumeration_cursor"],
            done=row["enumeration_done"],
            is_retry=row["trigger"] == "retry",
            retry_of=row["retry_of"],
            user_ids=None if user_ids is None else tuple(user_ids),
            scenario_types=None if scenario_types is None else frozenset(scenario_types),
        )


@dataclass(frozen=True, slots=True)
class OpenInvocation:
    """An invocation that is not over, as far as a slice has to know it."""

    id: str
    scheduled_for: str
    trigger: str
    enumeration: Enumeration


@dataclass(frozen=True, slots=True)
class OpenedSlot:
    """What opening a slot found.

    Args:
        opened: this call opened it.
        not_a_slot: the requested slot is neither due nor was ever opened.
        invocation: the slot's invocation as a list shows it, None where there is none.
        open: what this slice is to enumerate and finish, the oldest first.
        more_open: more is open than that.
        canary: somebody whom the engine has answered before, if anybody.
        alert_due: an alert waits to be sent.
        poison_overdue: a poison batch has waited for ten minutes.
    """

    opened: bool
    not_a_slot: bool
    invocation: dict[str, Any] | None
    open: tuple[OpenInvocation, ...]
    more_open: bool
    canary: MentorScenarios | None
    alert_due: bool
    poison_overdue: bool


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


@dataclass(frozen=True, slots=True)
class FinishedInvocation:
    """An invocation after a try to end it.

    Args:
        ended_now: this call did.
        invocation: as a list shows it; None when it is gone.
        failures: the commonest causes, each with `code`, `count` and `is_lower_bound`; none unless this call ended it.
    """

    ended_now: bool
    invocation: dict[str, Any] | None
    failures: Sequence[dict[str, Any]] = ()


def to_canary(pair: dict[str, str] | None) -> MentorScenarios | None:
    """Reads a canary as the database writes it."""
    return MentorScenarios(pair["user_id"], (pair["scenario_type"],)) if pair else None


class QueueRepository:
    """The state of all invocations, in the database.

    Args:
        database: the Data API.
        config: what is recorded with an invocation, and the limits that SQL has to know.

    Every method raises `DatabaseUnavailableError` or `DatabaseRefusedError` where the Data API does not comply.
    """

    def __init__(self, database: Database, config: ScenarioEvaluationConfig) -> None:
        self._database = database
        self._config = config

    async def open_slot(self, now: datetime, requested_slot: datetime | None) -> OpenedSlot:
        """Opens the due slot if nobody has, and tells what is open.

        Args:
            now: this machine's clock. Only a hint: where the database's clock sees another slot, its own time is used.
            requested_slot: the slot that the caller named, a whole UTC minute; None: whatever is due.
        """
        config = self._config
        while True:
            due, following = config.schedule.current_and_next(now)
            answer = await self._database.call(
                "scheduler_open_slot",
                due_slot=due.isoformat(),
                next_slot=following.isoformat(),
                requested_slot=requested_slot.isoformat() if requested_slot else None,
                missed_slot_max_gap_hours=config.missed_slot_max_gap_hours,
                expires_after_hours=config.invocation_expires_after_hours,
                max_workers=config.slices_at_a_time,
                time_budget_seconds=config.time_budget_seconds,
                retention_days=config.retention_days,
                config=config.in_force(),
            )
            if "open" in answer:
                break
            now = datetime.fromisoformat(answer["clock"])
        rows = [from_row(OpenInvocation, row, enumeration=Enumeration.from_row(row)) for row in answer["open"]]
        return from_row(OpenedSlot, answer, open=tuple(rows), canary=to_canary(answer["canary"]))

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
            batches: the page's mentors to whom some scenario applies, cut into batches.
            expected_cursor: where the page began; another worker that was faster has moved it on.
            next_cursor: where the next page begins; None leaves it where it is.
            skip_reasons: rows of the page that lead to no evaluation, by reason.
            done: nobody comes after this page.

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

    def new_permit_id(self) -> str | None:
        """Returns an id for `take_permit`; None where no `ENGINE_MAX_CONCURRENCY_TOTAL` is set."""
        return None if self._config.engine_max_concurrency_total is None else str(uuid.uuid4())

    async def take_permit(self, permit_id: str | None, *, is_manual: bool, seconds: float) -> bool:
        """Takes a permit to call the engine; it ends with `end_slice`, or expires. Asks nothing where the id is None.

        Args:
            permit_id: one for each request that may call, from `new_permit_id`.
            is_manual: of a manual slice or an evaluation-batch; one permit is kept for them.
            seconds: until the request makes no more calls.

        Returns:
            Whether the engine may be called.
        """
        return permit_id is None or bool(
            await self._database.call(
                "scheduler_take_permit",
                permit_id=permit_id,
                calls=self._config.engine_max_concurrency,
                total=self._config.engine_max_concurrency_total,
                is_manual=is_manual,
                seconds=seconds + PERMIT_MARGIN_SECONDS,
            )
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
            remaining: users of it without results, but not all of them: they become a batch of their own at the same time.
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
        """Gives a batch back, to be visible again after `delay_seconds`.

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

    async def finish(self, invocation_id: str, *, waits_for_view: bool = False) -> FinishedInvocation:
        """Ends the invocation if everything of it is recorded.

        Args:
            invocation_id: the invocation.
            waits_for_view: the mentors' view cannot be read; the invocation says so while it is open.
        """
        answer = await self._database.call(
            "scheduler_finish", invocation_id=invocation_id, waits_for_view=waits_for_view
        )
        return from_row(FinishedInvocation, answer, failures=answer["failures"] or ())

    async def end_slice(
        self,
        *,
        dispatch_id: int | None,
        progressed: bool,
        engine_answers: bool,
        engine_error: str | None = None,
        retry_after_seconds: float | None = None,
        engine_message: str | None = None,
        engine_permit_id: str | None = None,
    ) -> None:
        """Says that this slice is at its end.

        Args:
            dispatch_id: the dispatch that this slice answers, if one.
            progressed: it queued or recorded something, so the next slice shall come at once.
            engine_answers: the engine served it, so an earlier outage is over.
            engine_error: `engine_unavailable` or `engine_rejected`: all workers are to pause.
            engine_message: what was wrong, for people; cut to 300 characters.
            retry_after_seconds: how long the engine asked us to wait, if it did.
            engine_permit_id: the permit that the slice had, or had asked for.
        """
        await self._database.call(
            "scheduler_end_slice",
            dispatch_id=dispatch_id,
            progressed=progressed,
            engine_answers=engine_answers,
            engine_error=engine_error,
            engine_message=engine_message,
            retry_after_seconds=None if retry_after_seconds is None else round(retry_after_seconds + 0.5),
            engine_permit_id=engine_permit_id,
        )
