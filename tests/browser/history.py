"""Runs that are over, written as the scheduler would have left them: no test waits for a month of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.integration.scheduled_runs.harness import Harness

TYPES = ("inactivity", "milestone")
CONFIG = {
    "evaluation_batch_size": 100,
    "evaluation_timezone": "UTC",
    "engine_max_concurrency_total": None,
    "scenarios": {"types": [{"type": name, "enabled": True, "segments": []} for name in TYPES]},
}
INSERT_RUN = b"""
insert into public.scheduler_invocations (
  idempotency_key, trigger, triggered_by, status, scheduled_for, invoked_at, started_at, finished_at, expires_at,
  config, engine_scope, engine_scope_since, enumeration_done, error_code, end_is_logged
) values (
  scheduler.slot_key(%(slot)s), 'schedule', 'pg_cron', %(status)s, %(slot)s, %(opened)s, %(started)s, %(ended)s,
  %(opened)s + interval '20 hours', %(config)s, scheduler.slot_key(%(slot)s), %(opened)s, true, %(error_code)s, true
) returning id
"""
REPEAT_RUN = b"""
insert into public.scheduler_invocations (
  idempotency_key, trigger, triggered_by, status, scheduled_for, invoked_at, started_at, finished_at, expires_at,
  config, engine_scope, engine_scope_since, enumeration_done, end_is_logged
)
select scheduler.slot_key(scheduled_for - ago), trigger, triggered_by, status, scheduled_for - ago, invoked_at - ago,
       started_at - ago, finished_at - ago, expires_at - ago, config, scheduler.slot_key(scheduled_for - ago),
       engine_scope_since - ago, true, true
  from public.scheduler_invocations, generate_series(%s::int, %s::int) as days,
       make_interval(days => days) as ago
 where id = %s
"""
INSERT_BATCH = b"""
insert into public.scheduler_invocation_batches (
  invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, mentors_left, evaluations, queue, msg_id, state,
  deliveries, triggered, not_triggered, failed, not_evaluated, users_evaluated, scenario_counts, failure_counts,
  duration_ms, finished_at
)
select %(run)s, %(batch_no)s, jsonb_build_array(
         jsonb_build_object('scenario_types', %(types)s::jsonb, 'user_ids', to_jsonb(%(users)s::text[]))),
       (%(users)s::uuid[])[1], (%(users)s::uuid[])[cardinality(%(users)s::uuid[])], cardinality(%(users)s::uuid[]),
       %(left)s, 2 * cardinality(%(users)s::uuid[]), 'scenario_evaluation_batches', 0, %(state)s, 1, %(triggered)s,
       %(not_triggered)s, %(failed)s, %(not_evaluated)s, %(users_evaluated)s, %(counts)s, %(causes)s, 100, now()
"""
INSERT_FAILURES = b"""
insert into public.scheduler_evaluations (
  invocation_id, user_id, scenario_type, outcome, attempts, error_code, error_message
)
select %s, user_id, 'milestone', 'failed', 5, %s, %s from unnest(%s::uuid[]) as user_id
"""
PAUSE_ENGINE = b"update scheduler.settings set engine_paused_until = now() + interval '10 minutes', engine_outages = 3"
PAUSE_SCHEDULE = b"update scheduler.settings set paused_at = now(), paused_by = 'berit', pause_reason = repeat('x', 80)"


@dataclass(frozen=True)
class Past:
    """One run that is over: `ago` days before the newest slot, with so many mentors failed (by cause) or not evaluated.

    It started `late` after its slot, `took` so long, and has an `error_code` if that is why it ended so.
    """

    ago: int
    status: str = "success"
    failed: dict[str, int] = field(default_factory=dict)
    not_evaluated: int = 0
    late: timedelta = timedelta(seconds=3)
    took: timedelta = timedelta(seconds=9)
    error_code: str | None = None


class History:
    """Writes runs that are over into the database of a test's project, with its schedule and mentors."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def slot(self, ago: int) -> datetime:
        """The slot of so many days before the newest."""
        return self._harness.slot - timedelta(days=ago)

    async def settle(self) -> None:
        """As after all of them: nothing is due before tomorrow."""
        await self._harness.execute(
            b"update scheduler.settings set slot_high_water_mark = %s, next_due_at = %s", [self.slot(0), self.slot(-1)]
        )

    async def add(self, *runs: Past) -> list[str]:
        """Writes these, and returns their ids."""
        return [await self._add(past) for past in runs]

    async def repeat(self, run: str, ago: range) -> None:
        """Adds a run like this one, without its batches, for each of so many days before it."""
        await self._harness.execute(REPEAT_RUN, [ago.start, ago.stop - 1, run])

    async def _add(self, past: Past) -> str:
        slot = self.slot(past.ago)
        opened = slot + past.late
        skipped = past.status == "skipped"
        row = {
            "slot": slot,
            "status": past.status,
            "opened": opened,
            "started": None if skipped else opened,
            "ended": opened if skipped else opened + past.took,
            "config": json.dumps(CONFIG | {"evaluation_schedule": self._harness.schedule}),
            "error_code": past.error_code,
        }
        async with self._harness.project.connect() as connection:
            ((run,),) = await (await connection.execute(INSERT_RUN, row)).fetchall()
            if skipped or past.error_code == "no_active_mentors":
                return str(run)
            users = sorted(self._harness.mentors)
            abandoned, done = users[: past.not_evaluated], users[past.not_evaluated :]
            if done:
                await connection.execute(INSERT_BATCH, {"run": run, "batch_no": 1, **_batch(done, past.failed)})
            if abandoned:
                await connection.execute(INSERT_BATCH, {"run": run, "batch_no": 2, **_batch(abandoned, None)})
            for code, number in past.failed.items():
                message = f"the engine answered {code[-3:]}" if code[-3:].isdigit() else None
                await connection.execute(INSERT_FAILURES, [run, code, message, done[:number]])
                done = done[number:]
        return str(run)


def _batch(users: Sequence[str], causes: dict[str, int] | None) -> dict[str, object]:
    """What a batch of these users came to; without causes it was abandoned."""
    failed, triggered = sum((causes or {}).values()), 2 * len(users) // 9
    inactive = {"triggered": triggered, "not_triggered": len(users) - triggered}
    reached = {"not_triggered": len(users) - failed, "failed": failed}
    by_type = ({"not_evaluated": len(users)},) * 2 if causes is None else (inactive, reached)
    outcomes = ("triggered", "not_triggered", "failed", "not_evaluated")
    return {
        "state": "abandoned" if causes is None else "done",
        "users": users,
        "types": json.dumps(TYPES),
        "counts": json.dumps(dict(zip(TYPES, by_type, strict=True))),
        "causes": json.dumps(causes or {}),
        # each was evaluated for the first type at least
        "left": len(users) if causes is None else failed,
        "users_evaluated": 0 if causes is None else len(users),
        **{outcome: sum(counts.get(outcome, 0) for counts in by_type) for outcome in outcomes},
    }
