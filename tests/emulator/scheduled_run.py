"""`run`: one scheduled run, from the tick that starts it to a summary that checks itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx

from .connections import Connection, value
from .errors import EmulatorError
from .progress import ENDED, Progress, evaluated
from .stack import Stack
from .summary import Repeat, Summary

LOOK_SECONDS = 0.1
# pg_cron calls dispatch once a minute, and real pg_cron may need one to notice the job
APPEARS_WITHIN_SECONDS = 150
# long enough for the engine to be tried twice more: all workers pause for 15 seconds, then for 30
TIMEOUT_SECONDS = 60.0

# The one that was opened since then; first, one that an earlier start left open and that continues.
SCHEDULED = b"""
select id from public.scheduler_invocations
where trigger = 'schedule' and coalesce(finished_at, 'infinity') >= %s and expires_at >= %s
order by invoked_at limit 1
"""

# What became of pg_cron's first call since then, once that is known.
FIRST_CALL = b"""
select dispatch.error, answer.status_code, answer.content
from scheduler.dispatches as dispatch
left join net._http_response as answer on answer.id = dispatch.request_id
where dispatch.requested_at >= %(since)s
  and (answer.status_code is not null or (dispatch.request_id is null and dispatch.error is not null))
order by dispatch.id limit 1
"""

# What should have been evaluated, counted from the view and the configuration in force, not from the batches.
EXPECTED = b"""
select
  (select count(*) from public.active_peer_mentors),
  (
    select jsonb_object_agg(scenario ->> 'type', (
      select count(*) from public.active_peer_mentors as mentor
      where coalesce(jsonb_array_length(scenario -> 'segments'), 0) = 0
         or mentor.segments && array(select jsonb_array_elements_text(scenario -> 'segments'))
    ))
    from jsonb_array_elements(invocation.config -> 'scenarios' -> 'types') as scenario
    where coalesce((scenario -> 'enabled')::boolean, true)
      -- Where organizations have rules of their own, it cannot be counted so simply.
      and not scenario ? 'organizations'
      and not coalesce(invocation.config -> 'scenarios' -> 'not_due', '[]') @> jsonb_build_array(
        jsonb_build_array(scenario ->> 'type', null)
      )
  )
from public.scheduler_invocations as invocation
where invocation.id = %s
"""


async def play_run(stack: Stack, progress: Progress) -> Summary:
    """Follows the run that pg_cron starts, fires its slot again, and checks the results."""
    async with stack.project.connect() as database:
        invocation_id = await _appearance(stack, database)
        invocation = await _follow(progress, database, invocation_id)
        notifications = await _notifications(stack, database)
        repeat = await _fire_again(stack, database, invocation, notifications)
        missing = await _missing(database, invocation)
    return Summary(invocation, notifications, tuple(missing), repeat)


async def _appearance(stack: Stack, database: Connection) -> Any:
    since = stack.ready_at
    try:
        async with asyncio.timeout(APPEARS_WITHIN_SECONDS):
            while True:
                # in this order: an answer comes after the run that the call opened
                reason = await _reason_for_none(database, since)
                if found := await value(database, SCHEDULED, since, since):
                    return found
                if reason:
                    raise EmulatorError(reason)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise EmulatorError(
            f"no scheduled run was opened within {APPEARS_WITHIN_SECONDS} s of the first tick; "
            f"the schedule is {stack.schedule!r}, and the function's log says:\n{stack.function.log_tail()}"
        ) from error


async def _reason_for_none(database: Connection, since: datetime) -> str | None:
    """Returns why pg_cron's call opened no run; None where it did, or has not been answered yet."""
    row = await (await database.execute(FIRST_CALL, {"since": since})).fetchone()
    if row is None:
        return None
    error, status_code, content = row
    if status_code is None:
        return f"pg_cron's job could not call the function: {error}"
    if status_code >= httpx.codes.BAD_REQUEST:
        return f"the function answered pg_cron's call with {status_code}: {content}"
    answer = json.loads(content)
    if "scheduled_for" in answer:
        return (
            f"the latest slot of the schedule, {answer['scheduled_for']}, has had its run, which is "
            f"{answer['status']}: leave --schedule out, or name another --data-dir"
        )
    return (
        "the function found no slot due: the latest one of the schedule is longer ago than MISSED_SLOT_MAX_GAP_HOURS "
        "says; leave --schedule out, or set that higher with --function-env"
    )


async def _describe(database: Connection, invocation_id: Any) -> dict[str, Any]:
    return dict(await value(database, b"select scheduler.describe_invocation(%s)", invocation_id))


async def _follow(progress: Progress, database: Connection, invocation_id: Any) -> dict[str, Any]:
    before, changed_at = -1, time.monotonic()
    while True:
        invocation = await _describe(database, invocation_id)
        progress.show(invocation)
        if invocation["status"] in ENDED:
            return invocation
        done = evaluated(invocation)
        if done != before:
            before, changed_at = done, time.monotonic()
        elif invocation["error_code"] and time.monotonic() - changed_at > TIMEOUT_SECONDS:
            raise EmulatorError(
                f"nothing was evaluated for {TIMEOUT_SECONDS:.0f} s: {invocation['error_code']}. The run would wait "
                "for its engine until it expires; is the engine up, and are its URL and token right?"
            )
        await asyncio.sleep(LOOK_SECONDS)


async def _notifications(stack: Stack, database: Connection) -> int | None:
    if stack.project.engine is None:
        return None
    return int(await value(database, b"select count(*) from public.engagement_notifications"))


async def _fire_again(
    stack: Stack, database: Connection, before: Mapping[str, Any], notifications: int | None
) -> Repeat:
    """Fires the same slot by hand, with the token that pg_cron's call carries."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.post(
            f"{stack.function.url}/",
            json={"scheduled_for": before["scheduled_for"]},
            headers={"Authorization": f"Bearer {stack.project.invoke_token}"},
        )
    body = answer.json() if answer.status_code < httpx.codes.BAD_REQUEST else {}
    after = await _describe(database, before["id"])
    queued = await _notifications(stack, database)
    return Repeat(
        status_code=answer.status_code,
        deduplicated=bool(body.get("deduplicated")) and body.get("id") == before["id"],
        new_notifications=None if queued is None or notifications is None else queued - notifications,
        same_counts=after["counts"] == before["counts"],
    )


async def _missing(database: Connection, invocation: Mapping[str, Any]) -> list[str]:
    ((mentors, scenarios),) = await (await database.execute(EXPECTED, (invocation["id"],))).fetchall()
    found = []
    if invocation["counts"]["mentors"] != mentors:
        found.append(f"{mentors} active mentors, {invocation['counts']['mentors']} in the run")
    for scenario, expected in (scenarios or {}).items():
        outcomes = Counter(invocation["scenarios"].get(scenario, {}))
        evaluated = outcomes.total() - outcomes["failed"] - outcomes["not_evaluated"]
        if evaluated != expected:
            found.append(f"{scenario}: {expected} mentors, {evaluated} evaluated")
    return found
