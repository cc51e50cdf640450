"""As many calls at a time as the engine bears, and no more."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.load_control import ConcurrencyLimiter, Permit, gather_or_cancel


class Call:
    """A call that holds its place from when it is let in until the test ends it."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self._limiter = limiter
        self._end = asyncio.Event()
        self.permit: Permit | None = None
        self.task = asyncio.create_task(self._run())

    @property
    def let_in(self) -> bool:
        return self.permit is not None and not self.task.done()

    async def _run(self) -> None:
        async with self._limiter.permit() as self.permit:
            await self._end.wait()

    async def end(self, *, overloaded: bool = False) -> None:
        assert self.permit is not None
        self.permit.overloaded = overloaded
        self._end.set()
        await self.task


async def settle() -> None:
    """Lets every task run until it waits for something that only the test can bring."""
    for _ in range(10):
        await asyncio.sleep(0)


async def start(limiter: ConcurrencyLimiter, count: int) -> list[Call]:
    calls = [Call(limiter) for _ in range(count)]
    await settle()
    return calls


async def go_well(limiter: ConcurrencyLimiter, count: int) -> None:
    for _ in range(count):
        async with limiter.permit():
            pass


def let_in(calls: list[Call]) -> list[bool]:
    return [call.let_in for call in calls]


async def test_no_more_than_the_limit_are_in_flight() -> None:
    calls = await start(ConcurrencyLimiter(3), 5)
    assert let_in(calls) == [True, True, True, False, False]
    await calls[1].end()
    await settle()
    assert let_in(calls) == [True, False, True, True, False]
    for n in (0, 2, 3):
        await calls[n].end()
    await settle()
    await calls[4].end()


async def test_who_came_first_is_served_first() -> None:
    calls = await start(ConcurrencyLimiter(1), 4)
    order = []
    for _ in calls:
        await settle()
        (now,) = (n for n, call in enumerate(calls) if call.let_in)
        order.append(now)
        await calls[now].end()
    assert order == [0, 1, 2, 3]


async def test_nobody_overtakes_those_who_wait() -> None:
    limiter = ConcurrencyLimiter(1)
    holder, waiting = await start(limiter, 2)
    # The place is free and given on, but the one who waits has not run yet when a newcomer asks.
    newcomer = Call(limiter)
    await holder.end()
    await settle()
    assert waiting.let_in
    assert not newcomer.let_in
    await waiting.end()
    await settle()
    await newcomer.end()


async def test_an_overload_halves_the_limit_once_for_all_that_were_in_flight_together() -> None:
    limiter = ConcurrencyLimiter(16)
    calls = await start(limiter, 16)
    for call in calls:
        await call.end(overloaded=True)
    assert limiter.limit == 8


async def test_an_overload_of_calls_that_started_after_a_halving_halves_again() -> None:
    limiter = ConcurrencyLimiter(16)
    for expected in (8, 4, 2):
        first, second = await start(limiter, 2)
        await first.end(overloaded=True)
        await second.end(overloaded=True)
        assert limiter.limit == expected


async def test_the_limit_never_falls_below_one() -> None:
    limiter = ConcurrencyLimiter(1)
    (call,) = await start(limiter, 1)
    await call.end(overloaded=True)
    assert limiter.limit == 1
    await go_well(limiter, 1)


async def test_after_a_halving_nobody_enters_until_few_enough_are_in_flight() -> None:
    limiter = ConcurrencyLimiter(4)
    calls = await start(limiter, 6)
    await calls[0].end(overloaded=True)
    await settle()
    assert limiter.limit == 2
    assert let_in(calls) == [False, True, True, True, False, False]
    await calls[1].end(overloaded=True)
    await settle()
    assert let_in(calls)[4:] == [False, False]
    await calls[2].end(overloaded=True)
    await settle()
    assert let_in(calls)[3:] == [True, True, False]
    for n in (3, 4):
        await calls[n].end()
    await settle()
    await calls[5].end()


async def test_the_limit_recovers_step_by_step_to_the_maximum_and_not_beyond() -> None:
    limiter = ConcurrencyLimiter(4)
    (call,) = await start(limiter, 1)
    await call.end(overloaded=True)
    seen = [limiter.limit]
    for _ in range(20):
        await go_well(limiter, 1)
        seen.append(limiter.limit)
    # Two that go well at a limit of two, three at three, and then it is where it began.
    assert seen[:6] == [2, 2, 3, 3, 3, 4]
    assert set(seen[6:]) == {4}


