"""scheduler_open_slot: one slot, one invocation, however often and however simultaneously it is fired (I1)."""

from __future__ import annotations

import asyncio

import pytest

from .sql_core import Session, SqlCore, Worker, minutes, pairs


async def settings(core: SqlCore, column: str) -> object:
    return await core.owner.value(f"select {column} from scheduler.settings")


async def invocations(core: SqlCore) -> list[tuple[object, ...]]:
    return await core.owner.rows(
        "select scheduled_for, status, error from public.scheduler_invocations order by scheduled_for"
    )


async def test_twenty_simultaneous_calls_open_one_invocation(core: SqlCore) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    workers = await core.workers(20)
    answers = await asyncio.gather(*(worker.open_slot(due, following) for worker in workers))
    assert sum(answer["opened"] for answer in answers) == 1
    assert {answer["invocation"]["id"] for answer in answers} == {answers[0]["invocation"]["id"]}
    assert await invocations(core) == [(due, "running", None)]
    for answer in answers:
        assert [row["id"] for row in answer["open"]] == [answers[0]["invocation"]["id"]]


async def test_what_it_opens_names_the_slot_and_scopes_the_engine_keys(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    answer = await worker.open_slot(due, following, expires_after_hours=3)
    key = f"slot:{due:%Y-%m-%dT%H:%MZ}"
    row = await core.owner.rows(
        "select idempotency_key, engine_scope, triggered_by, config, started_at >= created_at,"
        " extract(hours from expires_at - started_at)::int, enumeration_done from public.scheduler_invocations"
    )
    assert row == [(key, key, "schedule", {"batch_size": 100}, True, 3, False)]
    assert answer["not_a_slot"] is False
    assert answer["invocation"]["status"] == "running"
    assert answer["invocation"]["lateness_seconds"] >= 600


async def test_a_slot_stays_spent_after_its_row_is_deleted(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    assert (await worker.open_slot(due, following))["opened"]
    await core.owner.run("delete from public.scheduler_invocations")
    again = await worker.open_slot(due, following)
    assert (again["opened"], again["invocation"], again["open"]) == (False, None, [])
    assert await invocations(core) == []


async def test_the_first_start_opens_nothing_and_sets_the_mark(core: SqlCore, worker: Worker) -> None:
    before = await core.now()
    due, following = await core.slots()
    answer = await worker.open_slot(due, following)
    assert (answer["opened"], answer["invocation"], answer["not_a_slot"]) == (False, None, False)
    mark = await settings(core, "slot_high_water_mark")
    assert isinstance(mark, type(before))
    assert before <= mark <= await core.now()
    assert not (await worker.open_slot(due, following))["opened"]
    assert await invocations(core) == []


async def test_twenty_simultaneous_first_starts_open_nothing(core: SqlCore) -> None:
    due, following = await core.slots()
    workers = await core.workers(20)
    answers = await asyncio.gather(*(worker.open_slot(due, following) for worker in workers))
    assert not any(answer["opened"] for answer in answers)
    assert await invocations(core) == []


async def test_the_first_slot_after_the_first_start_is_opened(core: SqlCore, worker: Worker) -> None:
    due, following = await core.slots()
    await worker.open_slot(due, following)
    # a minute passes: the installation is older than the slot that falls due next
    await core.owner.run("update scheduler.settings set slot_high_water_mark = %s", due - minutes(1))
    assert (await worker.open_slot(due, following))["opened"]


async def test_a_missed_slot_is_caught_up_within_the_gap(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    late = due - minutes(11 * 60)
    assert (await worker.open_slot(late, following, missed_slot_max_gap_hours=12))["opened"]


async def test_a_slot_older_than_the_gap_is_not_opened(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    stale = due - minutes(12 * 60)
    answer = await worker.open_slot(stale, following, missed_slot_max_gap_hours=12)
    assert (answer["opened"], answer["invocation"], answer["not_a_slot"]) == (False, None, False)
    assert (await worker.open_slot(stale, following, stale, missed_slot_max_gap_hours=12))["not_a_slot"] is True
    assert await invocations(core) == []
    assert await settings(core, "next_due_at") == following


@pytest.mark.parametrize(("due_in", "following_in"), [(5, 65), (-65, -5), (-65, 0)])
async def test_where_the_clocks_disagree_only_the_clock_is_answered(
    core: SqlCore, worker: Worker, due_in: int, following_in: int
) -> None:
    await core.install_long_ago()
    before = await core.owner.rows("select * from scheduler.settings")
    now = (await core.now()).replace(second=0, microsecond=0)
    answer = await worker.open_slot(now + minutes(due_in), now + minutes(following_in))
    assert set(answer) == {"clock"}
    assert await invocations(core) == []
    assert await core.owner.rows("select * from scheduler.settings") == before


async def test_the_due_slot_may_be_requested_by_name(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    answer = await worker.open_slot(due, following, due)
    assert (answer["opened"], answer["not_a_slot"]) == (True, False)
    again = await worker.open_slot(due, following, due)
    assert (again["opened"], again["not_a_slot"]) == (False, False)
    assert again["invocation"]["id"] == answer["invocation"]["id"]


async def test_a_slot_opened_before_may_be_requested_and_answers_its_own_invocation(
    core: SqlCore, worker: Worker
) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    old = await worker.open_slot(due - minutes(60), following)
    await worker.cancel(old["invocation"]["id"])
    new = await worker.open_slot(due, following)
    assert new["opened"]
    answer = await worker.open_slot(due, following, due - minutes(60))
    assert (answer["opened"], answer["not_a_slot"]) == (False, False)
    assert answer["invocation"]["id"] == old["invocation"]["id"]


@pytest.mark.parametrize("offset", [-60, -1, 1, 60])
async def test_a_slot_neither_due_nor_opened_is_no_slot(core: SqlCore, worker: Worker, offset: int) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    await worker.open_slot(due, following)
    answer = await worker.open_slot(due, following, due + minutes(offset))
    assert (answer["opened"], answer["not_a_slot"], answer["invocation"]) == (False, True, None)
    assert len(await invocations(core)) == 1


async def test_the_latest_slot_is_still_one_after_its_deletion_and_older_ones_are_not(
    core: SqlCore, worker: Worker
) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    first = await worker.open_slot(due - minutes(60), following)
    await worker.cancel(first["invocation"]["id"])
    await worker.open_slot(due, following)
    await core.owner.run("delete from public.scheduler_invocations")
    latest = await worker.open_slot(due, following, due)
    assert (latest["opened"], latest["not_a_slot"], latest["invocation"]) == (False, False, None)
    assert (await worker.open_slot(due, following, due - minutes(60)))["not_a_slot"] is True
    assert await invocations(core) == []


async def test_the_due_slot_is_a_slot_at_the_first_start_too(core: SqlCore, worker: Worker) -> None:
    due, following = await core.slots()
    answer = await worker.open_slot(due, following, due)
    assert (answer["opened"], answer["not_a_slot"]) == (False, False)


async def test_a_due_slot_stays_due_when_another_was_asked_for(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    old = await worker.open_slot(due - minutes(60), following)
    await worker.cancel(old["invocation"]["id"])
    await core.owner.run("update scheduler.settings set next_due_at = %s", due)
    answer = await worker.open_slot(due, following, due - minutes(60))
    assert not answer["opened"]
    assert await settings(core, "next_due_at") == due
    assert (await worker.open_slot(due, following))["opened"]
    assert await settings(core, "next_due_at") == following


async def test_what_the_function_is_set_to_is_written_where_sql_reads_it(core: SqlCore, worker: Worker) -> None:
    due, following = await core.slots()
    for max_workers in (3, 7):
        await worker.open_slot(due, following, max_workers=max_workers)
        assert await core.owner.rows(
            "select next_due_at, max_workers, time_budget_seconds, retention_days from scheduler.settings"
        ) == [(following, max_workers, 25, 90)]


async def test_an_overlapping_slot_is_recorded_as_skipped(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    running = await worker.open_slot(due - minutes(60), following)
    answer = await worker.open_slot(due, following)
    assert answer["opened"]
    assert (answer["invocation"]["status"], answer["invocation"]["error"]) == ("skipped", "overlap")
    assert [row["id"] for row in answer["open"]] == [running["invocation"]["id"]]
    assert not (await worker.open_slot(due, following))["opened"]
    assert await invocations(core) == [(due - minutes(60), "running", None), (due, "skipped", "overlap")]


async def test_twenty_simultaneous_overlapping_calls_record_one_skip(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    await worker.open_slot(due - minutes(60), following)
    workers = await core.workers(20)
    answers = await asyncio.gather(*(one.open_slot(due, following) for one in workers))
    assert sum(answer["opened"] for answer in answers) == 1
    assert await invocations(core) == [(due - minutes(60), "running", None), (due, "skipped", "overlap")]


async def test_two_slots_racing_leave_one_of_them_open(core: SqlCore) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    workers = await core.workers(20)
    await asyncio.gather(
        *(
            worker.open_slot(due if number % 2 else due - minutes(60), following)
            for number, worker in enumerate(workers)
        )
    )
    rows = await core.owner.rows("select scheduled_for, status from public.scheduler_invocations order by 1")
    # the older one comes first and the newer one overlaps, or the newer one comes first and the older is spent
    assert rows in ([(due - minutes(60), "running"), (due, "skipped")], [(due, "running")])


async def test_manual_runs_neither_block_nor_are_blocked(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    manual = await core.open_manual_run(worker)
    answer = await worker.open_slot(due, following)
    assert answer["invocation"]["status"] == "running"
    assert {row["id"] for row in answer["open"]} == {manual, answer["invocation"]["id"]}


async def test_an_expired_run_is_ended_first_and_does_not_block_the_next_slot(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    old = (await worker.open_slot(due - minutes(60), following))["invocation"]["id"]
    await worker.enqueue(old, [pairs([1, 2])], following=None, done=True)
    await core.expire_now(old)
    answer = await worker.open_slot(due, following)
    assert (answer["opened"], answer["invocation"]["status"]) == (True, "running")
    ended = await core.describe(old)
    assert (ended["status"], ended["error"], ended["counts"]["not_evaluated"]) == ("failed", "expired", 2)


async def test_a_run_that_finishes_at_that_moment_does_not_block_the_next_slot(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    old = (await worker.open_slot(due - minutes(60), following))["invocation"]["id"]
    await worker.enqueue(old, [], skipped=1, done=True)
    opener = await core.worker()
    async with worker.transaction():
        assert (await worker.finish(old))["ended_now"]
        opening = asyncio.create_task(opener.open_slot(due, following))
        await core.until_waiting_for_a_lock(opener)
    assert (await opening)["invocation"]["status"] == "running"


async def test_the_usual_call_takes_no_lock_on_the_settings(core: SqlCore, worker: Worker) -> None:
    """Fifty workers that only look must not queue behind each other."""
    await core.install_long_ago()
    due, following = await core.slots()
    await worker.open_slot(due, following)
    other: Session = await core.session()
    async with other.transaction():
        await other.run("select from scheduler.settings for update")
        assert not (await worker.open_slot(due, following))["opened"]
