"""Several steps as one step: one result, one error, nothing left over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from shared.side_by_side import side_by_side


class Steps:
    """Steps that note what becomes of them."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.cleaned_up: list[str] = []

    async def stays(self, name: str) -> str:
        self.started.append(name)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            await asyncio.sleep(0)
            self.cleaned_up.append(name)
            raise
        return name

    async def returns(self, name: str, *, after: int) -> str:
        for _ in range(after):
            await asyncio.sleep(0)
        return name

    async def fails(self, error: BaseException, *, after: int = 1) -> str:
        for _ in range(after):
            await asyncio.sleep(0)
        raise error


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_results_come_in_the_order_of_the_steps_not_of_their_ends() -> None:
    steps = Steps()
    assert await side_by_side([steps.returns("slow", after=5), steps.returns("fast", after=1)]) == ["slow", "fast"]


async def test_no_steps_have_no_results() -> None:
    nothing: list[Awaitable[int]] = []
    assert await side_by_side(nothing) == []


async def test_the_first_that_fails_stops_the_others_and_waits_until_they_have_cleaned_up() -> None:
    before, steps = others(), Steps()
    with pytest.raises(LookupError):
        await side_by_side([steps.stays("a"), steps.fails(LookupError("b")), steps.stays("c")])
    assert steps.cancelled == steps.cleaned_up == ["a", "c"]
    assert others() == before


async def test_its_own_error_is_raised_not_a_group_nor_a_copy() -> None:
    error, steps = LookupError("this very one"), Steps()
    with pytest.raises(LookupError) as caught:
        await side_by_side([steps.stays("a"), steps.fails(error)])
    assert caught.value is error


async def test_the_first_of_two_errors_wins() -> None:
    steps = Steps()
    with pytest.raises(LookupError):
        await side_by_side([steps.fails(ValueError(), after=3), steps.fails(LookupError(), after=1)])


async def test_an_error_of_a_step_that_is_being_stopped_does_not_hide_the_first_one() -> None:
    async def fails_at_clean_up() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while cleaning up")

    with pytest.raises(LookupError):
        await side_by_side([fails_at_clean_up(), Steps().fails(LookupError())])


async def test_who_is_cancelled_stops_all_steps() -> None:
    before, steps = others(), Steps()
    task = asyncio.create_task(side_by_side([steps.stays("a"), steps.stays("b")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert steps.started == ["a", "b"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps.cancelled == steps.cleaned_up == ["a", "b"]
    assert others() == before
