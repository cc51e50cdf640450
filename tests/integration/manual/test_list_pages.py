"""GET, page by page over HTTP, while runs are opened, cancelled and deleted."""

from __future__ import annotations

from tests.integration.manual.caller import Caller, a_caller
from tests.integration.nightly.night import Night


async def waiting(caller: Caller) -> str:
    """A run that stays open: the database knows no function to call."""
    return str((await caller.ask(prefer="respond-async")).json()["id"])


async def test_what_was_there_throughout_comes_once_and_in_order(night: Night) -> None:
    caller = await a_caller(night)
    there = [await waiting(caller) for _ in range(12)]
    # Two and two opened at the same instant.
    await night.execute(
        b"update public.scheduler_invocations as i set created_at = now() - interval '1 hour' + pair * interval '1 s'"
        b" from (select id, row_number() over (order by created_at) / 2 as pair"
        b" from public.scheduler_invocations) as placed"
        b" where placed.id = i.id"
    )
    in_order = [item["id"] for item in (await caller.page(limit=100))["items"]]
    assert sorted(in_order) == sorted(there)

    page = await caller.page(limit=3, status="pending")
    shown = [item["id"] for item in page["items"]]
    # The first two are not shown yet, the third is where the cursor stands.
    doomed = in_order[4::3]
    for number, run in enumerate(doomed):
        await waiting(caller)
        assert (await caller.cancel(run)).status_code == 200
        if number % 2 == 0:
            assert (await caller.delete(run)).status_code == 204
        page = await caller.page(limit=3, status="pending", cursor=page["next_cursor"])
        shown += [item["id"] for item in page["items"]]

    assert page["next_cursor"] is None
    assert len(shown) == len(set(shown))
    assert [run for run in shown if run not in doomed] == [run for run in in_order if run not in doomed]
    assert (await caller.page(limit=1))["items"][0]["id"] not in there
