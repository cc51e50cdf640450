"""The pause that all workers share while the engine is away, as the database has it."""

from __future__ import annotations

from typing import NamedTuple

from tests.integration.scheduled_runs.harness import Harness

STATE = b"""
select engine_outages,
       coalesce(engine_paused_until > clock_timestamp(), false),
       round(extract(epoch from engine_paused_until - (
         -- Of the slices asked for last, the first that met the outage set the pause.
         select min(ended_at) from scheduler.dispatches
          where requested_at > (select max(requested_at) from scheduler.dispatches) - interval '5 seconds'
       )))::integer,
       (select count(*) from scheduler.dispatches)
  from scheduler.settings
"""


class Breaker(NamedTuple):
    """How many pauses have followed one another, whether one is on, for how long, and how many slices were asked for.

    `seconds` only means something when the last slice to end was called by dispatch; None: there is no pause.
    """

    outages: int
    paused: bool
    seconds: int | None
    posts: int


async def breaker(harness: Harness) -> Breaker:
    (row,) = await harness.rows(STATE)
    return Breaker(*row)
