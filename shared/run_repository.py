"""The SQL functions behind the REST API: opening manual runs, reading runs and changing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import BeforeValidator

from shared.config import ScenarioEvaluationConfig
from shared.database import Database, Repository
from shared.invocation import Invocation, InvocationDetail, ListedInvocation, Moment, Shape
from shared.scenario_table import ScenarioTable
from shared.schedule import UsedSlot
from shared.slice_repository import Canary, OpenInvocation

OpenOutcome = Literal[
    "opened",
    "scenarios_changed",
    "types_refused",
    "same",
    "other_request",
    "deleted",
    "retry_source_unknown",
    "retry_source_open",
    "retry_already_open",
    "nothing_to_retry",
    "retry_window_closed",
]


class OpenedRun(Shape):
    """The invocation is None unless the outcome is `opened` or `same`: the key's invocation was there already.

    `work`: what a slice needs of it, where this call opened it.
    """

    outcome: OpenOutcome
    invocation: Invocation | None
    canary: Canary
    engine_answered_recently: bool = False
    work: Annotated[OpenInvocation | None, BeforeValidator(OpenInvocation.from_row)] = None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the list: just after this invocation, or this entry of the audit."""

    invoked_at: str
    id: str


class RunPage(Shape):
    """A page of the list; `next`: where the next one begins, None at the end; `total`: None with a mentor."""

    items: list[ListedInvocation]
    next: Position | None
    total: int | None


class Pair(NamedTuple):
    """A place in the results of a run: just after this pair."""

    user_id: UUID
    scenario_type: str


class EvaluationsPage(Shape):
    """A page of a run's stored results, as rows; `next`: where the next one begins, None at the end."""

    items: list[dict[str, Any]]
    next: Pair | None
    is_open: bool


class EndedRun(Shape):
    """A scheduled run that ended well."""

    scheduled_for: Moment
    finished_at: Moment
    status: Literal["success", "partial"]


@dataclass(frozen=True, slots=True)
class LastSuccess:
    """The newest scheduled run that ended well, if any, and the time by the database's clock.

    `paused_at`: since when the schedule is paused; None: it is not.
    """

    now: datetime
    run: EndedRun | None
    paused_at: datetime | None = None


