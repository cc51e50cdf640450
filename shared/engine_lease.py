"""This process's share of the calls that all workers together may have in flight (`ENGINE_MAX_CONCURRENCY_TOTAL`)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from shared.errors import EngineFullError
from shared.invocations import ClaimedBatches, Invocations, LeaseRequest, Poison
from shared.load_control import ConcurrencyLimiter
from shared.observability import log_event
from shared.time_budget import TimeBudget

# Between two looks whether others have made room: they hear of us when they claim, some times a second.
FULL_PAUSE_SECONDS = 1.0
# Calls end with the time budget of their slice; a process that is short of CPU notices it late.
MARGIN_SECONDS = 5.0
# Who is answered, and not only worked for, hears soon that there is no room.
PATIENT_SHARE = 0.5


class EngineLease:
    """The lease of one process on calls to the engine; the SQL function scheduler.renew_engine_lease keeps the rules.

    One for a process, as the limiter is: slices that are served at the same time share both. It is taken with the first
    claim, renewed by each, and given back by the slice that leaves last; a process that is killed or loses its database
    leaves it to run out. Where no ceiling is set claims pass through, and nothing else happens.

    Args:
        invocations: where batches are claimed.
        limiter: the engine's; it is held below what was granted.
        ceiling: of all processes together; None: there is none.
        wants: how many calls this process could have in flight.
        sleep: waits while there is no room; replaced in tests.
    """

    def __init__(
        self,
        invocations: Invocations,
        limiter: ConcurrencyLimiter,
        *,
        ceiling: int | None,
        wants: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._invocations = invocations
        self._limiter = limiter
        self._ceiling = ceiling
        self._wants = wants
        self._sleep = sleep
        self._is_full = False
        self._slices = 0
        self._id = ""
        self._version = 0
        # An answer must not be overtaken by a later one: each is in force before the next claim says what is held.
        self._claiming = asyncio.Lock()
        self.calls = wants
        """How many calls this process may have in flight."""

    def join(self) -> None:
        """A slice begins; it calls the engine only after a claim or `acquire`."""
        if self._slices == 0 and self._ceiling is not None:
            # Never the last one's again: it may still be on its way back.
            self._id, self._version, self.calls = str(uuid.uuid4()), 0, 1
        self._slices += 1

    def leave(self) -> str | None:
        """A slice has no call in flight any more and makes none: the lease to give back, if it was the last one."""
        self._slices -= 1
        return self._id or None if self._slices == 0 else None

    async def claim(
        self, quantity: int, *, manual_only: bool, poison: Poison | None = None, budget: TimeBudget
    ) -> ClaimedBatches:
        """Claims batches as `Invocations.claim` does, and renews the lease on the way.

        Where this process may call nobody at present, a moment passes before that is answered.

        Args:
            quantity: batches, at most.
            manual_only: those of manual runs and no others.
            poison: as `Invocations.claim` takes it.
            budget: of the slice that claims.
        """
        if self._ceiling is None:
            return await self._invocations.claim(quantity, manual_only=manual_only, poison=poison)
        async with self._claiming:
            request = LeaseRequest(
                id=self._id,
                version=self._version,
                holds=self._limiter.held,
                wants=self._wants,
                ceiling=self._ceiling,
                seconds=budget.remaining() + MARGIN_SECONDS,
            )
            claimed = await self._invocations.claim(quantity, manual_only=manual_only, poison=poison, lease=request)
            if claimed.lease is not None:
                self._version, self.calls = claimed.lease.version, claimed.lease.calls
                self._limiter.hold_below(self.calls)
        if claimed.engine_full:
            if not self._is_full:
                log_event("engine_full", f"Others have all the calls that may be in flight ({self._ceiling})")
            await self._sleep(min(FULL_PAUSE_SECONDS, budget.remaining()))
        self._is_full = claimed.engine_full
        return claimed

    async def acquire(self, budget: TimeBudget) -> None:
        """Waits until this process may call the engine: for who has batches of his own.

        Raises:
            EngineFullError: there was no room for half of the time budget.
        """
        if self._ceiling is None:
            return
        while (await self.claim(0, manual_only=True, budget=budget)).engine_full:
            if budget.remaining() < PATIENT_SHARE * budget.seconds:
                raise EngineFullError("others had all the engine's calls for half of the time budget")