async def test_a_call_that_raises_gives_its_place_back_and_is_no_recovery() -> None:
    limiter = ConcurrencyLimiter(2)
    (call,) = await start(limiter, 1)
    await call.end(overloaded=True)
    for _ in range(5):
        with pytest.raises(LookupError):
            async with limiter.permit():
                raise LookupError
    assert limiter.limit == 1
    await go_well(limiter, 1)
    assert limiter.limit == 2


async def test_a_call_that_is_cancelled_while_in_flight_gives_its_place_back() -> None:
    limiter = ConcurrencyLimiter(1)
    holder, waiting = await start(limiter, 2)
    holder.task.cancel()
    await settle()
    assert waiting.let_in
    await waiting.end()


async def test_a_cancelled_waiter_is_passed_over() -> None:
    calls = await start(ConcurrencyLimiter(1), 3)
    calls[1].task.cancel()
    await settle()
    await calls[0].end()
    await settle()
    assert let_in(calls) == [False, False, True]
    await calls[2].end()


async def test_a_waiter_who_is_cancelled_just_as_its_turn_comes_gives_its_place_on() -> None:
    limiter = ConcurrencyLimiter(1)
    async with limiter.permit():
        unlucky, next_one = await start(limiter, 2)
    # The place is hers by now, but she has not run since.
    unlucky.task.cancel()
    await settle()
    assert unlucky.task.cancelled()
    assert next_one.let_in
    await next_one.end()


steps = st.lists(
    st.sampled_from(["start", "end well", "end overloaded", "cancel oldest", "cancel newest"]),
    max_size=60,
)


@given(st.integers(1, 5), steps)
async def test_whatever_happens_the_limit_holds_and_no_place_is_lost(maximum: int, script: list[str]) -> None:
    limiter = ConcurrencyLimiter(maximum)
    calls: list[Call] = []
    for step in script:
        inside = [call for call in calls if call.let_in]
        outside = [call for call in calls if not call.let_in and not call.task.done()]
        if step == "start":
            calls.append(Call(limiter))
        elif step.startswith("end") and inside:
            await inside[0].end(overloaded=step == "end overloaded")
        elif step.startswith("cancel") and (outside or inside):
            (outside or inside)[0 if step == "cancel oldest" else -1].task.cancel()
        await settle()
        now = sum(call.let_in for call in calls)
        waiting = sum(not call.let_in and not call.task.done() for call in calls)
        assert 1 <= limiter.limit <= maximum
        assert now <= max(limiter.limit, len(inside))
        assert not waiting or now >= limiter.limit, "somebody waits although there is room"
    await cancel(calls)
    fresh = await start(limiter, maximum)
    assert sum(call.let_in for call in fresh) == limiter.limit
    await cancel(fresh)


async def cancel(calls: list[Call]) -> None:
    for call in calls:
        call.task.cancel()
    await asyncio.gather(*(call.task for call in calls), return_exceptions=True)


# Steps that are run as one


async def stays(cleaned_up: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        cleaned_up.append(name)


async def fails(error: Exception, *, after: int = 1) -> None:
    for _ in range(after):
        await asyncio.sleep(0)
    raise error


async def test_the_first_step_that_fails_stops_the_others_and_its_own_error_is_raised() -> None:
    cleaned_up: list[str] = []
    cause, error = ValueError(), LookupError("this very one")
    error.__cause__ = cause
    with pytest.raises(LookupError) as caught:
        await gather_or_cancel([stays(cleaned_up, "a"), fails(ValueError(), after=3), fails(error)])
    assert (caught.value, caught.value.__cause__) == (error, cause)
    assert cleaned_up == ["a"]


async def test_steps_that_are_cancelled_from_outside_have_all_cleaned_up() -> None:
    cleaned_up: list[str] = []
    running = asyncio.create_task(gather_or_cancel([stays(cleaned_up, "a"), stays(cleaned_up, "b")]))
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(cleaned_up) == ["a", "b"]
