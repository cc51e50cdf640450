"""Many together or one alone; who wants to be alone goes first, and nobody waits beyond his time."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from random import Random

import pytest

from functions.solitude import Solitude
from shared.errors import OutOfTimeError
from shared.time_budget import TimeBudget

LONG, NONE = 1000.0, 0.0


class Guest:
    """Somebody who comes in, says so, and stays until he is told to go."""

    def __init__(self, entering: AbstractAsyncContextManager[None]) -> None:
        self.is_in = asyncio.Event()
        self._may_go = asyncio.Event()
        self._stay = asyncio.create_task(self._come(entering))

    async def _come(self, entering: AbstractAsyncContextManager[None]) -> None:
        async with entering:
            self.is_in.set()
            await self._may_go.wait()
        self.is_in.clear()

    async def go(self) -> None:
        self._may_go.set()
        await self._stay

    async def give_up(self) -> None:
        self._stay.cancel()
        await asyncio.gather(self._stay, return_exceptions=True)


async def settled() -> None:
    """Everybody who may come in has."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def solitude() -> Solitude:
    return Solitude()


def together(solitude: Solitude, seconds: float = LONG) -> Guest:
    return Guest(solitude.together(TimeBudget(seconds)))


def alone(solitude: Solitude, seconds: float = LONG) -> Guest:
    return Guest(solitude.alone(TimeBudget(seconds)))


async def test_many_are_together(solitude: Solitude) -> None:
    guests = [together(solitude) for _ in range(5)]
    await asyncio.gather(*(guest.is_in.wait() for guest in guests))
    for guest in guests:
        await guest.go()


async def test_who_wants_to_be_alone_waits_for_all_others(solitude: Solitude) -> None:
    first, second = together(solitude), together(solitude)
    await settled()
    hermit = alone(solitude)
    await first.go()
    await settled()
    assert not hermit.is_in.is_set()
    await second.go()
    await hermit.is_in.wait()
    await hermit.go()


async def test_who_comes_later_waits_until_he_who_wants_to_be_alone_is_through(solitude: Solitude) -> None:
    first = together(solitude)
    await settled()
    hermit, later = alone(solitude), together(solitude)
    await settled()
    assert not later.is_in.is_set()
    await first.go()
    await hermit.is_in.wait()
    await settled()
    assert not later.is_in.is_set()
    await hermit.go()
    await later.is_in.wait()
    await later.go()


async def test_two_who_want_to_be_alone_are_so_one_after_the_other(solitude: Solitude) -> None:
    hermits = [alone(solitude), alone(solitude)]
    await settled()
    assert [hermit.is_in.is_set() for hermit in hermits] == [True, False]
    await hermits[0].go()
    await hermits[1].is_in.wait()
    await hermits[1].go()


async def test_who_gives_up_waiting_to_be_alone_lets_the_others_in(solitude: Solitude) -> None:
    first = together(solitude)
    await settled()
    hermit, later = alone(solitude), together(solitude)
    await settled()
    await hermit.give_up()
    await later.is_in.wait()
    await first.go()
    await later.go()


async def test_nobody_waits_beyond_his_time(solitude: Solitude) -> None:
    async with solitude.together(TimeBudget(LONG)):
        with pytest.raises(OutOfTimeError):
            async with solitude.alone(TimeBudget(NONE)):
                pytest.fail("others are there")
    async with solitude.alone(TimeBudget(LONG)):
        for waiting in (solitude.together, solitude.alone):
            with pytest.raises(OutOfTimeError):
                async with waiting(TimeBudget(NONE)):
                    pytest.fail("somebody is alone")


@pytest.mark.parametrize("is_alone", [False, True])
async def test_whoever_leaves_with_an_error_has_left(solitude: Solitude, is_alone: bool) -> None:
    entering = solitude.alone if is_alone else solitude.together
    with pytest.raises(LookupError):
        async with entering(TimeBudget(LONG)):
            raise LookupError("ours")
    async with solitude.alone(TimeBudget(LONG)):
        pass


@pytest.mark.parametrize("seed", range(20))
async def test_in_a_crowd_alone_is_alone_and_everybody_comes_in(solitude: Solitude, seed: int) -> None:
    random = Random(seed)
    inside: list[bool] = []
    came = 0

    async def visit(is_alone: bool) -> None:
        nonlocal came
        async with (solitude.alone if is_alone else solitude.together)(TimeBudget(LONG)):
            inside.append(is_alone)
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
                assert inside == [True] or True not in inside
            inside.remove(is_alone)
            came += 1

    async def come_again(times: int) -> None:
        for _ in range(times):
            await visit(random.random() < 0.3)

    await asyncio.gather(*(come_again(10) for _ in range(10)))
    assert came == 100
