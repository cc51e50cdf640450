"""The schedule's pause: its slots open no run and are not caught up, and all else goes on."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from .requests import ask
from .sql_core import SCENARIO, Json, SqlCore, Worker, mentor, minutes, pairs

TRIES = ("open_slot", "dispatch", "schedule")


async def schedule(worker: Worker, **changes: Any) -> Any:
    return await worker.call("schedule", changes=changes, actor="anna")


async def runs(core: SqlCore) -> list[tuple[Any, ...]]:
    return await core.owner.rows(
        "select scheduled_for, status, error_code from public.scheduler_invocations order by 1"
    )


async def test_a_paused_slot_is_skipped_once_and_work_goes_on(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    await core.make_callable()
    due, following = await core.slots()
    open_run = (await worker.open_slot(due - minutes(60), due + minutes(30)))["invocation"]["id"]
    await core.change_settings(f"next_due_at = '{due}'")
    state = await schedule(worker, paused=True, reason="moving house")
    assert (state["pause"]["paused_by"], state["pause"]["until"], state["pause"]["reason"]) == (
        *("anna", None, "moving house"),
    )

    assert await core.owner.value("select scheduler.dispatch()") == 1, "the slot is due, and has no record"
    await core.owner.run("update scheduler.dispatches set ended_at = now()")
    answers = await asyncio.gather(*(one.open_slot(due, following) for one in await core.workers(20)))

    assert sum(answer["opened"] for answer in answers) == 1
    assert {(answer["invocation"]["error_code"], answer["not_a_slot"]) for answer in answers} == {("paused", False)}
    assert {row["id"] for answer in answers for row in answer["open"]} == {open_run}
    assert await runs(core) == [(due - minutes(60), "running", None), (due, "skipped", "paused")]
    assert await core.settings("slot_high_water_mark, next_due_at") == (due, following)
    (skipped,) = {answer["invocation"]["id"] for answer in answers}
    assert set((await core.describe(skipped))["counts"].values()) == {0}
    assert await core.owner.value("select count(*) from scheduler.alerts") == 0
    assert [answer["ended"] for answer in answers] == [[]] * 20, "it is logged by the call that recorded it"
    # The open run is worked on, and a manual one after it. With nothing open no slice is requested.
    assert await worker.enqueue(open_run, [pairs([1])], done=True)
    assert await core.owner.value("select scheduler.dispatch()") == 1
    await core.owner.run("update scheduler.dispatches set ended_at = now()")
    await worker.complete(await worker.claim_one())
    assert (await worker.finish(open_run))["invocation"]["status"] == "success"
    assert await core.owner.value("select scheduler.dispatch()") == 0
    await core.open_manual_run(worker, [pairs([1])])
    assert len((await worker.claim())["batches"]) == 1
    # To evaluate the slot all the same it is retried.
    retry = await ask(worker, retry_of=skipped)
    assert (retry["outcome"], retry["work"]["enumeration_done"]) == ("opened", False)
    await worker.cancel(retry["invocation"]["id"])
    await core.change(retry["invocation"]["id"], "enumeration_done = true")
    await worker.delete(skipped)
    await core.owner.run("call scheduler.prune()")
    assert not (await worker.open_slot(due, following, max_workers=9))["opened"], "once, also after it is pruned"


@pytest.mark.parametrize("first", TRIES)
async def test_a_slot_is_paused_until_the_end_and_due_at_it(core: SqlCore, worker: Worker, first: str) -> None:
    """Each slot is seen after the end, by a call that comes after another one has settled it."""
    await core.install_long_ago()
    due, following = await core.slots()
    for number, (end, status) in enumerate([(0, "running"), (-1, "running"), (1, "skipped"), (9, "skipped")]):
        slot = due - minutes(30 - number)
        columns = f"paused_at = '{slot - minutes(5)}', paused_until = '{slot + minutes(end)}', paused_by = 'anna'"
        await core.change_settings(f"{columns}, next_due_at = '{slot}', slot_high_water_mark = '{slot - minutes(9)}'")
        if first == "dispatch":
            await core.owner.run("select scheduler.dispatch()")
        elif first == "schedule":
            assert (await schedule(worker))["pause"] is None
        assert (await core.settings("paused_at is null")) == (first != "open_slot",)
        answer = await worker.open_slot(slot, following)
        assert (answer["opened"], answer["invocation"]["status"]) == (True, status), end
        assert answer["invocation"]["error_code"] == ("paused" if status == "skipped" else None)
        mark, *pause = await core.settings("slot_high_water_mark, paused_at, paused_by, pause_reason")
        assert mark == max(slot, slot + minutes(end) - timedelta(microseconds=1))
        assert pause == [None, None, None]
        assert not (await worker.open_slot(slot, following, max_workers=9))["opened"]
        if status == "running":
            await worker.cancel(answer["invocation"]["id"])


async def test_a_slot_in_the_pause_is_recorded_however_late(core: SqlCore, worker: Worker) -> None:
    """One that was seen before the pause, and was too old then, is not."""
    await core.install_long_ago()
    due, following = await core.slots()
    old = due - timedelta(hours=13)
    assert not (await worker.open_slot(old, following))["opened"]
    await schedule(worker, paused=True)
    assert not (await worker.open_slot(old, following, max_workers=9))["opened"]
    await core.change_settings(f"next_due_at = '{due - timedelta(hours=12, minutes=30)}'")
    assert (await worker.open_slot(due - timedelta(hours=12, minutes=30), following))["opened"]


@pytest.mark.parametrize("first", [*TRIES, "deployment"])
async def test_a_paused_slot_that_is_seen_late_has_its_types(core: SqlCore, worker: Worker, first: str) -> None:
    """Those that were due at it are in its retry, and not in the next slot's run."""
    await core.install_long_ago()
    due, following = await core.slots()
    fired = {"scenario_type": SCENARIO, "organization": None, "fired_at": due}
    await worker.call(
        "configure_scenario",
        scenario_type=SCENARIO,
        organization=None,
        changes={"schedule": "0 2 * * 1"},
        updated_by="anna",
    )
    await core.owner.run("update public.scenario_evaluation_config set due_after = now() - interval '7 days'")
    given = {"scenario_version": (await worker.call("scenario_config", known_version=""))["version"], "fires": [fired]}
    pause = f"paused_at = '{due - minutes(5)}', paused_until = '{due + minutes(2)}', paused_by = 'anna'"
    await core.change_settings(f"{pause}, next_due_at = '{due}'")
    if first == "dispatch":
        await core.owner.run("select scheduler.dispatch()")
    elif first in ("schedule", "deployment"):
        await schedule(worker)
    if first == "deployment":
        await core.owner.value("select scheduler.connect('https://function.example', 'token', '')")
    answers = [await worker.open_slot(each, following, **given) for each in (due, due + minutes(5))]
    assert [answer["invocation"]["error_code"] for answer in answers] == ["paused", None]
    not_due = "select config #> '{scenarios,not_due}' from public.scheduler_invocations order by scheduled_for"
    assert await core.owner.column(not_due) == [[], [[SCENARIO, None]]]


