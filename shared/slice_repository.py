"""The SQL functions of a slice: opening the due slot, permits to call the engine, ending invocations and the slice."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

from shared.config import ScenarioEvaluationConfig
from shared.database import Database, Repository
from shared.deadline import Deadline
from shared.evaluations import MentorScenarios
from shared.invocation import Cause, InvocationSummary, Shape
from shared.scenario_config import Scenarios
from shared.scenario_table import ScenarioTable

# Calls end with the time budget of their slice; a process that is short of CPU notices it late.
PERMIT_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Enumeration:
    """The mentors of an invocation, and how far they were read.

    Args:
        cursor: the position, in the terms of functions/runs/mentor_selection.py; None: the start.
        is_retry: it is about what another invocation left unfinished.
        retry_of: that invocation; None where it is gone.
        user_ids: in their order; None: all active mentors.
        scenario_types: None: all that apply.
        scenarios: which types apply to which mentors, as frozen when it was opened.
        include_unknown: of what another invocation left, also pairs whose outcome the engine left unknown.
    """

    cursor: str | None = None
    done: bool = False
    is_retry: bool = False
    retry_of: str | None = None
    user_ids: tuple[str, ...] | None = None
    scenario_types: frozenset[str] | None = None
    include_unknown: bool = False
    scenarios: Scenarios = field(default_factory=Scenarios)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Enumeration:
        """Reads it as the database writes it; a run whose mentors are all read has neither request nor scenarios."""
        request = row.get("request") or {}
        user_ids, scenario_types = request.get("user_ids"), request.get("scenario_types")
        return cls(
            cursor=row["enumeration_cursor"],
            done=row["enumeration_done"],
            is_retry=row["trigger"] == "retry",
            retry_of=row["retry_of"],
            user_ids=None if user_ids is None else tuple(user_ids),
            scenario_types=None if scenario_types is None else frozenset(scenario_types),
            include_unknown=request.get("include_unknown", False),
            scenarios=Scenarios.model_validate(row.get("scenarios") or {}),
        )


@dataclass(frozen=True, slots=True)
class OpenInvocation:
    """An open invocation: what a slice needs of it."""

    id: str
    scheduled_for: str
    trigger: str
    enumeration: Enumeration

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> OpenInvocation:
        """Reads it as the database writes it."""
        return cls(row["id"], row["scheduled_for"], row["trigger"], Enumeration.from_row(row))


def _to_canary(pair: dict[str, str] | None) -> MentorScenarios | None:
    return MentorScenarios(pair["user_id"], (pair["scenario_type"],)) if pair else None


# A pair that the engine has answered before, if any.
Canary = Annotated[MentorScenarios | None, BeforeValidator(_to_canary)]


class EndedInvocation(Shape):
    """An invocation that ended, the commonest causes of its failures, and who ended it; None: it expired."""

    invocation: InvocationSummary
    failures: list[Cause]
    ended_by: str | None


class OpenedSlot(Shape):
    """What opening a slot found.

    Args:
        not_a_slot: the requested slot is neither due nor was ever opened.
        invocation: the slot's; None where there is none.
        open: what this slice is to enumerate and finish, the oldest first.
        more_open: more is open than that.
        engine_answered_recently: a batch with an answer of the engine was recorded within the last time budget.
        poison_overdue: a poison batch has waited for ten minutes.
        ended: runs that expired or that an operator ended, 50 at most; returned once, so the caller has to log them.
    """

    opened: bool
    not_a_slot: bool
    invocation: InvocationSummary | None
    open: list[Annotated[OpenInvocation, BeforeValidator(OpenInvocation.from_row)]]
    more_open: bool
    canary: Canary
    engine_answered_recently: bool
    alert_due: bool
    poison_overdue: bool
    ended: list[EndedInvocation]


class FinishedInvocation(Shape):
    """An invocation after a try to end it, None where it is gone; with the commonest causes if this call ended it."""

    ended_now: bool
    invocation: InvocationSummary | None
    failures: list[Cause]


class SliceRepository(Repository):
    """State changes at the start and the end of a slice."""

    def __init__(self, database: Database, config: ScenarioEvaluationConfig, table: ScenarioTable) -> None:
        super().__init__(database, config)
        self._table = table

    async def open_slot(self, now: datetime, requested_slot: datetime | None, triggered_by: str) -> OpenedSlot:
        """Opens the due slot unless it is open, and returns what is open.

        Args:
            now: this machine's clock; where the database's clock sees another slot, its time is used, and where the
                table of scenario types has changed, that is.
            requested_slot: a whole UTC minute; None: the slot that is due.
            triggered_by: kept with what this call opens.
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
                triggered_by=triggered_by,
                config=config.recorded_settings() | self._table.recorded(),
                scenario_version=self._table.version,
                fires=self._table.scenarios.fires(due, config.evaluation_timezone),
            )
            if "open" in answer:
                return OpenedSlot.model_validate(answer)
            self._table.learn(answer.get("scenario_config"))
            now = datetime.fromisoformat(answer["clock"])

    def new_permit_id(self) -> str | None:
        """Returns an id for `take_permit`; None where no `ENGINE_MAX_CONCURRENCY_TOTAL` is set."""
        return None if self._config.engine_max_concurrency_total is None else str(uuid.uuid4())

    async def take_permit(self, permit_id: str | None, deadline: Deadline, *, is_manual: bool) -> bool:
        """Takes a permit, which ends with `end_slice` or expires; returns whether the engine may be called.

        Args:
            permit_id: one for each request that may call; None: it needs no permit.
            deadline: of the request, whose calls are from now on spaced as `ENGINE_MAX_CALLS_PER_MINUTE` says.
            is_manual: of a manual slice or an evaluation-batch; one permit is kept for them.
        """
        if permit_id is None:
            return True
        config = self._config
        is_taken: bool = await self._database.call(
            "scheduler_take_permit",
            permit_id=permit_id,
            calls=config.engine_max_concurrency,
            total=config.engine_max_concurrency_total,
            is_manual=is_manual,
            seconds=deadline.remaining() + PERMIT_MARGIN_SECONDS,
            per_minute=config.calls_per_minute,
            total_per_minute=config.engine_max_calls_per_minute,
        )
        # Only after the answer: the holder before may have called until the database counted it out.
        deadline.space_calls(config.seconds_between_calls)
        return is_taken

    async def finish(self, invocation_id: str, *, waits_for_view: bool = False) -> FinishedInvocation:
        """Ends the invocation if everything of it is recorded.

        `waits_for_view`: the mentors' view cannot be read; the invocation shows it while it is open.
        """
        answer = await self._database.call(
            "scheduler_finish", invocation_id=invocation_id, waits_for_view=waits_for_view
        )
        return FinishedInvocation.model_validate(answer | {"failures": answer["failures"] or []})

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
        """Ends this slice in the database.

        Args:
            progressed: it queued or recorded something, so the next slice is requested at once.
            engine_answers: the engine served it, so an earlier outage is over.
            engine_error: `engine_unavailable` or `engine_rejected`: all workers are to pause.
            engine_message: what was wrong; cut to 300 characters.
            engine_permit_id: the permit that the slice had, or had requested.
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
