"""scheduler_open_slot: one slot, one invocation, however often and however simultaneously it is fired (I1)."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from .sql_core import CONFIG, SqlCore, Worker, minutes

MADE = "select scheduler.time_ordered_id(timestamptz '1970-01-01Z' + n * interval '1 ms') from generate_series({}) as n"


@pytest.fixture
async def installed(core: SqlCore) -> SqlCore:
    await core.install_long_ago()
    return core


async def invocations(core: SqlCore) -> list[tuple[object, ...]]:
    return await core.owner.rows(
        "select scheduled_for, status, error_code from public.scheduler_invocations order by 1"
    )


async def test_twenty_simultaneous_calls_open_one_invocation(installed: SqlCore) -> None:
    due, following = await installed.slots()
    answers = await asyncio.gather(*(one.open_slot(due, following) for one in await installed.workers(20)))
    assert sum(answer["opened"] for answer in answers) == 1
    (opened,) = {answer["invocation"]["id"] for answer in answers}
    assert [[row["id"] for row in answer["open"]] for answer in answers] == [[opened]] * 20
    assert await invocations(installed) == [(due, "running", None)]


async def test_the_invocation_names_its_slot_and_scopes_engine_keys(installed: SqlCore, worker: Worker) -> None:
    due, following = await installed.slots()
    answer = await worker.open_slot(due, following, expires_after_hours=3)
    key = f"slot:{due:%Y-%m-%dT%H:%MZ}"
    assert await installed.owner.rows(
        "select idempotency_key, engine_scope, trigger, config, started_at >= invoked_at,"
        " extract(hours from expires_at - started_at)::int, enumeration_done from public.scheduler_invocations"
    ) == [(key, key, "schedule", CONFIG, True, 3, False)]
    assert answer["not_a_slot"] is False
    assert answer["invocation"]["lateness_seconds"] >= 600
    assert await installed.settings("next_due_at, max_workers, time_budget_seconds, retention_days") == (
        *(following, 4, 25, 90),
    )
    await worker.open_slot(due, following, max_workers=7)
    assert await installed.settings("max_workers") == (7,)


@pytest.mark.parametrize("how", ["deleted", "pruned"])
async def test_a_slot_stays_used_after_its_invocation(installed: SqlCore, worker: Worker, how: str) -> None:
    due, following = await installed.slots()
    for slot in (due - minutes(60), due):
        run = (await worker.open_slot(slot, following))["invocation"]["id"]
        await worker.cancel(run)
        await worker.delete(run)
    if how == "pruned":
        await installed.owner.run("call scheduler.prune()")
        assert await invocations(installed) == []
    for requested in (None, due):
        again = await worker.open_slot(due, following, requested)
        assert (again["opened"], again["not_a_slot"], again["invocation"], again["open"]) == (False, False, None, [])
    assert (await worker.open_slot(due, following, due - minutes(60)))["not_a_slot"] is True


async def test_the_first_start_opens_nothing_but_the_next_slot(core: SqlCore) -> None:
    before, (due, following) = await core.now(), await core.slots()
    answers = await asyncio.gather(*(one.open_slot(due, following, due) for one in await core.workers(20)))
    assert {(answer["opened"], answer["invocation"], answer["not_a_slot"]) for answer in answers} == {
        (False, None, False)
    }
    (mark,) = await core.settings("slot_high_water_mark")
    assert before <= mark <= await core.now()
    assert await invocations(core) == []
    await core.change_settings(f"slot_high_water_mark = '{due - minutes(1)}'")
    assert (await (await core.worker()).open_slot(due, following))["opened"]


async def test_a_missed_slot_is_opened_only_within_the_gap(installed: SqlCore, worker: Worker) -> None:
    due, following = await installed.slots()
    stale = due - minutes(12 * 60)
    answer = await worker.open_slot(stale, following, missed_slot_max_gap_hours=12)
    assert (answer["opened"], answer["invocation"], answer["not_a_slot"]) == (False, None, False)
    assert (await worker.open_slot(stale, following, stale, missed_slot_max_gap_hours=12))["not_a_slot"] is True
    assert await installed.settings("next_due_at") == (following,)
    assert (await worker.open_slot(due - minutes(11 * 60), following, missed_slot_max_gap_hours=12))["opened"]


@pytest.mark.parametrize(("due_in", "following_in"), [(5, 65), (-65, -5), (-65, 0)])
async def test_where_clocks_disagree_only_the_clock_is_answered(
    installed: SqlCore, worker: Worker, due_in: int, following_in: int
) -> None:
    before = await installed.settings("*")
    now = (await installed.now()).replace(second=0, microsecond=0)
    assert set(await worker.open_slot(now + minutes(due_in), now + minutes(following_in))) == {"clock"}
    assert await invocations(installed) == []
    assert await installed.settings("*") == before


async def test_a_due_or_opened_slot_may_be_requested_by_name(installed: SqlCore, worker: Worker) -> None:
    due, following = await installed.slots()
    old = await worker.open_slot(due - minutes(60), following, due - minutes(60))
    assert (old["opened"], old["not_a_slot"]) == (True, False)
    await worker.cancel(old["invocation"]["id"])
    await installed.change_settings(f"next_due_at = '{due}'")
    again = await worker.open_slot(due, following, due - minutes(60))
    assert (again["opened"], again["not_a_slot"], again["invocation"]["id"]) == (False, False, old["invocation"]["id"])
    # the slot that was not asked for stays due
    assert await installed.settings("next_due_at") == (due,)
    assert (await worker.open_slot(due, following))["opened"]
    assert await installed.settings("next_due_at") == (following,)


@pytest.mark.parametrize("offset", [-60, -1, 1, 60])
async def test_a_slot_neither_due_nor_opened_is_no_slot(installed: SqlCore, worker: Worker, offset: int) -> None:
    due, following = await installed.slots()
    await worker.open_slot(due, following)
    answer = await worker.open_slot(due, following, due + minutes(offset))
    assert (answer["opened"], answer["not_a_slot"], answer["invocation"]) == (False, True, None)
    assert len(await invocations(installed)) == 1


async def test_an_overlapping_slot_is_recorded_once_as_skipped(installed: SqlCore, worker: Worker) -> None:
    due, following = await installed.slots()
    running = await worker.open_slot(due - minutes(60), following)
    answers = await asyncio.gather(*(one.open_slot(due, following) for one in await installed.workers(20)))
    assert sum(answer["opened"] for answer in answers) == 1
    assert {row["id"] for answer in answers for row in answer["open"]} == {running["invocation"]["id"]}
    assert await invocations(installed) == [(due - minutes(60), "running", None), (due, "skipped", "overlap")]


async def test_a_run_finishing_meanwhile_does_not_block_the_slot(installed: SqlCore, worker: Worker) -> None:
    due, following = await installed.slots()
    old = (await worker.open_slot(due - minutes(60), following))["invocation"]["id"]
    await worker.enqueue(old, [], done=True, skip_reasons={"no_scenario_applies": 1})
    opener = await installed.worker()
    _, answer = await installed.race(worker, worker.finish(old), opener, opener.open_slot(due, following))
    assert answer["invocation"]["status"] == "running"


async def test_ids_of_runs_sort_by_the_millisecond_they_were_made(installed: SqlCore, worker: Worker) -> None:
    """So rows of a run are recorded at the end of every index that begins with its id."""
    made: list[uuid.UUID] = await installed.owner.column(MADE.format("1790000000000, 1790000000999"))
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    assert [one.int >> 80 for one in made] == list(range(1790000000000, 1790000001000))
    assert len({one.int & (1 << 62) - 1 for one in made}) == len(made), "the last 62 bits are random"
    assert await installed.owner.column("select id from unnest(%s::uuid[]) as id order by id", made) == made
    run = (await worker.open_slot(*await installed.slots()))["invocation"]["id"]
    assert uuid.UUID(run).version == 7