class RunRepository(Repository):
    """The records of all invocations, in the database."""

    def __init__(self, database: Database, config: ScenarioEvaluationConfig, table: ScenarioTable) -> None:
        super().__init__(database, config)
        self._table = table

    async def open(
        self,
        invocation_id: str,
        *,
        request: dict[str, Any],
        request_hash: str,
        idempotency_key: str | None,
        dry_run: bool,
        retry_of: str | None,
        note: str | None,
        reason: str | None,
        triggered_by: str,
        requested_by: str | None,
        request_slice: bool,
        is_refused: bool,
    ) -> OpenedRun:
        """Opens a manual run; `scenarios_changed`: the table of scenario types was another, and is known now.

        Args:
            invocation_id: a new UUID, so that a call repeated after a lost answer finds what it opened itself.
            request: {"user_ids", "scenario_types", "include_unknown"}, the first two a list or None for all.
            request_hash: a digest of the request, compared when the key is used again.
            triggered_by: the name of the authenticated caller.
            requested_by: the person that the request names.
            dry_run: the engine stores and sends nothing; a retry of a dry run is dry as well.
            is_refused: the caller refuses to open it; an invocation that the key has opened before is returned.
            request_slice: the database requests a slice at once, because the caller does not wait for one.
        """
        answer = await self._database.call(
            "scheduler_open",
            invocation_id=invocation_id,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
            request=request,
            dry_run=dry_run,
            retry_of=retry_of,
            note=note,
            reason=reason,
            triggered_by=triggered_by,
            requested_by=requested_by,
            config=self._config.recorded_settings() | self._table.recorded(),
            scenario_version=self._table.version,
            expires_after_hours=self._config.invocation_expires_after_hours,
            engine_key_ttl_hours=self._config.engine_key_ttl_hours,
            time_budget_seconds=self._config.time_budget_seconds,
            request_slice=request_slice,
            is_refused=is_refused,
        )
        self._table.learn(answer.get("scenario_config"))
        return OpenedRun.model_validate(answer)

    async def list(
        self,
        *,
        statuses: Sequence[str] | None,
        trigger: Sequence[str] | None,
        triggered_by: Sequence[str] | None,
        scheduled_from: datetime | None,
        scheduled_to: datetime | None,
        user_id: str | None,
        limit: int,
        offset: int,
        after: Position | None,
    ) -> RunPage:
        """Reads a page of the list, the newest first; a filter that is None is none, a time limit is inclusive.

        Args:
            user_id: only invocations with this mentor, each with the mentor's results.
            after: where the page before ended.
        """
        answer = await self._database.call(
            "scheduler_list",
            statuses=statuses,
            trigger=trigger,
            triggered_by=triggered_by,
            scheduled_from=scheduled_from.isoformat() if scheduled_from else None,
            scheduled_to=scheduled_to.isoformat() if scheduled_to else None,
            user_id=user_id,
            limit=limit,
            offset=offset,
            after_invoked_at=after.invoked_at if after else None,
            after_id=after.id if after else None,
        )
        items = [item | {"deduplicated": True} for item in answer["items"]]  # a member that is not set is not sent
        return RunPage.model_validate(answer | {"items": items})

    async def used_slots(self, first: datetime, last: datetime) -> Sequence[UsedSlot]:
        """Reads the used slots of this span, its ends included, the latest first; at most about 1,000."""
        rows = await self._database.call("scheduler_used_slots", **{"from": first.isoformat(), "to": last.isoformat()})
        schedules = [(row["schedule"], row["timezone"]) for row in rows]
        slots = [datetime.fromisoformat(row["scheduled_for"]) for row in rows]
        return [UsedSlot(slot, each if all(each) else None) for slot, each in zip(slots, schedules, strict=True)]

    async def get(self, invocation_id: str) -> InvocationDetail | None:
        """Returns one invocation with everything that is known of it; None where there is none."""
        found = await self._database.call(
            "scheduler_get",
            invocation_id=invocation_id,
            engine_key_ttl_hours=self._config.engine_key_ttl_hours,
        )
        return None if found is None else InvocationDetail.model_validate(found)

    async def evaluations(
        self,
        invocation_id: str,
        *,
        outcomes: Sequence[str] | None,
        code: str | None,
        scenario_type: str | None,
        limit: int,
        after: Pair | None,
    ) -> EvaluationsPage | None:
        """Reads a page of a run's stored results; a filter that is None is none. Returns None where there is no run."""
        answer = await self._database.call(
            "scheduler_evaluations_page",
            invocation_id=invocation_id,
            outcomes=outcomes,
            code=code,
            scenario_type=scenario_type,
            limit=limit,
            after_user_id=str(after.user_id) if after else None,
            after_scenario_type=after.scenario_type if after else None,
        )
        return None if answer is None else EvaluationsPage.model_validate(answer)

    async def update(
        self,
        invocation_id: str,
        *,
        status: str | None,
        error_message: str | None,
        set_note: bool,
        note: str | None,
        actor: str,
    ) -> tuple[Literal["updated", "ended_otherwise"], Invocation] | None:
        """Ends an open invocation, sets its note (None: removes it), or both; returns None where there is none.

        Args:
            status: `cancelled` or `failed`; None: it goes on.
            error_message: of `failed`.
            actor: the name of the authenticated caller.
        """
        answer = await self._database.call(
            "scheduler_update",
            invocation_id=invocation_id,
            status=status,
            error_message=error_message,
            set_note=set_note,
            note=note,
            actor=actor,
        )
        if answer is None:
            return None
        invocation = Invocation.model_validate(answer["invocation"])
        return "ended_otherwise" if answer["ended_otherwise"] else "updated", invocation

    async def delete(self, invocation_id: str, *, actor: str) -> Literal["deleted", "open"] | None:
        """Removes an invocation that has ended from the API; returns None where there is none."""
        answer: Literal["deleted", "open"] | None
        answer = await self._database.call("scheduler_delete", invocation_id=invocation_id, actor=actor)
        return answer

    async def last_success(self) -> LastSuccess:
        """Returns the newest scheduled run that ended `success` or `partial`."""
        answer = await self._database.call("scheduler_last_success")
        run = None if answer["run"] is None else EndedRun.model_validate(answer["run"])
        paused_at = answer["paused_at"]
        return LastSuccess(
            datetime.fromisoformat(answer["clock"]),
            run,
            None if paused_at is None else datetime.fromisoformat(paused_at),
        )
