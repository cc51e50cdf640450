"""Alerts in the database: one for a bad scheduled run, claimed by one slice at a time until sent or given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .sql_core import Json, SqlCore, Worker, mentor, pairs

CONFIG = {"alerts": True, "alert_partial_above": 0.25, "alert_late_above_minutes": 120}


async def open_run(core: SqlCore, worker: Worker, *, manual: bool = False, done: bool = True, **config: object) -> str:
    """A run of four evaluations that is open, with these settings over the usual ones."""
    run = await (core.open_manual_run if manual else core.open_run)(worker, [pairs(range(4))], done=done)
    await core.owner.run(
        "update public.scheduler_invocations set config = %s where id = %s", Jsonb(CONFIG | config), run
    )
    return run


async def end(worker: Worker, run: str, *, failed: int = 0) -> None:
    batch = await worker.claim_one()
    await worker.complete(batch, outcomes={mentor(number): "failed" for number in range(failed)})
    assert (await worker.finish(run))["ended_now"]


async def failed_run(core: SqlCore, worker: Worker) -> str:
    run = await open_run(core, worker)
    await end(worker, run, failed=4)
    return run


async def raised(core: SqlCore) -> list[tuple[str, str]]:
    return await core.owner.rows("select invocation_id::text, reason from scheduler.alerts")


async def claimed(worker: Worker) -> Any:
    return await worker.value("select public.scheduler_claim_alert()")


async def settle(worker: Worker, run: str, error: str | None = None) -> None:
    await worker.call("settle_alert", invocation_id=run, error=error)


async def dispatched(core: SqlCore) -> Any:
    await core.owner.run("update scheduler.dispatches set ended_at = now()")
    return await core.owner.value("select scheduler.dispatch()")


async def later(core: SqlCore, minutes: float) -> None:
    """Let so much time pass for what waits to be sent."""
    seconds = f"make_interval(secs => {minutes * 60})"
    await core.owner.run(
        f"update scheduler.alerts set next_attempt_at = next_attempt_at - {seconds}, raised_at = raised_at - {seconds}"
    )


async def make_late(core: SqlCore, run: str, since_slot: int, since_start: int) -> None:
    await core.change(
        run,
        f"scheduled_for = now() - make_interval(mins => {since_slot}),"
        f" started_at = now() - make_interval(mins => {since_start})",
    )


@pytest.mark.parametrize(
    ("failed", "config", "reason"),
    [
        (0, {}, None),
        (1, {}, None),
        (2, {}, "partial"),
        (4, {}, "failed"),
        (0, {"alert_partial_above": 0}, None),
        (1, {"alert_partial_above": 0}, "partial"),
        (4, {"alerts": False}, None),
        (4, {"alerts": None}, None),
        # what cannot be understood keeps no run from ending
        (2, {"alert_partial_above": "much"}, None),
    ],
)
async def test_a_run_is_reported_when_failed_above_the_threshold(
    core: SqlCore, worker: Worker, failed: int, config: Json, reason: str | None
) -> None:
    run = await open_run(core, worker, **config)
    await end(worker, run, failed=failed)
    assert await raised(core) == ([(run, reason)] if reason else [])


@pytest.mark.parametrize(
    ("kind", "failed", "reason"),
    [
        *(("", 0, "summary"), ("", 1, "summary"), ("", 2, "partial"), ("", 4, "failed"), ("late", 0, "late")),
        *(("manual", 0, None), ("dry", 0, None), ("cancelled", 0, None), ("no webhook", 0, None)),
    ],
)
async def test_always_each_scheduled_run_is_reported_once(
    core: SqlCore, worker: Worker, kind: str, failed: int, reason: str | None
) -> None:
    run = await open_run(core, worker, manual=kind == "manual", alerts=kind != "no webhook", alert_on="always")
    if kind == "dry":
        await core.change(run, "dry_run = true")
    if kind == "late":
        await make_late(core, run, 300, 121)
        await core.owner.run("select scheduler.dispatch()")
    if kind == "cancelled":
        await worker.update(run, status=kind)
    else:
        await end(worker, run, failed=failed)
    assert await raised(core) == ([(run, reason)] if reason else [])


# The last one was opened before there were alerts.
@pytest.mark.parametrize("kind", ["manual", "cancelled", "failed", "dry_run = true", "config = '{}'"])
async def test_manual_and_dry_runs_and_verdicts_are_not_reported(core: SqlCore, worker: Worker, kind: str) -> None:
    run = await open_run(core, worker, manual=kind == "manual")
    if kind in ("cancelled", "failed"):
        await worker.update(run, status=kind)
    else:
        if kind != "manual":
            await core.change(run, kind)
        await end(worker, run, failed=4)
    assert await raised(core) == []


@pytest.mark.parametrize(("done", "recorded", "reason"), [(True, False, "failed"), (False, True, "partial")])
async def test_an_expired_run_is_reported(
    core: SqlCore, worker: Worker, done: bool, recorded: bool, reason: str
) -> None:
    """One that was not read to its end, however few failed."""
    run = await open_run(core, worker, done=done)
    if recorded:
        await worker.complete(await worker.claim_one())
    await core.expire_now(run)
    await core.owner.run("select scheduler.dispatch()")
    assert await raised(core) == [(run, reason)]
    assert (await claimed(worker))["invocation"]["error_code"] == "expired"


@pytest.mark.parametrize(("minutes", "is_late"), [(119, False), (121, True)])
async def test_a_run_ending_well_but_late_is_reported(
    core: SqlCore, worker: Worker, minutes: int, is_late: bool
) -> None:
    run = await open_run(core, worker)
    await make_late(core, run, minutes, 0)
    await end(worker, run)
    assert await raised(core) == ([(run, "late")] if is_late else [])


@pytest.mark.parametrize(
    ("since_slot", "since_start", "is_late"), [(119, 119, False), (121, 121, True), (300, 119, False), (300, 121, True)]
)
async def test_an_open_run_is_reported_late_once(
    core: SqlCore, worker: Worker, since_slot: int, since_start: int, is_late: bool
) -> None:
    """One that began late has as much time again: its only alert shall say how it ended."""
    run = await open_run(core, worker)
    await make_late(core, run, since_slot, since_start)
    for _ in range(2):
        await core.owner.run("select scheduler.dispatch()")
    assert await raised(core) == ([(run, "late")] if is_late else [])
    await end(worker, run, failed=4)
    assert await raised(core) == [(run, "late" if is_late else "failed")]
    assert (await claimed(worker))["invocation"]["status"] == "failed"


async def test_one_slice_claims_an_alert_which_names_no_user(core: SqlCore, worker: Worker) -> None:
    slots = await core.slots()
    assert (await worker.open_slot(*slots))["alert_due"] is False
    run = await failed_run(core, worker)
    assert (await worker.open_slot(*slots))["alert_due"] is True
    answers = await asyncio.gather(*(claimed(one) for one in await core.workers(8)))
    (alert,) = [answer for answer in answers if answer is not None]
    assert alert == {
        "webhook_id": f"alert_{run}",
        "attempts": 1,
        "last": False,
        "reason": "failed",
        "invocation": await core.summarize(run),
        "failures": [{"code": "engine_error", "count": 4, "is_lower_bound": False}],
    }
    assert mentor(1) not in str(alert)
    assert (await worker.open_slot(*slots))["alert_due"] is False


async def test_attempts_are_repeated_under_one_id_ever_later(core: SqlCore, worker: Worker) -> None:
    """Whether the worker died or reported a failure."""
    run = await failed_run(core, worker)
    waited = []
    for number in range(1, 9):
        alert = await claimed(worker)
        assert (alert["webhook_id"], alert["attempts"]) == (f"alert_{run}", number)
        if number % 2:
            await settle(worker, run, "webhook_timeout")
        wait = "select round(extract(epoch from next_attempt_at - now()) / 60) from scheduler.alerts"
        waited.append(await core.owner.value(wait))
        assert await claimed(worker) is None
        await core.owner.run("update scheduler.alerts set next_attempt_at = now()")
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_an_alert_is_given_up_after_a_day(core: SqlCore, worker: Worker) -> None:
    run = await failed_run(core, worker)
    await core.owner.run("update scheduler.alerts set raised_at = now() - interval '23 hours 59 minutes 30 seconds'")
    assert (await claimed(worker))["last"] is True
    await settle(worker, run, "webhook_http_404")
    await core.owner.run("select scheduler.dispatch()")
    assert await core.owner.value("select given_up_at from scheduler.alerts") is None
    await later(core, 2)
    await core.owner.run("select scheduler.dispatch()")
    outcome = "select sent_at is not null, given_up_at is not null, error from scheduler.alerts"
    assert await core.owner.rows(outcome) == [(False, True, "webhook_http_404")]
    assert await claimed(worker) is None
    # a success that is reported late counts, and a failure does not take it back
    await settle(worker, run)
    await settle(worker, run, "webhook_timeout")
    assert await core.owner.rows(outcome) == [(True, False, None)]


@pytest.mark.parametrize("paused", [False, True])
async def test_dispatch_asks_for_a_slice_for_a_waiting_alert(core: SqlCore, worker: Worker, paused: bool) -> None:
    await core.make_callable()
    run = await failed_run(core, worker)
    if paused:
        await core.change_settings("engine_paused_until = now() + interval '5 minutes'")
    # the slice that ended the run is about to send it
    assert await dispatched(core) == 0
    await later(core, 0.5)
    assert await dispatched(core) == 1
    await claimed(worker)
    assert await dispatched(core) == 0
    await later(core, 1.1)
    assert await dispatched(core) == 1
    await settle(worker, run)
    await later(core, 600)
    assert await dispatched(core) == 0
    assert await claimed(worker) is None


async def test_an_alert_goes_with_its_invocation_without_waiting(core: SqlCore, worker: Worker) -> None:
    run = await failed_run(core, worker)
    async with worker.transaction():
        assert await claimed(worker) is not None
        assert await (await core.worker()).delete(run) == "deleted"
    await settle(worker, run)
    await core.owner.run("call scheduler.prune()")
    assert await raised(core) == []
