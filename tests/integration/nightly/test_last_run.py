"""The dead-man's check on the running function: missing runs are seen from outside, without a token."""

from __future__ import annotations

from typing import Any

from tests.emulator.function import FunctionProcess
from tests.integration.nightly.night import Night


async def last_run(night: Night, function: FunctionProcess, **params: Any) -> tuple[int, dict[str, Any]]:
    """What an instance says; it remembers the run for half a minute."""
    answer = await night.http.get(f"{function.url}/health/last-run", params=params)
    return answer.status_code, answer.json()


async def test_the_monitor_alarms_unless_a_run_ended_well_lately(night: Night) -> None:
    early = await night.start_function()
    assert (await night.fire(early)).json()["error"] == "no_active_mentors"
    status, problem = await last_run(night, early)
    assert (status, problem["code"]) == (503, "last_run_missing"), "a run without mentors is none"

    await night.add_mentors(10)
    await night.execute(b"delete from public.scheduler_invocations")
    await night.project.make_slot_due()
    run = (await night.fire(early)).json()
    late = await night.start_function()
    await night.execute(b"update public.scheduler_invocations set finished_at = now() - interval '25 hours'")
    status, found = await last_run(night, late)
    assert (status, found["scheduled_for"], found["run_status"]) == (200, run["scheduled_for"], "succeeded")
    assert found["max_age_hours"] == 26
    status, problem = await last_run(night, late, max_age_hours=24)
    assert (status, problem["code"]) == (503, "last_run_missing")
