"""The dead-man's check on the running function: silent nights are seen from outside, without a token."""

from __future__ import annotations

from typing import Any

from tests.integration.nightly.night import Night


async def last_run(night: Night) -> tuple[int, dict[str, Any]]:
    """What an instance says that has nothing remembered yet."""
    function = await night.start_function()
    answer = await night.http.get(f"{function.url}/health/last-run")
    return answer.status_code, answer.json()


async def test_it_alarms_until_a_night_ends_well_and_again_when_the_next_ones_stay_out(night: Night) -> None:
    await night.add_mentors(10)
    status, problem = await last_run(night)
    assert (status, problem["code"]) == (503, "last_run_missing")

    night_run = (await night.fire(await night.start_function())).json()
    status, found = await last_run(night)
    assert (status, found["scheduled_for"], found["run_status"]) == (200, night_run["scheduled_for"], "succeeded")
    assert found["max_age_hours"] == 26

    await night.execute(b"update public.scheduler_invocations set finished_at = now() - interval '27 hours'")
    status, problem = await last_run(night)
    assert (status, problem["code"]) == (503, "last_run_missing")


async def test_a_night_without_mentors_is_none(night: Night) -> None:
    assert (await night.fire(await night.start_function())).json()["status"] == "failed"
    assert (await last_run(night))[0] == 503
