"""As many calls at a time as the engine bears, and no more."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.concurrency import AdaptiveLimiter, Permit, gather_or_cancel


class Call:
    """A call that holds its place from when it is let in until the test ends it."""

    def __init__(self, limiter: AdaptiveLimiter) -> None:
        self._limiter = limiter
        self._end = asyncio.Event()
        self.permit: Permit | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._limiter.permit() as self.permit:
            await self._end.wait()

    async def end(self, *, overloaded: bool = False) -> None:
        assert self.permit is not None
        self.permit.overloaded = overloaded
        self._end.set()
        await self.task
        await settle()


async def settle() -> None:
    """Lets every task run until it waits for something that only the test can bring."""
    for _ in range(10):
        await asyncio.sleep(0)


async def start(limiter: AdaptiveLimiter, count: int) -> list[Call]:
    calls = [Call(limiter) for _ in range(count)]
    await settle()
    return calls


async def cancel(*calls: Call) -> None:
    for call in calls:
        call.task.cancel()
    await asyncio.gather(*(call.task for call in calls), return_exceptions=True)


async def test_no_more_than_the_limit_enter_each_in_turn() -> None:
    calls = await start(AdaptiveLimiter(2), 4)
    for number, call in enumerate(calls):
        assert [each.permit is not None for each in calls] == [index < number + 2 for index in range(4)]
        await call.end()


async def test_an_overload_halves_the_limit_once_for_concurrent_calls() -> None:
    limiter = AdaptiveLimiter(8)
    for expected in (4, 2, 1, 1):
        for call in await start(limiter, limiter.limit):
            await call.end(overloaded=True)
        assert limiter.limit == expected


async def test_the_limit_recovers_step_by_step_by_successful_calls() -> None:
    limiter = AdaptiveLimiter(4)
    async with limiter.permit() as permit:
        permit.overloaded = True
    for _ in range(5):
        with pytest.raises(LookupError):
            async with limiter.permit():
                raise LookupError
    seen = [limiter.limit]
    for _ in range(20):
        async with limiter.permit():
            pass
        seen.append(limiter.limit)
    # Two that go well at a limit of two, three at three, and then it is where it began.
    assert seen[:6] == [2, 2, 3, 3, 3, 4]
    assert set(seen[6:]) == {4}


async def test_a_place_given_to_a_call_just_cancelled_goes_on() -> None:
    limiter = AdaptiveLimiter(1)
    async with limiter.permit():
        cancelled, following = await start(limiter, 2)
    # It has the place by now, but has not run since.
    cancelled.task.cancel()
    await settle()
    assert cancelled.task.cancelled()
    assert following.permit is not None
    await following.end()


steps = st.sampled_from([*["start"] * 3, "end well", "end overloaded", "cancel oldest", "cancel newest"])


@given(st.integers(1, 5), st.lists(steps, max_size=60))
async def test_the_limit_holds_and_no_place_is_lost(maximum: int, script: list[str]) -> None:
    limiter = AdaptiveLimiter(maximum)
    calls: list[Call] = []
    for step in script:
        unfinished = [call for call in calls if not call.task.done()]
        inside = [call for call in unfinished if call.permit is not None]
        outside = [call for call in unfinished if call.permit is None]
        if step == "start":
            calls.append(Call(limiter))
        elif step.startswith("end") and inside:
            await inside[0].end(overloaded=step == "end overloaded")
        elif step.startswith("cancel") and (outside or inside):
            (outside or inside)[0 if step == "cancel oldest" else -1].task.cancel()
        await settle()
        let_in = [call.permit is not None for call in calls if not call.task.done()]
        assert 1 <= limiter.limit <= maximum
        assert sum(let_in) <= max(limiter.limit, len(inside))
        assert sum(let_in) >= limiter.limit or all(let_in), "a call waits although there is room"
    await cancel(*calls)
    fresh = await start(limiter, maximum)
    assert sum(call.permit is not None for call in fresh) == limiter.limit
    await cancel(*fresh)


async def test_the_first_failed_step_stops_the_others_and_is_raised() -> None:
    cleaned_up = []

    async def stays() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append("cleaned up")

    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await gather_or_cancel([stays(), stays(), fails()])
    assert len(cleaned_up) == 2
