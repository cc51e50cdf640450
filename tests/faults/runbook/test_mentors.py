"""The troubles of the mentors' view in docs/operations.md: it is empty, or may not be read."""

from __future__ import annotations

from tests.faults.oracle import check_success
from tests.faults.runbook.operator import incident
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness, eventually

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}


async def test_the_run_read_no_mentor_at_all(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(40)
    ((definition,),) = await harness.rows(b"select pg_get_viewdef('public.active_peer_mentors'::regclass)")
    view = "create or replace view public.active_peer_mentors with (security_invoker = true) as "
    await harness.execute(f"{view} select * from ({definition.rstrip(';')}) as all_mentors where false".encode())
    function = await harness.start_function(SMALL)
    await time_control.start()
    await time_control.until_ended()
    monitored = await harness.http.get(f"{function.url}/health/last-run")
    assert (monitored.status_code, monitored.json()["code"]) == (503, "last_run_missing")

    async with incident("The run read no mentor at all", harness, function) as operator:
        run, shown = (await operator.check("failed", "no_active_mentors")).answers
        assert (run["status"], run["error_code"], shown["data"]) == ("failed", "no_active_mentors", [])

        await harness.execute((view + definition).encode())
        shown, run = (await operator.fix()).answers
        assert len(shown["data"]) == 5
        (item,) = (await operator.confirm()).answers[0]["data"]

    assert (item["id"], item["status"], item["counts"]["mentors"]) == (run["id"], "success", 40)
    assert await harness.recorded_pairs(run["id"]) == harness.expected_pairs()


async def test_the_run_is_open_and_reads_no_mentors(harness: Harness, time_control: TimeControl) -> None:
    """The view was dropped and created anew in a project whose default privileges give nothing."""
    await harness.add_mentors(40)
    await harness.execute(b"revoke all on public.active_peer_mentors, public.peer_mentors from service_role")
    function = await harness.start_function(SMALL)
    await time_control.start()
    await time_control.tick_and_wait()
    await time_control.tick_and_wait()

    async with incident("The run is open and reads no mentors", harness, function) as operator:
        seen = await operator.check("running", "500", "database_refused", "42501")
        run = seen.answers[0]
        assert (run["status"], run["error_code"], set(run["counts"].values())) == ("running", None, {0})
        assert 500 in {answer["status_code"] for answer in run["dispatches"]}

        await operator.fix()
        await eventually(harness.ended)
        shown, confirmed = (await operator.confirm()).answers

    assert len(shown["data"]) == 1
    assert confirmed["id"] == run["id"]
    await check_success(harness, confirmed)
