"""Processes with their real leases and limiters, over the real SQL: never more in flight than the ceiling."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from shared.engine_lease import EngineLease
from shared.errors import DatabaseUnavailableError
from shared.invocations import ClaimedBatches, GrantedLease, Invocations, LeaseRequest, Poison
from shared.load_control import ConcurrencyLimiter
from shared.time_budget import TimeBudget

from .sql_core import SqlCore, Worker

CEILING = 7
WANTS = 5
PROCESSES = 5
CALLS = 1500


class Engine:
    """Counts. A call takes some turns of the event loop, or as many as it takes."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.calls = 0
        self.in_flight = 0
        self.peak = 0

    async def call(self) -> None:
        self.calls += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            for _ in range(self._random.choice((1, 5, 50, 500))):
                await asyncio.sleep(0)
        finally:
            self.in_flight -= 1


class Claims(Invocations):
    """Claims over one connection of the Data API's role; now and then the answer is lost on the way."""

    def __init__(self, worker: Worker, random: Random) -> None:
        self._worker = worker
        self._random = random

    async def claim(
        self, quantity: int, *, manual_only: bool, poison: Poison | None = None, lease: LeaseRequest | None = None
    ) -> ClaimedBatches:
        assert lease is not None
        asked = {name: getattr(lease, name) for name in LeaseRequest.__slots__}
        answer = await self._worker.claim(quantity, engine_lease=asked)
        if self._random.random() < 0.1:
            raise DatabaseUnavailableError("its answer was lost")
        return ClaimedBatches((), stale=0, engine_paused=False, lease=GrantedLease(**answer["engine_lease"]))


async def _no_time(_: float) -> None:
    await asyncio.sleep(0)


async def be_a_process(worker: Worker, engine: Engine, random: Random) -> None:
    """Slice after slice, until the engine was called often enough; each claims now and then, and calls meanwhile."""
    limiter = ConcurrencyLimiter(WANTS)
    lease = EngineLease(Claims(worker, random), limiter, ceiling=CEILING, wants=WANTS, sleep=_no_time)
    # Long enough to be met by no clock here: a lease that is not given back is there to the end.
    budget = TimeBudget(3600)

    async def call() -> None:
        async with limiter.permit():
            await engine.call()

    async def claim() -> bool:
        try:
            return not (await lease.claim(0, manual_only=False, budget=budget)).engine_full
        except DatabaseUnavailableError:
            return False

    async def one_slice() -> None:
        lease.join()
        while not await claim():
            if engine.calls >= CALLS:
                break
        else:
            for _ in range(random.randrange(6)):
                calls = [asyncio.create_task(call()) for _ in range(random.randint(1, 2 * WANTS))]
                await claim()
                await asyncio.gather(*calls)
        lease_id = lease.leave()
        if lease_id is not None:
            await worker.hand_back(engine_lease_id=lease_id)

    while engine.calls < CALLS:
        await asyncio.gather(*(one_slice() for _ in range(random.randint(1, 3))))


@pytest.mark.parametrize("seed", range(4))
async def test_no_more_calls_are_in_flight_than_the_ceiling_whatever_the_processes_do(core: SqlCore, seed: int) -> None:
    engine = Engine(Random(seed))
    workers = await core.workers(PROCESSES)
    await asyncio.gather(
        *(be_a_process(worker, engine, Random(f"{seed}:{number}")) for number, worker in enumerate(workers))
    )
    assert engine.peak == CEILING
    assert engine.in_flight == 0
    assert await core.owner.column("select 1 from scheduler.engine_leases") == []
