"""Nights that are over, written as the scheduler would have left them: no test waits for a month of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tests.emulator.connections import Connection
from tests.integration.nightly.night import Night

TYPES = ("inactivity_30_days", "milestone_reached")
CONFIG = {
    "evaluation_batch_size": 100,
    "evaluation_timezone": "UTC",
    "engine_max_concurrency_total": None,
    "scenario_types": [
        {"type": "inactivity_30_days", "enabled": True, "segments": ["established"]},
        {"type": "milestone_reached", "enabled": True, "segments": []},
    ],
}
INSERT_RUN = b"""
insert into public.scheduler_invocations (
  idempotency_key, triggered_by, status, scheduled_for, created_at, started_at, finished_at, expires_at, config,
  engine_scope, engine_scope_since, enumeration_done, error
) values (
  scheduler.slot_key(%(slot)s), 'schedule', %(status)s, %(slot)s, %(opened)s, %(started)s, %(ended)s,
  %(opened)s + interval '20 hours', %(config)s, scheduler.slot_key(%(slot)s), %(opened)s, true, %(error)s
) returning id
"""
INSERT_BATCH = b"""
insert into public.scheduler_invocation_batches (
  invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, queue, msg_id, state, deliveries,
  triggered, not_triggered, failed, not_evaluated, scenario_counts, failure_counts, duration_ms, finished_at
)
select %(run)s, %(batch_no)s, jsonb_build_array(
         jsonb_build_object('scenario_types', %(types)s::jsonb, 'user_ids', to_jsonb(%(users)s::text[]))),
       (%(users)s::uuid[])[1], (%(users)s::uuid[])[cardinality(%(users)s::uuid[])], cardinality(%(users)s::uuid[]),
       %(evaluations)s, 'scenario_evaluation_batches', 0, %(state)s, 1, %(triggered)s, %(not_triggered)s,
       %(failed)s, %(not_evaluated)s, %(counts)s, %(causes)s, 100, now()
"""
INSERT_FAILURES = b"""
insert into public.scheduler_evaluations (
  invocation_id, user_id, scenario_type, outcome, attempts, error_code, error_message
)
select %(run)s, user_id, 'milestone_reached', 'failed', 5, %(code)s, %(message)s
  from unnest(%(users)s::uuid[]) as user_id
"""
MANY = b"""
with opened as (
  insert into public.scheduler_invocations (
    idempotency_key, triggered_by, status, scheduled_for, created_at, started_at, finished_at, expires_at, config,
    engine_scope, enumeration_done
  )
  select scheduler.slot_key(slot), 'schedule', 'succeeded', slot, slot, slot, slot + interval '30 s',
         slot + interval '20 hours', %(config)s, scheduler.slot_key(slot), true
    from generate_series(1, %(number)s) as nights (ago)
   cross join lateral (select %(newest)s::timestamptz - make_interval(days => nights.ago - 1) as slot) as night
  returning id
)
insert into public.scheduler_invocation_batches (
  invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, queue, msg_id, state,
  not_triggered, scenario_counts, finished_at
)
select opened.id, 1,
       jsonb_build_array(jsonb_build_object('scenario_types', '["milestone_reached"]'::jsonb,
                                            'user_ids', jsonb_build_array(%(user)s::text))),
       %(user)s::uuid, %(user)s::uuid, 1, 1, 'scenario_evaluation_batches', 0, 'done', 1,
       '{"milestone_reached": {"not_triggered": 1}}', now()
  from opened
"""


@dataclass(frozen=True)
class Past:
    """One night that is over.

    Args:
        ago: how many days before the newest slot.
        status: how it ended.
        failed: so many mentors, by the cause of their failure.
        not_evaluated: so many mentors, both types.
        late: how long after its slot it started.
        took: from start to end.
        error: why it ended so.
    """

    ago: int
    status: str = "succeeded"
    failed: dict[str, int] | None = None
    not_evaluated: int = 0
    late: timedelta = timedelta(seconds=3)
    took: timedelta = timedelta(seconds=9)
    error: str | None = None


class History:
    """Writes nights that are over into a project's database.

    Args:
        night: whose project, schedule and mentors.
    """

    def __init__(self, night: Night) -> None:
        self._night = night

    def slot(self, ago: int) -> datetime:
        """The slot of so many days before the newest."""
        return self._night.slot - timedelta(days=ago)

    @property
    def config(self) -> str:
        """The settings in force, as far as they are recorded with each night."""
        return json.dumps(CONFIG | {"evaluation_schedule": self._night.schedule})

    async def add(self, *nights: Past) -> list[str]:
        """Writes these, and answers their ids."""
        async with self._night.project.connect() as connection:
            return [await self._add(connection, past) for past in nights]

    async def add_many(self, number: int, user_id: str) -> None:
        """Writes so many nights of this one mentor in which nothing happened, up to the newest slot."""
        async with self._night.project.connect() as connection:
            values = {"number": number, "newest": self._night.slot, "config": self.config, "user": user_id}
            await connection.execute(MANY, values)

    async def settle(self) -> None:
        """As after all of them: nothing is due before tomorrow."""
        await self._night.execute(
            b"update scheduler.settings set slot_high_water_mark = %s, next_due_at = %s",
            [self._night.slot, self._night.slot + timedelta(days=1)],
        )

    async def _add(self, connection: Connection, past: Past) -> str:
        slot = self.slot(past.ago)
        started = slot + past.late
        skipped = past.status == "skipped"
        row: dict[str, Any] = {
            "slot": slot,
            "status": past.status,
            "opened": started,
            "started": None if skipped else started,
            "ended": started if skipped else started + past.took,
            "config": self.config,
            "error": past.error,
        }
        ((run,),) = await (await connection.execute(INSERT_RUN, row)).fetchall()
        if skipped or past.error == "no_active_mentors" or not self._night.mentors:
            return str(run)
        users = sorted(self._night.mentors)
        failed = past.failed or {}
        undone, done = users[: past.not_evaluated], users[past.not_evaluated :]
        for batch_no, (state, of_batch) in enumerate((("done", done), ("abandoned", undone)), 1):
            if of_batch:
                await self._batch(connection, run, batch_no, state, of_batch, failed if state == "done" else {})
        begin = 0
        for code, number in failed.items():
            message = f"the engine answered {code[-3:]}" if code[-3:].isdigit() else None
            values = {"run": run, "code": code, "message": message, "users": done[begin : begin + number]}
            await connection.execute(INSERT_FAILURES, values)
            begin += number
        return str(run)

    async def _batch(
        self, connection: Connection, run: str, batch_no: int, state: str, users: list[str], causes: dict[str, int]
    ) -> None:
        failed = sum(causes.values())
        evaluations = 2 * len(users)
        triggered = evaluations // 9 if state == "done" else 0
        inactive = {"triggered": triggered, "not_triggered": len(users) - triggered}
        reached = {"not_triggered": len(users) - failed, "failed": failed}
        counts: dict[str, Any] = {TYPES[0]: inactive, TYPES[1]: reached}
        if state == "abandoned":
            counts = {name: {"not_evaluated": len(users)} for name in TYPES}
        row = {
            "run": run,
            "batch_no": batch_no,
            "state": state,
            "users": users,
            "types": json.dumps(TYPES),
            "evaluations": evaluations,
            "triggered": triggered,
            "not_triggered": evaluations - triggered - failed if state == "done" else 0,
            "failed": failed,
            "not_evaluated": evaluations if state == "abandoned" else 0,
            "counts": json.dumps(counts),
            "causes": json.dumps(causes),
        }
        await connection.execute(INSERT_BATCH, row)
