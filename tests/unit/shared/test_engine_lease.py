"""A process keeps to what it was granted of the engine's calls, says what it holds, and gives it back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shared.engine_lease import FULL_PAUSE_SECONDS, MARGIN_SECONDS, EngineLease
from shared.errors import DatabaseUnavailableError, EngineFullError
from shared.invocations import ClaimedBatches, GrantedLease, Invocations, LeaseRequest, Poison
from shared.load_control import ConcurrencyLimiter
from shared.time_budget import TimeBudget
from tests.unit.clock import ManualClock
from tests.unit.log_lines import LogLines

WANTS = 8


class Claims(Invocations):
    """Answers claims as `grant` says; each answer is a version of its own."""

    def __init__(self, *grants: int) -> None:
        self.grants = list(grants)
        self.asked: list[LeaseRequest | None] = []
        self.under_way = 0
        self.before_answer: Callable[[], None] = lambda: None

    async def claim(
        self, quantity: int, *, manual_only: bool, poison: Poison | None = None, lease: LeaseRequest | None = None
    ) -> ClaimedBatches:
        assert self.under_way == 0, "two claims of a process at a time"
        self.under_way += 1
        self.asked.append(lease)
        try:
            await asyncio.sleep(0)
            self.before_answer()
        finally:
            self.under_way -= 1
        granted = None if lease is None else GrantedLease(len(self.asked), self.grants.pop(0))
        return ClaimedBatches((), stale=0, engine_paused=False, lease=granted)

    @property
    def last(self) -> LeaseRequest:
        request = self.asked[-1]
        assert request is not None
        return request


class Process:
    """A process with a limiter and a lease, and a time budget of 100 seconds."""

    def __init__(self, clock: ManualClock, *grants: int, ceiling: int | None = 10) -> None:
        self.claims = Claims(*grants)
        self.limiter = ConcurrencyLimiter(WANTS)
        self.budget = TimeBudget(100, clock)
        self.lease = EngineLease(self.claims, self.limiter, ceiling=ceiling, wants=WANTS, sleep=clock.sleep)

    async def claim(self) -> ClaimedBatches:
        return await self.lease.claim(3, manual_only=False, budget=self.budget)


async def test_where_no_ceiling_is_set_nothing_is_asked_held_or_given_back(clock: ManualClock) -> None:
    process = Process(clock, ceiling=None)
    process.lease.join()
    await process.claim()
    await process.lease.acquire(process.budget)
    assert process.claims.asked == [None]
    assert (process.lease.calls, process.limiter.limit) == (WANTS, WANTS)
    assert process.lease.leave() is None


async def test_what_is_granted_is_in_force_at_once_and_said_with_the_next_claim(clock: ManualClock) -> None:
    process = Process(clock, 5, 3, 8)
    process.lease.join()
    for version, granted in enumerate((5, 3, 8), 1):
        clock.advance(10)
        await process.claim()
        assert (process.lease.calls, process.limiter.limit) == (granted, granted)
        assert process.claims.last.version == version - 1
        assert (process.claims.last.wants, process.claims.last.ceiling) == (WANTS, 10)
        assert process.claims.last.seconds == 100 - 10 * version + MARGIN_SECONDS
    assert [request.holds for request in process.claims.asked if request] == [8, 5, 3]


async def test_calls_that_are_still_in_flight_are_held_although_the_share_is_smaller(clock: ManualClock) -> None:
    process = Process(clock, 4, 1, 1, 1)
    process.lease.join()
    await process.claim()
    async with process.limiter.permit(), process.limiter.permit():
        await process.claim()
        await process.claim()
        assert process.claims.last.holds == 2
    await process.claim()
    assert process.claims.last.holds == 1


async def test_an_answer_that_did_not_come_is_not_taken_for_one(clock: ManualClock) -> None:
    process = Process(clock, 4, 6)
    process.lease.join()
    await process.claim()

    def lose_it() -> None:
        raise DatabaseUnavailableError("away")

    process.claims.before_answer = lose_it
    with pytest.raises(DatabaseUnavailableError):
        await process.claim()
    assert process.limiter.limit == 4
    process.claims.before_answer = lambda: None
    await process.claim()
    assert (process.claims.last.version, process.claims.last.holds) == (1, 4)


async def test_slices_of_one_process_share_a_lease_and_claim_one_after_another(clock: ManualClock) -> None:
    process = Process(clock, 4, 5)
    process.lease.join()
    process.lease.join()
    await asyncio.gather(process.claim(), process.claim())
    first, second = process.claims.asked
    assert first is not None
    assert second is not None
    assert first.id == second.id
    assert (second.version, second.holds) == (1, 4)


async def test_the_slice_that_leaves_last_gives_it_back_and_it_is_never_taken_up_again(clock: ManualClock) -> None:
    process = Process(clock, 4, 4)
    process.lease.join()
    process.lease.join()
    await process.claim()
    assert process.lease.leave() is None
    assert process.lease.leave() == process.claims.last.id
    before = process.claims.last.id
    process.lease.join()
    await process.claim()
    assert process.claims.last.id != before
    assert process.claims.last.version == 0


async def test_before_its_first_claim_a_slice_may_have_one_call_worth_of_batches(clock: ManualClock) -> None:
    """What others will leave it is not known yet, and what it held in the slice before means nothing."""
    process = Process(clock, 4)
    process.lease.join()
    assert process.lease.calls == 1
    await process.claim()
    process.lease.leave()
    process.lease.join()
    assert process.lease.calls == 1


async def test_who_is_granted_nothing_looks_again_a_moment_later_and_says_so_once(
    clock: ManualClock, log: LogLines
) -> None:
    process = Process(clock, 0, 0, 2, 0)
    process.lease.join()
    assert [(await process.claim()).engine_full for _ in range(3)] == [True, True, False]
    assert clock.slept == [FULL_PAUSE_SECONDS] * 2
    assert len(log.of("engine_full")) == 1
    await process.claim()
    assert len(log.of("engine_full")) == 2


async def test_nobody_waits_past_the_time_budget(clock: ManualClock) -> None:
    process = Process(clock, 0)
    process.lease.join()
    clock.advance(99.75)
    await process.claim()
    assert clock.slept == [0.25]


async def test_who_has_batches_of_his_own_waits_for_a_share_and_claims_none(clock: ManualClock) -> None:
    process = Process(clock, 0, 0, 3)
    process.lease.join()
    await process.lease.acquire(process.budget)
    assert process.limiter.limit == 3
    assert len(clock.slept) == 2


async def test_for_half_of_the_time_budget_and_not_longer(clock: ManualClock) -> None:
    process = Process(clock, *[0] * 100)
    process.lease.join()
    with pytest.raises(EngineFullError):
        await process.lease.acquire(process.budget)
    assert 50 <= process.budget.elapsed() <= 52
