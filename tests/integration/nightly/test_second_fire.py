"""A slot that is fired again costs the database one round trip, whether its night is over or there is nothing to do."""

from __future__ import annotations

import pytest

from tests.faults.lossy_proxy import LossyProxy
from tests.integration.nightly.night import Night

OPEN_SLOT = "/rest/v1/rpc/scheduler_open_slot"


async def test_a_fire_after_the_night_asks_the_data_api_once_in_the_same_process_and_in_a_new_one(night: Night) -> None:
    await night.add_mentors(150)
    async with LossyProxy(night.project.supabase_url, losing={}) as proxy:
        through_proxy = {"SUPABASE_URL": proxy.url}
        function = await night.start_function(through_proxy)
        first = await night.fire(function)
        assert (first.status_code, first.json()["status"]) == (200, "succeeded")
        assert len(proxy.asked) > 1

        for again in (function, await night.start_function(through_proxy)):
            proxy.asked.clear()
            answer = await night.fire(again)
            assert (answer.status_code, answer.json()) == (200, first.json() | {"deduplicated": True})
            assert proxy.asked == [OPEN_SLOT]
    assert max(night.engine.keys_seen.values()) == 1


@pytest.mark.parametrize("headers", [{}, {"X-Scheduler-Dispatch": "17"}])
async def test_a_fire_that_finds_nothing_due_asks_the_data_api_once(night: Night, headers: dict[str, str]) -> None:
    await night.execute(b"update scheduler.settings set slot_high_water_mark = now()")
    async with LossyProxy(night.project.supabase_url, losing={}) as proxy:
        function = await night.start_function({"SUPABASE_URL": proxy.url})
        answer = await night.fire(function, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
    assert proxy.asked == [OPEN_SLOT]
    assert night.engine.calls == []
