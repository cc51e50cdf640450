"""The dead-man's check on the running function: missing runs are seen from outside, without a token."""

from __future__ import annotations

from typing import Any

from tests.emulator.function import FunctionProcess
from tests.integration.scheduled_runs.harness import Harness


async def last_run(harness: Harness, function: FunctionProcess, **params: Any) -> tuple[int, dict[str, Any]]:
    """The answer of an instance, which caches the run for half a minute."""
    answer = await harness.http.get(f"{function.url}/health/last-run", params=params)
    return answer.status_code, answer.json()


async def test_the_monitor_alarms_unless_a_run_ended_well_lately(harness: Harness) -> None:
    early = await harness.start_function()
    assert (await harness.fire(early)).json()["error_code"] == "no_active_mentors"
    status, problem = await last_run(harness, early)
    assert (status, problem["code"]) == (503, "last_run_missing"), "a run without mentors is none"

    await harness.add_mentors(10)
    await harness.execute(b"delete from public.scheduler_invocations")
    await harness.project.make_slot_due()
    await harness.fire(early)
    late = await harness.start_function()
    await harness.execute(b"update public.scheduler_invocations set finished_at = now() - interval '25 hours'")
    status, found = await last_run(harness, late)
    assert (status, found["scheduled_for"], found["run_status"]) == (
        200,
        f"{harness.slot:%Y-%m-%dT%H:%M:%S}Z",
        "success",
    )
    assert found["max_age_hours"] == 26
    status, problem = await last_run(harness, late, max_age_hours=24)
    assert (status, problem["code"]) == (503, "last_run_missing")