async def test_changes_keep_what_is_not_given(core: SqlCore, worker: Worker) -> None:
    now = await core.now()
    until = now + timedelta(days=3)

    def shown(state: Json) -> tuple[Any, ...]:
        pause = state["pause"]
        return datetime.fromisoformat(pause["until"]) if pause["until"] else None, pause["reason"]

    assert (await schedule(worker))["pause"] is None
    for wrong in (now, now + timedelta(days=4000)):
        assert await schedule(worker, paused=True, until=wrong) is None
    assert await core.settings("paused_at, scheduler.settings.paused_until") == (None, None)
    assert shown(await schedule(worker, paused=True, until=until, reason="why")) == (until, "why")
    begun = await core.settings("paused_at, paused_by")
    assert shown(await worker.call("schedule", changes={"paused": True}, actor="berit")) == (until, "why")
    assert shown(await schedule(worker, paused=True, until=None)) == (None, "why")
    assert shown(await schedule(worker, paused=True, reason=None)) == (None, None)
    assert await core.settings("paused_at, paused_by") == begun
    await core.change_settings("slot_high_water_mark = now() + interval '1 day'")
    for _ in range(2):
        assert (await schedule(worker, paused=False))["pause"] is None
    assert await core.owner.value("select slot_high_water_mark > now() + interval '23 hours' from scheduler.settings")
    assert shown(await schedule(worker, paused=True)) == (None, None), "an end that is over is not the next one's"


async def test_trying_the_engine_ends_its_pause_and_requests_a_slice(core: SqlCore, worker: Worker) -> None:
    await core.make_callable()
    await core.open_run(worker, [pairs([1])])
    await core.change_settings("engine_paused_until = now() + interval '5 minutes', engine_outages = 3")
    assert (await schedule(worker))["engine_pause"]["outages"] == 3
    assert await core.posted() == 0
    assert (await schedule(worker, retry_engine=True))["engine_pause"] is None
    assert await core.posted() == 1
    assert await core.settings("engine_paused_until, engine_outages") == (None, 0)


async def test_a_person_who_paused_can_be_forgotten(core: SqlCore, worker: Worker) -> None:
    await worker.call("schedule", changes={"paused": True, "reason": f"asked by {mentor(1)}"}, actor=mentor(1))
    await core.owner.value("select scheduler.forget_user(%s)", mentor(1))
    paused_by, reason = await core.settings("paused_by, pause_reason")
    assert (len(paused_by), mentor(1) in paused_by + reason, reason[:9]) == (36, False, "asked by ")
