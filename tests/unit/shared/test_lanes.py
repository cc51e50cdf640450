"""Many steps over few tasks: all of them run, few at a time, and one that fails stops only those it was asked with."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial

import pytest

from shared.lanes import RESERVE, Lanes

who: ContextVar[str] = ContextVar("who")


async def test_every_step_runs_and_never_more_at_a_time_than_there_are_lanes() -> None:
    lanes = Lanes(3)
    under_way = most = through = 0

    async def step() -> None:
        nonlocal under_way, most, through
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        through += 1

    await asyncio.gather(lanes.run([step] * 10), lanes.run([step] * 7), lanes.run([]))
    assert (through, most) == (17, 3)


async def test_steps_that_wait_for_nothing_do_not_leave_the_next_ones_without_a_lane() -> None:
    lanes = Lanes(8)
    through = 0

    async def step() -> None:
        nonlocal through
        through += 1

    async with asyncio.timeout(10):
        for _ in range(50):
            await lanes.run([step] * 20)
    assert through == 1000


async def test_the_first_failure_is_raised_and_stops_its_own_steps_only() -> None:
    lanes = Lanes(2)
    gate, began = asyncio.Event(), asyncio.Event()
    ran: list[int] = []
    begun: list[int] = []

    async def fails() -> None:
        await began.wait()
        raise LookupError("this one")

    async def hangs() -> None:
        began.set()
        await asyncio.Event().wait()

    async def other(n: int) -> None:
        begun.append(n)
        await gate.wait()
        ran.append(n)

    failing = asyncio.create_task(lanes.run([fails, hangs, partial(other, -1)]))
    others = asyncio.create_task(lanes.run([partial(other, n) for n in range(4)]))
    with pytest.raises(LookupError, match="this one"):
        await failing
    gate.set()
    async with asyncio.timeout(10):
        await others
    assert sorted(ran) == sorted(begun) == [0, 1, 2, 3]


async def test_who_is_cancelled_takes_her_steps_along_and_leaves_the_lanes() -> None:
    lanes = Lanes(2)
    began, ended = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(lanes.run([hangs] * 5))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    through: list[int] = []

    async def step() -> None:
        through.append(1)

    async with asyncio.timeout(10):
        await lanes.run([step] * 3)
    assert len(through) == 3


async def test_a_step_runs_in_the_context_of_whoever_asked_for_it() -> None:
    lanes = Lanes(1)
    seen: list[tuple[str, str]] = []

    async def step(expected: str) -> None:
        await asyncio.sleep(0)
        seen.append((expected, who.get()))

    async def asks(name: str) -> None:
        who.set(name)
        await lanes.run([partial(step, name)] * 3)

    await asyncio.gather(*(asyncio.create_task(asks(name)) for name in ("anna", "ben")))
    assert len(seen) == 6
    assert all(expected == found for expected, found in seen)


async def test_more_is_welcome_while_few_wait_and_then_no_more_than_that() -> None:
    lanes = Lanes(2)
    gate = asyncio.Semaphore(0)

    async def step() -> None:
        await gate.acquire()

    assert await lanes.until_short() == 2 * RESERVE
    running = asyncio.create_task(lanes.run([step] * (2 + 2 * RESERVE + 1)))
    await asyncio.sleep(0)
    short = asyncio.create_task(lanes.until_short())
    # Two lanes have taken one each; what waits has to fall below the reserve.
    for _ in range(20):
        await asyncio.sleep(0)
    assert not short.done()
    gate.release()
    gate.release()
    async with asyncio.timeout(10):
        assert await short == 1
        for _ in range(2 * RESERVE + 1):
            gate.release()
        await running


async def test_steps_that_were_taken_back_make_room() -> None:
    lanes = Lanes(1)

    async def hangs() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(lanes.run([hangs] * (10 * RESERVE)))
    await asyncio.sleep(0)
    short = asyncio.create_task(lanes.until_short())
    await asyncio.sleep(0)
    assert not short.done()
    running.cancel()
    async with asyncio.timeout(10):
        assert await short == RESERVE
        with pytest.raises(asyncio.CancelledError):
            await running
