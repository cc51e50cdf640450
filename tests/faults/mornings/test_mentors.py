"""The troubles of the mentors' view in docs/operations.md: it is empty, or may not be read."""

from __future__ import annotations

from tests.faults.clockwork import Clockwork
from tests.faults.mornings.operator import living_through
from tests.faults.oracle import check_success
from tests.integration.nightly.night import Night, eventually

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}


async def test_the_run_read_no_mentor_at_all(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(40)
    ((definition,),) = await night.rows(b"select pg_get_viewdef('public.active_peer_mentors'::regclass)")
    view = "create or replace view public.active_peer_mentors with (security_invoker = true) as "
    await night.execute(f"{view} select * from ({definition.rstrip(';')}) as all_mentors where false".encode())
    function = await night.start_function(SMALL)
    await clockwork.start()
    await clockwork.until_ended()
    monitored = await night.http.get(f"{function.url}/health/last-run")
    assert (monitored.status_code, monitored.json()["code"]) == (503, "last_run_missing")

    async with living_through("The run read no mentor at all", night, function) as operator:
        run, shown = (await operator.look("failed", "no_active_mentors")).answers
        assert (run["status"], run["error"], shown["items"]) == ("failed", "no_active_mentors", [])

        await night.execute((view + definition).encode())
        shown, run = (await operator.press()).answers
        assert len(shown["items"]) == 5
        (item,) = (await operator.see_that_it_is_mended()).answers[0]["items"]

    assert (item["id"], item["status"], item["counts"]["mentors"]) == (run["id"], "succeeded", 40)
    assert await night.recorded_pairs(run["id"]) == night.expected_pairs()


async def test_the_run_is_open_and_nobody_gets_read(night: Night, clockwork: Clockwork) -> None:
    """The view was dropped and created anew in a project whose default privileges give nothing."""
    await night.add_mentors(40)
    await night.execute(b"revoke all on public.active_peer_mentors, public.peer_mentors from service_role")
    function = await night.start_function(SMALL)
    await clockwork.start()
    await clockwork.tick_and_wait()
    await clockwork.tick_and_wait()

    async with living_through("The run is open and nobody gets read", night, function) as operator:
        seen = await operator.look("running", "500", "database_refused", "42501")
        run = seen.answers[0]
        assert (run["status"], run["error"], set(run["counts"].values())) == ("running", None, {0})
        assert 500 in {answer["status_code"] for answer in run["dispatches"]}

        await operator.press()
        await eventually(night.ended)
        shown, mended = (await operator.see_that_it_is_mended()).answers

    assert len(shown["items"]) == 1
    assert mended["id"] == run["id"]
    await check_success(night, mended)
