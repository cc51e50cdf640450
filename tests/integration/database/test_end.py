"""scheduler_finish, scheduler_update and scheduler.expire: how runs end, and that their status is true (I2, I5)."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from .requests import ended_run, opened
from .sql_core import SCENARIO, Json, SqlCore, Worker, assert_counts_add_up, pairs

ENDED = ("success", "partial", "failed", "cancelled", "skipped")


async def recorded_run(core: SqlCore, worker: Worker, outcomes: list[str], *, done: bool = True) -> str:
    """A scheduled run whose batches came to these outcomes; the last one is open where that is 'open'."""
    run = await core.open_run(worker, [pairs([number]) for number in range(len(outcomes))], done=done)
    for outcome in outcomes:
        if outcome != "open":
            await worker.complete(await worker.claim_one(), outcome)
    return run


async def ended_as(core: SqlCore, worker: Worker, status: str) -> str:
    run = await core.open_run(worker)
    await core.change(run, f"status = '{status}', finished_at = now(), note = 'old'")
    return run


@pytest.mark.parametrize(
    ("outcomes", "enumerated", "status"),
    [
        (["triggered", "not_triggered", "suppressed"], True, "success"),
        (["not_triggered"], True, "success"),
        (["skipped"], True, "success"),
        (["failed", "triggered"], True, "partial"),
        (["failed", "not_triggered"], True, "partial"),
        (["failed", "suppressed"], True, "partial"),
        (["failed"], True, "failed"),
        (["failed", "skipped"], True, "failed"),
        (["open"], True, "failed"),
        (["open"], False, "failed"),
        (["triggered", "open"], True, "partial"),
        (["not_triggered"], False, "partial"),
        (["skipped", "open"], True, "failed"),
    ],
)
@pytest.mark.parametrize("how", ["finished", "expired"])
async def test_the_status_of_a_run_is_the_truth(
    core: SqlCore, worker: Worker, outcomes: list[str], enumerated: bool, status: str, how: str
) -> None:
    """One of which only the end was missing expires as if it had been finished; all others wait for their time."""
    run = await recorded_run(core, worker, outcomes, done=enumerated)
    is_complete = enumerated and "open" not in outcomes
    if how == "finished":
        await core.change(run, "error_code = 'engine_unavailable'")
        answer = await worker.finish(run)
        assert answer["ended_now"] == is_complete
        if not is_complete:
            return
        assert await worker.finish(run) == answer | {"ended_now": False, "failures": None}
    ended = await core.describe(run) if how == "finished" else await core.expire(run)
    assert (ended["status"], ended["error_code"]) == (status, None if is_complete else "expired")
    assert ended["finished_at"] is not None
    assert_counts_add_up(ended)


@pytest.mark.parametrize(
    ("trigger", "roster", "reasons", "error"),
    [
        ("schedule", "failed", {}, "no_active_mentors"),
        ("schedule", "success", {}, None),
        ("schedule", "failed", {"no_scenario_applies": 3}, None),
        ("schedule", "success", {"user_id_missing": 3}, "no_active_mentors"),
        ("schedule", "failed", {"invalid_segments": 3}, "no_active_mentors"),
        ("manual", "failed", {}, None),
    ],
)
@pytest.mark.parametrize("how", ["finished", "expired"])
async def test_a_run_without_pairs_succeeds_with_mentors_or_by_setting(
    core: SqlCore, worker: Worker, trigger: str, roster: str, reasons: Json, error: str | None, how: str
) -> None:
    run = await core.open_run(worker, trigger=trigger, done=False)
    await core.change(run, f"config = jsonb_build_object('empty_roster', '{roster}')")
    await worker.enqueue(run, [], done=True, skip_reasons=reasons)
    ended = (await worker.finish(run))["invocation"] if how == "finished" else await core.expire(run)
    assert (ended["status"], ended["error_code"]) == ("failed" if error else "success", error)


async def test_rows_that_cannot_be_used_are_no_success(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, done=False)
    await worker.enqueue(run, [pairs([1])], done=True, skip_reasons={"invalid_segments": 1})
    await worker.complete(await worker.claim_one(), "skipped")
    ended = (await worker.finish(run))["invocation"]
    assert (ended["status"], ended["error_code"]) == ("failed", "mentors_view_invalid")


async def test_a_run_waiting_for_the_engine_expires_saying_so(core: SqlCore, worker: Worker) -> None:
    expired, cancelled = [await core.open_manual_run(worker, [pairs([number])]) for number in (1, 2)]
    emptied = await core.open_manual_run(worker)
    await worker.end_slice(engine_error="engine_rejected", engine_message="no connection")
    await worker.finish(emptied)
    await worker.cancel(cancelled)
    await core.expire(expired)
    ended = [await core.describe(run) for run in (expired, cancelled, emptied)]
    rejected = ("engine_rejected", "no connection")
    assert [(one["error_code"], one["error_message"]) for one in ended] == [rejected, rejected, (None, None)]


async def test_every_overdue_run_expires_though_one_cannot(core: SqlCore, worker: Worker) -> None:
    stuck, *others = [await core.open_manual_run(worker, [pairs([1])]) for _ in range(4)]
    for run in (stuck, *others[1:]):
        await core.expire_now(run)
    await core.owner.run(
        "alter table public.scheduler_invocation_batches add constraint never"
        f" check (invocation_id <> '{stuck}' or state <> 'abandoned')"
    )
    await core.owner.run("select scheduler.dispatch()")
    statuses = [(await core.describe(run))["status"] for run in (stuck, *others)]
    assert statuses == ["running", "running", "failed", "failed"]
    await core.install_long_ago()
    assert (await worker.open_slot(*await core.slots()))["opened"]


async def test_an_operator_may_end_a_run_as_failed(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1]), pairs([2])])
    await core.change(run, "error_code = 'engine_rejected', error_message = 'no connection'")
    await worker.complete(await worker.claim_one())
    answer = await worker.update(run, status="failed", error_message="the wrong words")
    ended = await core.describe(run)
    assert answer == {"ended_otherwise": False, "invocation": ended}
    assert [ended[name] for name in ("status", "error_code", "error_message", "scenarios")] == [
        *("failed", "marked_failed", "the wrong words", {SCENARIO: {"triggered": 1, "not_evaluated": 1}})
    ]
    assert await core.queued() == 0
    again = await worker.update(run, status="failed", error_message="other words")
    assert again == {"ended_otherwise": True, "invocation": ended}


async def test_an_end_made_by_sql_is_given_to_one_slice(core: SqlCore, worker: Worker) -> None:
    """Dispatch requests a slice for it, also while the engine is paused."""
    await core.make_callable()
    await ended_run(core, worker)
    expired, cancelled, failed = runs = [await core.open_manual_run(worker, [pairs([1])]) for _ in range(3)]
    await core.expire(expired)
    await worker.cancel(cancelled)
    await worker.update(failed, status="failed", actor="berit")
    await core.change_settings("engine_paused_until = now() + interval '5 minutes'")
    assert await core.owner.value("select scheduler.dispatch()") == 1
    slots = await core.slots()
    answers = await asyncio.gather(*(one.open_slot(*slots) for one in await core.workers(8)))
    ended = sorted((each for answer in answers for each in answer["ended"]), key=lambda each: each["invocation"]["id"])
    who = (None, "admin", "berit")
    assert ended == [
        {"invocation": await core.summarize(run), "failures": [], "ended_by": by}
        for run, by in zip(runs, who, strict=True)
    ]
    await core.owner.run("update scheduler.dispatches set ended_at = now()")
    assert await core.owner.value("select scheduler.dispatch()") == 0


@pytest.mark.parametrize("status", ENDED)
async def test_what_has_ended_takes_a_note_and_no_other_end(core: SqlCore, worker: Worker, status: str) -> None:
    run = await ended_as(core, worker, status)
    await core.expire(run)
    before = await core.describe(run)
    assert (before["status"], before["error_code"]) == (status, None)
    assert not (await worker.finish(run))["ended_now"]
    noted = before | {"note": "new"}
    is_cancelled = status == "cancelled"
    for verdict in ("failed", "cancelled"):
        agrees = is_cancelled and verdict == "cancelled"
        assert await worker.update(run, status=verdict, set_note=True, note="new") == {
            "ended_otherwise": not agrees,
            "invocation": noted if agrees else before,
        }
    assert await worker.update(run, set_note=True, note="new") == {"ended_otherwise": False, "invocation": noted}


async def test_a_note_is_set_and_removed_and_changes_nothing_else(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    before = await core.describe(run)
    for note in ("first", "", None):
        answer = await worker.update(run, set_note=True, note=note)
        assert answer == {"ended_otherwise": False, "invocation": before | {"note": note}}
        assert await worker.update(run, note="not to be set") == answer
    with pytest.raises(psycopg.errors.CheckViolation):
        await worker.update(run, status="cancelled", set_note=True, note="n" * 2001)
    assert await core.describe(run) == before
    pending = await opened(worker, note="old")
    answer = await worker.update(pending, status="cancelled", set_note=True, note="no use")
    assert answer["invocation"]["note"] == "no use"
    assert (await worker.cancel(await opened(worker, note="old")))["note"] == "old"


async def test_unknown_and_deleted_runs_are_neither_ended_nor_changed(core: SqlCore, worker: Worker) -> None:
    run = await ended_as(core, worker, "cancelled")
    assert await worker.delete(run) == "deleted"
    for gone in (run, str(uuid4())):
        assert await worker.update(gone, status="cancelled", set_note=True, note="new") is None
        assert await worker.delete(gone) is None
    assert await core.owner.column("select note from public.scheduler_invocations") == ["old"]
    assert await worker.finish(str(uuid4())) == {"ended_now": False, "invocation": None, "failures": None}


# At the same moment


async def test_the_last_two_batches_recorded_at_once_end_it(core: SqlCore) -> None:
    workers = await core.workers(2)

    async def record_and_finish(worker: Worker, batch: dict[str, Any]) -> bool:
        assert await worker.complete(batch) == "done"
        return bool((await worker.finish(batch["invocation_id"]))["ended_now"])

    for _ in range(30):
        await core.open_manual_run(workers[0], [pairs([1]), pairs([2])])
        batches = [await worker.claim_one() for worker in workers]
        assert sorted(await asyncio.gather(*map(record_and_finish, workers, batches))) == [False, True]


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("finish", "cancel", "success"),
        ("cancel", "finish", "cancelled"),
        ("cancel", "cancel", "cancelled"),
        ("finish", "delete", "success"),
        ("delete", "finish", "success"),
    ],
)
async def test_of_two_ends_the_second_waits_and_the_first_stands(
    core: SqlCore, first: str, second: str, status: str
) -> None:
    one, other = await core.workers(2)
    run = await recorded_run(core, one, ["triggered"])
    _, answer = await core.race(one, getattr(one, first)(run), other, getattr(other, second)(run))
    ended = await core.describe(run)
    assert ended["status"] == status
    if second == "finish":
        assert answer["ended_now"] == (first == "delete")
    else:
        assert answer == (ended if second == "cancel" else "deleted")


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_record_beside_a_cancellation_is_counted(core: SqlCore, is_first: bool) -> None:
    worker, canceller = await core.workers(2)
    run = await core.open_run(worker, [pairs([1]), pairs([2])])
    calls = [(worker, worker.complete(await worker.claim_one())), (canceller, canceller.cancel(run))]
    answers = await core.race(*calls[not is_first], *calls[is_first])
    after = await core.describe(run)
    assert (answers[not is_first], after["status"]) == ("done", "cancelled")
    assert after["scenarios"] == {SCENARIO: {"triggered": 1, "not_evaluated": 1}}
