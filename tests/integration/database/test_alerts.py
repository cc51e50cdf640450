"""Alerts in the database: one for a bad night, taken by one at a time until it was sent or given up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from .sql_core import Json, Pairs, SqlCore, Worker, mentor, pairs

CONFIG = {"alerts": True, "alert_partial_above": 0.25, "alert_late_above_minutes": 120}
POSTS = "select count(*) from net.http_request_queue"


async def open_night(core: SqlCore, worker: Worker, batches: Sequence[Pairs] = (), **config: Any) -> str:
    """A night of now that is open, with these settings over the usual ones."""
    run = await core.open_run(worker, batches)
    await core.owner.run(
        "update public.scheduler_invocations set config = %s where id = %s", Jsonb(CONFIG | config), run
    )
    return run


async def end_night(core: SqlCore, worker: Worker, *, failed: int = 0, of: int = 4, **config: Any) -> str:
    """A night of so many evaluations, of which so many failed, that has just ended."""
    run = await open_night(core, worker, [pairs(range(of))], **config)
    batch = await worker.claim_one()
    await worker.complete(batch, outcomes={mentor(number): "failed" for number in range(failed)})
    assert (await worker.finish(run))["ended_now"]
    return run


async def raised(core: SqlCore) -> list[tuple[str, str]]:
    return [
        (str(run), reason)
        for run, reason in await core.owner.rows("select invocation_id, reason from scheduler.alerts")
    ]


async def claimed(worker: Worker) -> Json | None:
    answer: Json | None = await worker.value("select public.scheduler_claim_alert()")
    return answer


async def later(core: SqlCore, minutes: float) -> None:
    """Let so much time pass for what waits to be sent."""
    await core.owner.run(
        "update scheduler.alerts set next_attempt_at = next_attempt_at - make_interval(secs => %s),"
        " raised_at = raised_at - make_interval(secs => %s)",
        minutes * 60,
        minutes * 60,
    )


async def make_callable(core: SqlCore) -> None:
    """Nothing is due, and the function can be called."""
    await core.owner.run("select vault.create_secret('http://127.0.0.1:9/', 'scheduler_function_url')")
    await core.owner.run("select vault.create_secret('token', 'scheduler_invoke_token')")
    await core.owner.run("update scheduler.settings set next_due_at = now() + interval '1 hour'")


@pytest.mark.parametrize(
    ("failed", "reason"), [(0, None), (1, None), (2, "partial"), (3, "partial"), (4, "failed")], ids=str
)
async def test_a_night_is_worth_an_alert_when_it_failed_or_more_of_it_than_is_bearable(
    core: SqlCore, worker: Worker, failed: int, reason: str | None
) -> None:
    run = await end_night(core, worker, failed=failed)
    assert await raised(core) == ([(run, reason)] if reason else [])


async def test_a_threshold_of_nothing_makes_every_partial_night_worth_one(core: SqlCore, worker: Worker) -> None:
    await end_night(core, worker, alert_partial_above=0)
    assert await raised(core) == []


async def test_a_single_failure_is_more_than_nothing(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=1, alert_partial_above=0)
    assert await raised(core) == [(run, "partial")]


async def test_a_partial_night_whose_mentors_were_not_all_read_is_worth_one_however_few_failed(
    core: SqlCore, worker: Worker
) -> None:
    run = await core.open_run(worker, [pairs(range(4))], done=False)
    await core.owner.run("update public.scheduler_invocations set config = %s where id = %s", Jsonb(CONFIG), run)
    await worker.complete(await worker.claim_one())
    await core.expire_now(run)
    await core.owner.run("select scheduler.expire()")
    assert (await core.describe(run))["status"] == "partial"
    assert await raised(core) == [(run, "partial")]


@pytest.mark.parametrize("config", [{"alerts": False}, {"alerts": None}], ids=["off", "unknown"])
async def test_where_nobody_is_to_be_told_nothing_is_raised(core: SqlCore, worker: Worker, config: Json) -> None:
    await end_night(core, worker, failed=4, **config)
    assert await raised(core) == []


async def test_a_run_that_was_opened_before_there_were_alerts_ends_as_ever(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(2))])
    await worker.complete(await worker.claim_one(), "failed")
    await worker.finish(run)
    assert (await core.describe(run))["status"] == "failed"
    assert await raised(core) == []


async def test_who_asks_for_a_run_is_not_told_of_it(core: SqlCore, worker: Worker) -> None:
    run = await core.open_manual_run(worker, [pairs(range(2))])
    await core.owner.run("update public.scheduler_invocations set config = %s where id = %s", Jsonb(CONFIG), run)
    await worker.complete(await worker.claim_one(), "failed")
    await worker.finish(run)
    assert await raised(core) == []


async def test_who_cancels_a_night_is_not_told_of_it(core: SqlCore, worker: Worker) -> None:
    run = await open_night(core, worker, [pairs(range(2))])
    await worker.cancel(run)
    assert await raised(core) == []


async def test_a_night_that_expires_while_nobody_works_on_it_is_told_of(core: SqlCore, worker: Worker) -> None:
    run = await open_night(core, worker, [pairs(range(2))])
    await core.expire_now(run)
    await core.owner.run("select scheduler.dispatch()")
    assert await raised(core) == [(run, "failed")]
    alert = await claimed(worker)
    assert alert is not None
    assert alert["invocation"]["error"] == "expired"


@pytest.mark.parametrize(("minutes", "reason"), [(119, None), (121, "late")])
async def test_a_night_that_ended_well_but_late_is_worth_an_alert(
    core: SqlCore, worker: Worker, minutes: int, reason: str | None
) -> None:
    run = await open_night(core, worker, [pairs(range(2))])
    await core.owner.run(
        "update public.scheduler_invocations set scheduled_for = now() - make_interval(mins => %s) where id = %s",
        minutes,
        run,
    )
    await worker.complete(await worker.claim_one())
    await worker.finish(run)
    assert await raised(core) == ([(run, reason)] if reason else [])


@pytest.mark.parametrize(
    ("since_slot", "since_start", "is_late"), [(119, 119, False), (121, 121, True), (300, 119, False), (300, 121, True)]
)
async def test_a_night_that_does_not_end_is_told_of_while_it_is_open(
    core: SqlCore, worker: Worker, since_slot: int, since_start: int, is_late: bool
) -> None:
    """One that began late has as much time again: its only alert shall say how it ended."""
    run = await open_night(core, worker, [pairs(range(2))])
    await core.owner.run(
        "update public.scheduler_invocations set scheduled_for = now() - make_interval(mins => %s),"
        " started_at = now() - make_interval(mins => %s) where id = %s",
        since_slot,
        since_start,
        run,
    )
    for _ in range(2):
        await core.owner.run("select scheduler.dispatch()")
    assert await raised(core) == ([(run, "late")] if is_late else [])


async def test_a_night_has_one_alert_whatever_else_becomes_of_it(core: SqlCore, worker: Worker) -> None:
    run = await open_night(core, worker, [pairs(range(2))])
    await core.owner.run(
        "update public.scheduler_invocations set scheduled_for = now() - interval '3 hours',"
        " started_at = now() - interval '3 hours' where id = %s",
        run,
    )
    await core.owner.run("select scheduler.dispatch()")
    await worker.complete(await worker.claim_one(), "failed")
    await worker.finish(run)
    assert await raised(core) == [(run, "late")]
    alert = await claimed(worker)
    assert alert is not None
    assert (alert["reason"], alert["invocation"]["status"]) == ("late", "failed")


async def test_a_night_that_ends_just_when_it_is_found_to_be_late_has_one_alert_and_ends(
    core: SqlCore, worker: Worker
) -> None:
    run = await open_night(core, worker, [pairs(range(2))])
    await worker.complete(await worker.claim_one(), "failed")
    await core.owner.run(
        "update public.scheduler_invocations set scheduled_for = now() - interval '3 hours',"
        " started_at = now() - interval '3 hours' where id = %s",
        run,
    )
    dispatch = await core.session()
    async with dispatch.transaction():
        await dispatch.run("select scheduler.dispatch()")
        finish = asyncio.create_task(worker.finish(run))
        await core.until_waiting_for_a_lock(worker, or_done=finish)
    assert (await finish)["ended_now"] is True
    assert await raised(core) == [(run, "late")]


async def test_a_night_that_is_deleted_while_its_alert_is_taken_waits_for_nobody(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=4)
    async with worker.transaction():
        assert await claimed(worker) is not None
        other = await core.worker()
        assert await other.delete(run) == "deleted"
    await worker.call("settle_alert", invocation_id=run, error=None)


async def test_an_alert_that_cannot_be_raised_keeps_no_night_from_ending(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=4, alert_partial_above="much", alert_late_above_minutes="long")
    assert (await core.describe(run))["status"] == "failed"
    assert await raised(core) == [(run, "failed")]
    await core.owner.run("delete from public.scheduler_invocations")
    other = await end_night(core, worker, failed=1, alert_partial_above="much")
    assert (await core.describe(other))["status"] == "partial"
    assert await raised(core) == []


async def test_what_is_taken_tells_of_the_night_without_naming_anybody(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=3)
    alert = await claimed(worker)
    assert alert is not None
    assert alert["invocation"] == await core.summarize(run)
    assert alert["failures"] == [{"code": "engine_error", "count": 3, "is_lower_bound": False}]
    assert {key: alert[key] for key in ("webhook_id", "attempts", "last", "reason")} == {
        "webhook_id": f"alert_{run}",
        "attempts": 1,
        "last": False,
        "reason": "partial",
    }
    assert mentor(1) not in str(alert)


async def test_of_many_who_come_at_once_one_takes_it(core: SqlCore, worker: Worker) -> None:
    await end_night(core, worker, failed=4)
    answers = await asyncio.gather(*(claimed(one) for one in await core.workers(8)))
    assert len([answer for answer in answers if answer is not None]) == 1
    assert await claimed(worker) is None


async def test_what_was_sent_is_not_sent_again(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=4)
    await claimed(worker)
    await worker.call("settle_alert", invocation_id=run, error=None)
    await later(core, 600)
    assert await claimed(worker) is None


async def test_an_attempt_of_which_nobody_hears_again_is_repeated_with_the_same_id_after_longer_and_longer(
    core: SqlCore, worker: Worker
) -> None:
    """Whether the worker died or said that it failed."""
    run = await end_night(core, worker, failed=4)
    waited = []
    for number in range(1, 9):
        alert = await claimed(worker)
        assert alert is not None
        assert (alert["webhook_id"], alert["attempts"]) == (f"alert_{run}", number)
        if number % 2:
            await worker.call("settle_alert", invocation_id=run, error="webhook_timeout")
        waited.append(
            await core.owner.value(
                "select round(extract(epoch from next_attempt_at - now()) / 60) from scheduler.alerts"
            )
        )
        assert await claimed(worker) is None
        await core.owner.run("update scheduler.alerts set next_attempt_at = now()")
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_what_cannot_be_sent_for_a_day_is_given_up_and_says_so(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=4)
    await core.owner.run("update scheduler.alerts set raised_at = now() - interval '23 hours 59 minutes 30 seconds'")
    alert = await claimed(worker)
    assert alert is not None
    assert alert["last"] is True
    await worker.call("settle_alert", invocation_id=run, error="webhook_http_404")
    await core.owner.run("select scheduler.dispatch()")
    assert await core.owner.value("select given_up_at from scheduler.alerts") is None
    await later(core, 2)
    await core.owner.run("select scheduler.dispatch()")
    ((given_up, error),) = await core.owner.rows("select given_up_at is not null, error from scheduler.alerts")
    assert (given_up, error) == (True, "webhook_http_404")
    assert await claimed(worker) is None


async def test_a_success_that_is_told_late_counts_and_a_failure_does_not_undo_it(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=4)
    await core.owner.run("update scheduler.alerts set given_up_at = now(), error = 'webhook_timeout'")
    await worker.call("settle_alert", invocation_id=run, error=None)
    await worker.call("settle_alert", invocation_id=run, error="webhook_timeout")
    ((sent, given_up, error),) = await core.owner.rows(
        "select sent_at is not null, given_up_at is not null, error from scheduler.alerts"
    )
    assert (sent, given_up, error) == (True, False, None)


async def test_dispatch_asks_for_a_slice_for_an_alert_that_is_left_lying(core: SqlCore, worker: Worker) -> None:
    await make_callable(core)
    run = await end_night(core, worker, failed=4)
    # the slice that ended the night is about to send it
    assert await core.owner.value("select scheduler.dispatch()") == 0
    await later(core, 0.5)
    assert await core.owner.value("select scheduler.dispatch()") == 1
    await core.owner.run("update scheduler.dispatches set ended_at = now()")
    await claimed(worker)
    assert await core.owner.value("select scheduler.dispatch()") == 0
    await later(core, 1.1)
    assert await core.owner.value("select scheduler.dispatch()") == 1
    await core.owner.run("update scheduler.dispatches set ended_at = now()")
    await worker.call("settle_alert", invocation_id=run, error=None)
    await later(core, 600)
    assert await core.owner.value("select scheduler.dispatch()") == 0


async def test_an_engine_that_is_away_keeps_no_alert_back(core: SqlCore, worker: Worker) -> None:
    await make_callable(core)
    await end_night(core, worker, failed=4)
    await later(core, 0.5)
    await core.owner.run("update scheduler.settings set engine_paused_until = now() + interval '5 minutes'")
    assert await core.owner.value("select scheduler.dispatch()") == 1


async def test_a_slice_hears_whether_an_alert_is_due(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    slots = await core.slots()
    assert (await worker.open_slot(*slots))["alert_due"] is False
    await core.owner.run("delete from public.scheduler_invocations")
    await end_night(core, worker, failed=4)
    assert (await worker.open_slot(*slots))["alert_due"] is True
    await claimed(worker)
    assert (await worker.open_slot(*slots))["alert_due"] is False


async def test_an_alert_goes_with_its_invocation(core: SqlCore, worker: Worker) -> None:
    run = await end_night(core, worker, failed=4)
    await core.owner.run(
        "update public.scheduler_invocations set finished_at = now() - interval '1 year' where id = %s", run
    )
    await core.owner.run("call scheduler.prune()")
    assert await raised(core) == []


async def test_each_post_begins_a_trace(core: SqlCore, worker: Worker) -> None:
    await make_callable(core)
    await core.owner.run("update scheduler.settings set next_due_at = now(), max_workers = 2")
    await open_night(core, worker, [pairs([1]), pairs([2])])
    assert await core.owner.value("select scheduler.dispatch()") == 2
    headers = await core.owner.column("select headers ->> 'traceparent' from net.http_request_queue")
    parts = [header.split("-") for header in headers]
    assert [(part[0], len(part[1]), len(part[2]), part[3]) for part in parts] == [("00", 32, 16, "01")] * 2
    assert len({part[1] for part in parts}) == 2


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_strangers_may_neither_take_nor_settle_an_alert(core: SqlCore, role: str) -> None:
    stranger = await core.session()
    await stranger.run(f"set role {role}")
    for statement in (
        "select public.scheduler_claim_alert()",
        "select public.scheduler_settle_alert(gen_random_uuid(), null)",
        "select * from scheduler.alerts",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await stranger.run(statement)
