"""The dead-man's check on the running function: missing runs are seen from outside, without a token."""

from __future__ import annotations

from typing import Any

from tests.emulator.function import FunctionProcess
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness


async def last_run(harness: Harness, function: FunctionProcess, **params: Any) -> tuple[int, dict[str, Any]]:
    """The answer of an instance, which caches the run for half a minute."""
    answer = await harness.http.get(f"{function.url}/health/last-run", params=params)
    return answer.status_code, answer.json()


async def change_schedule(caller: Caller, **change: Any) -> dict[str, Any]:
    answer = await caller.call("PUT", "/api/v1/schedule", json=change)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def fire_again(harness: Harness, function: FunctionProcess) -> dict[str, Any]:
    """As if the slot had never been fired."""
    await harness.execute(b"delete from public.scheduler_invocations")
    await harness.project.make_slot_due()
    return dict((await harness.fire(function)).json())


async def test_the_monitor_alarms_unless_a_run_ended_well_lately(harness: Harness) -> None:
    """Also in a pause, in which the slot is skipped once and its mentors are evaluated by hand."""
    early = await harness.start_function()
    assert (await harness.fire(early)).json()["error_code"] == "no_active_mentors"
    caller = Caller(harness, early)
    paused = await change_schedule(caller, paused=True, reason="moving")
    assert (paused["pause"]["paused_by"], paused["pause"]["reason"], paused["next_slots"]) == ("admin", "moving", [])
    status, problem = await last_run(harness, early)
    assert (status, problem["code"]) == (503, "paused"), "a run without mentors is none"

    await harness.add_mentors(10)
    skipped = await fire_again(harness, early)
    assert (skipped["status"], skipped["error_code"], skipped["deduplicated"]) == ("skipped", "paused", False)
    assert (await caller.run())["status"] == "success"
    resumed = await change_schedule(caller, paused=False)
    assert (resumed["pause"], len(resumed["next_slots"])) == (None, 5)
    assert (await harness.fire(early)).json() == skipped | {"deduplicated": True}, "it is not caught up"
    (line,) = harness.log_lines(early, "scheduler_run_skipped")
    assert (line["severity"], line["error_code"]) == ("INFO", "paused")

    assert (await fire_again(harness, early))["status"] == "success"
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
