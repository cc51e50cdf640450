"""Mornings of the view through which mentors are read: it shows nobody, or lets nobody look."""

from __future__ import annotations

from tests.faults.clockwork import Clockwork
from tests.faults.mornings.operator import living_through
from tests.faults.oracle import check_promises
from tests.integration.nightly.night import Night, eventually

SMALL = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "MAX_WORKERS": "2"}


async def test_the_run_read_no_mentor_at_all(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(40)
    ((definition,),) = await night.rows(b"select pg_get_viewdef('public.active_peer_mentors'::regclass)")
    view = "create or replace view public.active_peer_mentors with (security_invoker = true) as "
    await night.execute(f"{view} select * from ({definition.rstrip(';')}) as everybody where false".encode())
    function = await night.start_function(SMALL)
    await clockwork.start()
    await clockwork.until_ended()
    monitored = await night.http.get(f"{function.url}/health/last-run")

    async with living_through("The run read no mentor at all", night, function) as operator:
        seen = await operator.look("failed", "no_active_mentors")
        assert (seen.answers[0]["status"], seen.answers[0]["error"]) == ("failed", "no_active_mentors")
        assert seen.answers[1]["items"] == []
        assert (monitored.status_code, monitored.json()["code"]) == (503, "last_run_missing")

        await night.execute((view + definition).encode())
        shown, run = (await operator.press()).answers
        assert len(shown["items"]) == 5
        mended = await operator.see_that_it_is_mended()

    (item,) = mended.answers[0]["items"]
    assert (item["id"], item["status"], item["counts"]["mentors"]) == (run["id"], "succeeded", 40)
    assert await night.recorded_pairs(run["id"]) == night.expected_pairs()
    another = await night.start_function(SMALL)
    assert (await night.http.get(f"{another.url}/health/last-run")).status_code == 503, "a run by hand is no night"


async def test_the_run_is_open_and_nobody_gets_read(night: Night, clockwork: Clockwork) -> None:
    """The view was dropped and created anew in a project whose default privileges give nothing."""
    await night.add_mentors(40)
    await night.execute(b"revoke all on public.active_peer_mentors, public.peer_mentors from service_role")
    function = await night.start_function(SMALL)
    await clockwork.start()
    for _ in range(2):
        await clockwork.tick()
        await clockwork.until_quiet()
    await clockwork.tick()

    async with living_through("The run is open and nobody gets read", night, function) as operator:
        seen = await operator.look("running", "500", "database_refused", "42501")
        run = seen.answers[0]
        assert (run["status"], run["error"], set(run["counts"].values())) == ("running", None, {0})
        assert {answer["status_code"] for answer in run["dispatches"]} >= {500}

        await clockwork.until_quiet()
        await operator.press()
        await eventually(night.ended)
        mended = await operator.see_that_it_is_mended()

    assert len(mended.answers[0]["items"]) == 1
    assert (mended.answers[1]["id"], mended.answers[1]["status"]) == (run["id"], "succeeded")
    await check_promises(night, mended.answers[1])
