"""GET, page by page over HTTP, while others open, cancel and delete runs."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.manual.caller import Caller, a_caller
from tests.integration.nightly.night import Night

THERE = 14
MEANWHILE = 40


async def waiting(caller: Caller) -> str:
    """A run that nobody works on: no function is known to the database."""
    answer = await caller.ask(prefer="respond-async")
    assert answer.status_code == 202
    return str(answer.json()["id"])


async def come_and_go(caller: Caller, doomed: list[str], first_change: asyncio.Event) -> None:
    """Open many runs; of those that were there, cancel some, and delete some of these."""
    for number in range(MEANWHILE):
        await waiting(caller)
        if number < len(doomed):
            await caller.cancel(doomed[number])
            if number % 2:
                assert (await caller.delete(doomed[number])).status_code == 204
        first_change.set()


@pytest.mark.parametrize(("limit", "filters"), [(1, {}), (3, {"status": "pending"})])
async def test_what_was_there_throughout_comes_once_and_in_order(
    night: Night, limit: int, filters: dict[str, str]
) -> None:
    caller = await a_caller(night)
    there = [await waiting(caller) for _ in range(THERE)]
    # two and two opened at the same instant
    await night.execute(
        b"update public.scheduler_invocations as i set created_at = now() - interval '1 hour' + pair * interval '1 s'"
        b" from (select id, row_number() over (order by created_at) / 2 as pair"
        b" from public.scheduler_invocations) as placed"
        b" where placed.id = i.id"
    )
    in_order = [item["id"] for item in (await caller.page(limit=100))["items"]]
    assert sorted(in_order) == sorted(there)
    doomed = there[::3]
    first_change = asyncio.Event()
    changing = asyncio.create_task(come_and_go(caller, doomed, first_change))
    page = await caller.page(limit=limit, **filters)
    shown = [item["id"] for item in page["items"]]
    await first_change.wait()
    while page["next_cursor"]:
        page = await caller.page(limit=limit, cursor=page["next_cursor"], **filters)
        shown += [item["id"] for item in page["items"]]
        assert len(shown) == len(set(shown))
    await changing

    assert [one for one in shown if one in there and one not in doomed] == [
        one for one in in_order if one not in doomed
    ]
    assert (await caller.page(limit=100))["items"][0]["id"] not in there
