"""Nights that would stand still on a slow machine: a slice gave up, or an answer was lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import psycopg

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.integration.nightly.night import Night

# Every slice has ended, and what is left is hidden, since the answer to its claim was lost: only time brings it back.
ALL_LEFT_IS_HIDDEN = b"""
select not exists (select from scheduler.dispatches where ended_at is null)
   and exists (select from public.scheduler_invocation_batches where state = 'open')
   and scheduler.visible_batches(1) = 0
"""


def gave_up(night: Night, function: FunctionProcess) -> int:
    """How many calls the function has answered with 503 because the database was away."""
    return len([line for line in night.log_lines(function) if line["event"] == "database_unavailable"])


@contextlib.asynccontextmanager
async def minutes_when_stuck(night: Night, clockwork: Clockwork, function: FunctionProcess) -> AsyncIterator[None]:
    """Within the block no time passes, unless a slice gave up or a claim's answer was lost: then minute after minute.

    So a test can ask that a short outage costs nothing, and still ends where the machine makes a long one of it. Its
    function needs many `MAX_BATCH_DELIVERIES`, since the minutes do not wait for a slow worker.
    """

    async def look_after() -> None:
        while True:
            await asyncio.sleep(1)
            # Not while the database is away, or takes no writes.
            with contextlib.suppress(psycopg.Error):
                if gave_up(night, function) or await night.rows(ALL_LEFT_IS_HIDDEN) == [(True,)]:
                    await clockwork.let_time_pass()
                    await clockwork.tick()

    looking = asyncio.create_task(look_after())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
