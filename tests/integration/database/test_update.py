"""scheduler_update: cancels, notes, or both; beside everything that a worker does at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from .asked import all_undone, opened
from .sql_core import Json, SqlCore, Worker, assert_counts_add_up, pairs

ENDED = ("succeeded", "partial", "failed", "cancelled", "skipped")


async def ended_as(core: SqlCore, worker: Worker, status: str) -> str:
    run = await core.open_run(worker)
    await core.owner.run(
        "update public.scheduler_invocations set status = %s, finished_at = now(), note = 'old' where id = %s",
        status,
        run,
    )
    return run


async def test_a_note_is_set_changed_and_taken_away_and_nothing_else_moves(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    before = await core.describe(run)
    for note in ("first", "second", "", None):
        answer = await worker.update(run, set_note=True, note=note)
        assert answer == {"ended_otherwise": False, "invocation": before | {"note": note}}
    assert await core.queued() == 1


@pytest.mark.parametrize("status", ENDED)
async def test_a_run_that_has_ended_can_still_be_given_a_note(core: SqlCore, worker: Worker, status: str) -> None:
    run = await ended_as(core, worker, status)
    before = await core.describe(run)
    assert await worker.update(run, set_note=True, note="new") == {
        "ended_otherwise": False,
        "invocation": before | {"note": "new"},
    }


@pytest.mark.parametrize("status", [status for status in ENDED if status != "cancelled"])
async def test_a_run_that_ended_otherwise_is_not_cancelled_and_its_note_stays(
    core: SqlCore, worker: Worker, status: str
) -> None:
    run = await ended_as(core, worker, status)
    before = await core.describe(run)
    for set_note in (False, True):
        answer = await worker.update(run, cancel=True, set_note=set_note, note="new")
        assert answer == {"ended_otherwise": True, "invocation": before}
        assert await core.describe(run) == before


async def test_what_is_cancelled_already_may_be_cancelled_again_with_a_note(core: SqlCore, worker: Worker) -> None:
    run = await ended_as(core, worker, "cancelled")
    before = await core.describe(run)
    answer = await worker.update(run, cancel=True, set_note=True, note="again")
    assert answer == {"ended_otherwise": False, "invocation": before | {"note": "again"}}


async def test_cancelled_and_noted_in_one_call(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker, note="old")
    answer = await worker.update(run, cancel=True, set_note=True, note="no use")
    assert answer is not None
    assert (answer["invocation"]["status"], answer["invocation"]["note"]) == ("cancelled", "no use")
    other = await opened(worker, note="old")
    answer = await worker.update(other, cancel=True)
    assert answer is not None
    assert answer["invocation"]["note"] == "old"


async def test_a_run_that_had_not_begun_is_cancelled_with_nothing_done(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker)
    cancelled = await worker.cancel(run)
    assert cancelled is not None
    assert (cancelled["status"], cancelled["started_at"], cancelled["counts"]["evaluations"]) == ("cancelled", None, 0)
    assert not await worker.enqueue(run, [pairs([1])])


async def test_asked_for_nothing_it_changes_nothing(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    before = await core.describe(run)
    assert await worker.update(run, note="not to be set") == {"ended_otherwise": False, "invocation": before}


async def test_what_is_deleted_or_unknown_is_not_changed(core: SqlCore, worker: Worker) -> None:
    run = await ended_as(core, worker, "cancelled")
    await worker.delete(run)
    for gone in (run, str(uuid4())):
        assert await worker.update(gone, cancel=True, set_note=True, note="new") is None
    assert await core.owner.column("select note from public.scheduler_invocations") == ["old"]


async def test_a_note_that_is_too_long_undoes_the_cancellation_with_it(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    with pytest.raises(psycopg.errors.CheckViolation):
        await worker.update(run, cancel=True, set_note=True, note="n" * 2001)
    assert (await core.describe(run))["status"] == "running"
    assert await core.queued() == 1


async def cancel_while(core: SqlCore, actor: Worker, run: str, act: Callable[[], Awaitable[Any]]) -> tuple[Any, Json]:
    """The actor acts and has yet to commit; a cancellation comes and waits."""
    canceller = await core.worker()
    async with actor.transaction():
        came_to = await act()
        cancelling = asyncio.create_task(canceller.update(run, cancel=True, set_note=True, note="cancelled"))
        await core.until_waiting_for_a_lock(canceller, or_done=cancelling)
    answer = await cancelling
    assert answer is not None
    return came_to, answer


async def act_while_cancelled(core: SqlCore, actor: Worker, run: str, act: Callable[[], Awaitable[Any]]) -> Any:
    """The cancellation has yet to commit; the actor comes, and waits if he has to."""
    canceller = await core.worker()
    async with canceller.transaction():
        assert await canceller.cancel(run)
        acting = asyncio.create_task(_awaited(act))
        await core.until_waiting_for_a_lock(actor, or_done=acting)
    return await acting


async def _awaited(act: Callable[[], Awaitable[Any]]) -> Any:
    return await act()


async def test_a_page_that_was_first_is_abandoned_with_the_rest(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])], done=False)
    accepted, answer = await cancel_while(core, worker, run, lambda: worker.enqueue(run, [pairs([2])]))
    assert accepted
    assert answer["invocation"]["counts"]["not_evaluated"] == 2
    assert await core.queued() == 0


async def test_a_page_that_comes_second_is_refused(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])], done=False)
    assert not await act_while_cancelled(core, worker, run, lambda: worker.enqueue(run, [pairs([2])]))
    assert await core.queued() == 0
    assert (await core.describe(run))["counts"]["evaluations"] == 1


async def test_an_end_that_was_first_stands(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    finished, answer = await cancel_while(core, worker, run, lambda: worker.finish(run))
    assert finished["ended_now"]
    assert answer["ended_otherwise"]
    assert (answer["invocation"]["status"], answer["invocation"]["note"]) == ("succeeded", None)


async def test_an_end_that_comes_second_leaves_it_cancelled(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    finished = await act_while_cancelled(core, worker, run, lambda: worker.finish(run))
    assert (finished["ended_now"], finished["invocation"]["status"]) == (False, "cancelled")


async def test_a_claim_that_was_first_may_still_record_what_it_took(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1]), pairs([2])])
    claimed, answer = await cancel_while(core, worker, run, lambda: worker.claim(1))
    assert answer["invocation"]["counts"]["not_evaluated"] == 2
    assert await worker.complete(claimed["batches"][0]) == "done"
    after = await core.describe(run)
    assert (after["status"], after["finished_at"]) == ("cancelled", answer["invocation"]["finished_at"])
    assert (after["counts"]["triggered"], after["counts"]["not_evaluated"]) == (1, 1)
    assert_counts_add_up(after)


async def test_a_claim_that_comes_second_gets_nothing(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1]), pairs([2])])
    claimed = await act_while_cancelled(core, worker, run, worker.claim)
    assert claimed == {"batches": [], "stale": 0, "engine_paused_until": None, "poison_waits": False}
    assert (await worker.claim())["batches"] == []
    assert await core.queued() == 0


async def test_a_batch_given_back_while_its_run_is_cancelled_is_not_handed_out_again(
    core: SqlCore, worker: Worker
) -> None:
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    assert not await act_while_cancelled(core, worker, run, lambda: worker.release(batch))
    assert (await worker.claim())["batches"] == []


async def test_beside_workers_that_enqueue_claim_record_and_finish_nothing_is_lost(core: SqlCore) -> None:
    """A deadlock would surface here as an exception: nothing in this test retries."""
    reader, canceller, *workers = await core.workers(5)

    async def read(run: str) -> None:
        for page in range(8):
            if not await reader.enqueue(
                run,
                [pairs([page * 4, page * 4 + 1]), pairs([page * 4 + 2])],
                expected=str(page) if page else None,
                following=str(page + 1),
                done=page == 7,
            ):
                return

    async def work(worker: Worker, run: str) -> None:
        for number in range(8):
            for batch in (await worker.claim(2))["batches"]:
                await (worker.release(batch) if number % 4 == 3 else worker.complete(batch, "failed"))
            await worker.finish(run)

    async def cancel_after(calls: int, run: str) -> None:
        for _ in range(calls):
            await canceller.update(run, set_note=True, note="soon")
        await canceller.cancel(run)

    for turn in range(16):
        run = await core.open_manual_run(reader, done=False)
        await asyncio.gather(read(run), cancel_after(turn, run), *(work(worker, run) for worker in workers))
        ended = await core.describe(run)
        assert ended["status"] in {"cancelled", "failed"}
        assert_counts_add_up(ended)
        undone = await all_undone(reader, run, mentors=1 + turn)
        assert len(undone) == len(set(undone)) == ended["counts"]["evaluations"]
        assert await core.queued() == 0
