"""The SQL functions behind the REST API: opening manual runs, reading runs, and changing them.

The rules are in SQL (supabase/migrations); this module names their arguments and reads their answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from shared.database import from_row
from shared.evaluations import MentorScenarios
from shared.invocation import Invocation, InvocationDetail, ListedInvocation, Moment, Shape
from shared.repository import Repository
from shared.schedule import UsedSlot
from shared.slice_repository import to_canary

OpenOutcome = Literal[
    "opened",
    "same",
    "other_request",
    "deleted",
    "retry_source_unknown",
    "retry_source_open",
    "retry_already_open",
    "nothing_to_retry",
    "retry_window_closed",
]


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """What opening a run came to.

    Args:
        outcome: `opened`, `same` (the key's invocation was there already), or why not.
        invocation: as callers see it; None unless opened or the same.
        canary: a pair that the engine has answered before, if any.
    """

    outcome: OpenOutcome
    invocation: Invocation | None
    canary: MentorScenarios | None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the list: just after this invocation."""

    created_at: str
    id: str


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of the list; `next`: where the next one begins, None at the end."""

    items: list[ListedInvocation]
    next: Position | None


class EndedRun(Shape):
    """A scheduled run that ended well."""

    scheduled_for: Moment
    finished_at: Moment
    status: Literal["success", "partial"]


@dataclass(frozen=True, slots=True)
class LastSuccess:
    """The newest scheduled run that ended well, and the time by the clock that it ended by, the database's.

    Args:
        now: the database's clock.
        run: None: there is none.
    """

    now: datetime
    run: EndedRun | None


class RunRepository(Repository):
    """The records of all invocations, in the database."""

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
        request_slice: bool,
    ) -> OpenedRun:
        """Opens a manual run.

        Args:
            invocation_id: a new UUID, so that a call repeated after a lost answer finds what it opened itself.
            request: {"user_ids", "scenario_types"}, each a list or None for all.
            request_hash: a digest of the request, compared when the key is used again.
            idempotency_key: the client's, if it sent one.
            dry_run: nothing is stored or sent by the engine; what retries a dry run is one itself.
            retry_of: evaluate what this invocation left unfinished.
            note: for people.
            request_slice: have the database request a slice at once, because the caller does not wait for one.
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
            config=self._config.recorded_settings(),
            expires_after_hours=self._config.invocation_expires_after_hours,
            engine_key_ttl_hours=self._config.engine_key_ttl_hours,
            request_slice=request_slice,
        )
        found = Invocation.model_validate(answer["invocation"]) if answer["invocation"] else None
        return from_row(OpenedRun, answer, canary=to_canary(answer["canary"]), invocation=found)

    async def list(
        self,
        *,
        statuses: Sequence[str] | None,
        trigger: Sequence[str] | None,
        scheduled_from: datetime | None,
        scheduled_to: datetime | None,
        user_id: str | None,
        limit: int,
        after: Position | None,
    ) -> RunPage:
        """Reads a page of the list, the newest first; a filter that is None is none.

        Args:
            statuses: any of these.
            trigger: any of these.
            scheduled_from: the earliest slot, itself included.
            scheduled_to: the latest slot, itself included.
            user_id: only invocations with this mentor, each with the mentor's results.
            limit: how many.
            after: where the page before ended.
        """
        answer = await self._database.call(
            "scheduler_list",
            statuses=statuses,
            trigger=trigger,
            scheduled_from=scheduled_from.isoformat() if scheduled_from else None,
            scheduled_to=scheduled_to.isoformat() if scheduled_to else None,
            user_id=user_id,
            limit=limit,
            after_created_at=after.created_at if after else None,
            after_id=after.id if after else None,
        )
        items = [ListedInvocation.model_validate(item | {"deduplicated": True}) for item in answer["items"]]
        return RunPage(items, from_row(Position, answer["next"]) if answer["next"] else None)

    async def used_slots(self, first: datetime, last: datetime) -> Sequence[UsedSlot]:
        """Reads the used slots of this span, its ends included, the latest first; at most about 1,000."""
        answer = await self._database.call(
            "scheduler_used_slots", **{"from": first.isoformat(), "to": last.isoformat()}
        )
        return [
            UsedSlot(
                datetime.fromisoformat(row["scheduled_for"]),
                (row["schedule"], row["timezone"]) if row["schedule"] and row["timezone"] else None,
            )
            for row in answer
        ]

    async def get(self, invocation_id: str) -> InvocationDetail | None:
        """Returns one invocation with everything that is known of it; None when there is none."""
        found = await self._database.call("scheduler_get", invocation_id=invocation_id)
        return None if found is None else InvocationDetail.model_validate(found)

    async def update(
        self, invocation_id: str, *, cancel: bool, set_note: bool, note: str | None
    ) -> tuple[Literal["updated", "ended_otherwise"], Invocation] | None:
        """Cancels an invocation, sets or (None) takes away its note, or both.

        Returns:
            What came of it and the invocation as it is then; None when there is none.
        """
        answer = await self._database.call(
            "scheduler_update", invocation_id=invocation_id, cancel=cancel, set_note=set_note, note=note
        )
        if answer is None:
            return None
        return "ended_otherwise" if answer["ended_otherwise"] else "updated", Invocation.model_validate(
            answer["invocation"]
        )

    async def delete(self, invocation_id: str) -> Literal["deleted", "open"] | None:
        """Takes an invocation that has ended out of the API; None when there is none."""
        outcome: Literal["deleted", "open"] | None = await self._database.call(
            "scheduler_delete", invocation_id=invocation_id
        )
        return outcome

    async def last_success(self) -> LastSuccess:
        """Returns the newest scheduled run that ended `success` or `partial`."""
        answer = await self._database.call("scheduler_last_success")
        run = None if answer["run"] is None else EndedRun.model_validate(answer["run"])
        return LastSuccess(datetime.fromisoformat(answer["clock"]), run)
