"""A run that continues by itself, without waiting for it: dispatch ticks, the function answers, time passes.

What takes a minute or an hour in production is a shift of times in the database here, so that a test waits for events
only and never for a length of time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from tests.integration.scheduled_runs.harness import Harness

# A silent worker is given up after it, and the longest pause of the breaker has a few of them.
A_WHILE = 61

UNDER_WAY = b"select exists (select from net.http_request_queue)"

LATER = (
    b"update pgmq.q_scenario_evaluation_batches set vt = vt - make_interval(secs => %s)",
    b"update pgmq.q_scenario_evaluation_batches_manual set vt = vt - make_interval(secs => %s)",
    b"update pgmq.q_scenario_evaluation_batches_poison set vt = vt - make_interval(secs => %s)",
    b"update scheduler.dispatches set requested_at = requested_at - make_interval(secs => %s)",
    b"update net._http_response set created = created - make_interval(secs => %s)",
    b"update scheduler.engine_permits set expires_at = expires_at - make_interval(secs => %s)",
    b"update scheduler.settings set engine_paused_until = engine_paused_until - make_interval(secs => %s)",
)


class TimeControl:
    """What the cron jobs and the platform do for a project; `await start()` before the first tick."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._cron = harness.project.cron_driver()

    async def start(self) -> None:
        """Let posts go out to the first function of the project."""
        await self._harness.project.write_vault_secrets(self._harness.project.functions[0].url)
        await self._harness.project.start_net()

    async def tick(self) -> None:
        """The minute's tick: every cron job runs once."""
        await self._cron.run_all()

    async def tick_and_wait(self) -> None:
        """One tick, and the slices that follow from it."""
        await self.tick()
        await self.until_quiet()

    async def until_quiet(self) -> None:
        """Return when every post has its answer, also those that slices request at their ends."""
        async with asyncio.timeout(60):
            while not await self._is_quiet():  # noqa: ASYNC110  # the database has no Event to set
                await asyncio.sleep(0.1)

    async def let_time_pass(self, seconds: int = A_WHILE) -> None:
        """For all that waits: hidden batches, unanswered posts, permits, the breaker's pause. Not for deadlines."""
        async with self._harness.project.connect(superuser=True) as connection:
            for statement in LATER:
                await connection.execute(statement, (seconds,))

    async def until_ended(
        self,
        within: float = 120,
        guard: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        at_work: Collection[asyncio.Task[Any]] = (),
    ) -> dict[str, Any]:
        """Tick after tick until nothing is open, or TimeoutError; returns the first invocation.

        The guard is around each tick, and may suppress errors; no time passes until the tasks in `at_work` are done.
        """
        functions = self._harness.project.functions
        async with asyncio.timeout(within):
            while True:
                with guard():
                    # A tick may find no function, but a test need not go through thousands of those.
                    await asyncio.gather(*(f.until_ready() for f in functions if f.supervision is not None))
                    await self.tick_and_wait()
                    invocations = await self._harness.invocations()
                    if invocations and all(invocation["finished_at"] for invocation in invocations):
                        return invocations[0]
                    if at_work:
                        await asyncio.wait(at_work)
                    await self.let_time_pass()

    async def _is_quiet(self) -> bool:
        """Over one connection, since to make one costs more than to look; false if the database goes away meanwhile."""
        with contextlib.suppress(psycopg.OperationalError):
            async with self._harness.project.connect(superuser=True) as connection:
                while (await (await connection.execute(UNDER_WAY)).fetchone()) == (True,):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                return True
        return False
