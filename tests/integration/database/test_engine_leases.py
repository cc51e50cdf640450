"""The ceiling on engine calls, in SQL: what is granted never adds up to more, and what is held is not taken."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from .sql_core import Json, SqlCore, Worker, pairs

CEILING = 10


@dataclass
class Process:
    """What a process of the function knows of its lease. `calls`: how many it may have in flight."""

    worker: Worker
    wants: int = 8
    seconds: float = 60
    ceiling: int = CEILING
    id: str = field(default_factory=lambda: str(uuid4()))
    version: int = 0
    calls: int = 0

    def request(self, *, holds: int | None = None) -> Json:
        return {
            "id": self.id,
            "version": self.version,
            "holds": self.calls if holds is None else holds,
            "wants": self.wants,
            "ceiling": self.ceiling,
            "seconds": self.seconds,
        }

    async def claim(self, quantity: int = 0, *, holds: int | None = None) -> int:
        """Claims and hears the answer."""
        self.hear(await self.worker.claim(quantity, engine_lease=self.request(holds=holds)))
        return self.calls

    def hear(self, answer: Json) -> None:
        self.version, self.calls = answer["engine_lease"]["version"], answer["engine_lease"]["calls"]


async def processes(core: SqlCore, number: int, **settings: Any) -> list[Process]:
    return [Process(worker, **settings) for worker in await core.workers(number)]


async def granted(core: SqlCore) -> dict[str, int]:
    """What counts against the ceiling, by lease."""
    rows = await core.owner.rows(
        "select id::text, granted from scheduler.engine_leases where expires_at > clock_timestamp()"
    )
    return dict(rows)


async def let_it_run_out(core: SqlCore, process: Process) -> None:
    await core.owner.run(
        "update scheduler.engine_leases set expires_at = clock_timestamp() where id = %s::uuid", process.id
    )


# ---- without one


async def test_where_no_ceiling_is_set_a_claim_takes_no_lock_and_writes_no_row(core: SqlCore) -> None:
    (worker,) = await core.workers(1)
    await core.open_run(worker, [pairs([1])])
    async with worker.transaction():
        assert (await worker.claim(1))["engine_lease"] is None
        locked = await core.owner.column("select relation::regclass::text from pg_locks where pid = %s", worker.pid)
        assert not {"scheduler.engine_leases", "scheduler.engine_ceiling"} & {*locked}
    await worker.hand_back(progressed=True)
    assert await core.owner.column("select 1 from scheduler.engine_leases") == []


async def test_a_claim_takes_no_advisory_lock(core: SqlCore) -> None:
    """They have no owner: any database role could hold it, and stop every claim. That of a private row it cannot."""
    (process,) = await processes(core, 1)
    await core.open_run(process.worker, [pairs([1])])
    async with process.worker.transaction():
        await process.claim(1)
        taken = await core.owner.column("select locktype from pg_locks where pid = %s", process.worker.pid)
    assert {*taken} == {"virtualxid", "relation", "transactionid"}


# ---- sharing


async def test_who_comes_first_has_what_he_wants_and_the_next_one_what_is_left(core: SqlCore) -> None:
    first, second, third = await processes(core, 3)
    assert [await one.claim() for one in (first, second, third)] == [8, 2, 0]


async def test_who_may_call_nobody_is_handed_nothing(core: SqlCore) -> None:
    first, second = await processes(core, 2, wants=CEILING)
    await core.open_run(first.worker, [pairs([1]), pairs([2])])
    await first.claim(1)
    claimed = await second.worker.claim(1, engine_lease=second.request())
    assert (claimed["batches"], claimed["stale"], claimed["engine_lease"]["calls"]) == ([], 0, 0)
    assert await core.owner.column("select read_ct from pgmq.q_scenario_evaluation_batches order by msg_id") == [1, 0]
    assert len((await first.worker.claim(1, engine_lease=first.request()))["batches"]) == 1


async def test_while_the_engine_is_paused_a_share_is_granted_and_no_batch(core: SqlCore) -> None:
    """Whoever evaluates by hand has batches of his own, and does not keep the pause."""
    (process,) = await processes(core, 1)
    await core.open_run(process.worker, [pairs([1])])
    await core.owner.run("update scheduler.settings set engine_paused_until = now() + interval '1 minute'")
    claimed = await process.worker.claim(1, engine_lease=process.request())
    assert (claimed["batches"], claimed["engine_lease"]["calls"]) == ([], 8)


async def test_one_who_joins_has_what_is_free_then_the_others_give_up_and_then_she_has_her_share(core: SqlCore) -> None:
    first, second = await processes(core, 2, wants=CEILING)
    assert await first.claim() == 10
    assert await second.claim() == 0
    # He hears that he may have five from now on; he has ten in flight, and nobody else gets those yet.
    assert await first.claim() == 5
    assert await second.claim() == 0
    assert await granted(core) == {first.id: 10, second.id: 0}
    # Seven of them have not come back by his next claim.
    assert await first.claim(holds=7) == 5
    assert await second.claim() == 3
    assert await first.claim() == 5
    assert await second.claim() == 5
    assert await granted(core) == {first.id: 5, second.id: 5}


async def test_everybody_has_one_before_anybody_has_two(core: SqlCore) -> None:
    crowd = await processes(core, CEILING, wants=CEILING)
    for _ in range(3):
        for process in crowd:
            await process.claim()
    assert {process.calls for process in crowd} == {1}


async def test_of_more_processes_than_calls_some_have_none_and_nobody_loses_his_last_one(core: SqlCore) -> None:
    crowd = await processes(core, 5, wants=3, ceiling=3)
    for _ in range(4):
        for process in crowd:
            await process.claim()
    assert [process.calls for process in crowd] == [1, 1, 1, 0, 0]


async def test_what_one_does_not_want_the_others_have(core: SqlCore) -> None:
    modest, greedy = await processes(core, 2)
    modest.wants, greedy.wants = 2, 50
    for _ in range(3):
        await modest.claim()
        await greedy.claim()
    assert (modest.calls, greedy.calls) == (2, 8)


async def test_what_does_not_divide_is_not_left_lying(core: SqlCore) -> None:
    crowd = await processes(core, 3, wants=CEILING)
    for _ in range(4):
        for process in crowd:
            await process.claim()
    assert sorted(process.calls for process in crowd) == [3, 3, 4]


async def test_a_lower_ceiling_is_reached_as_calls_come_back(core: SqlCore) -> None:
    """A new value is rolled out: the processes that have it keep to it as soon as they can."""
    first, second = await processes(core, 2)
    assert (await first.claim(), await second.claim()) == (8, 2)
    first.ceiling = second.ceiling = 4
    for _ in range(4):
        await first.claim()
        await second.claim()
    assert (first.calls, second.calls) == (2, 2)
    assert sum((await granted(core)).values()) == 4


# ---- what was not heard


async def test_nothing_is_taken_from_one_who_did_not_hear_his_last_answer(core: SqlCore) -> None:
    """The answer was lost, and the claim is sent again: it may have been more than he knows of."""
    first, second = await processes(core, 2, wants=CEILING)
    first.wants = 4
    await first.claim()
    first.wants = CEILING
    lost = first.request()
    await first.worker.claim(0, engine_lease=lost)
    await second.claim()
    first.hear(await first.worker.claim(0, engine_lease=lost))
    assert first.calls == 5
    assert (await granted(core))[first.id] == 10
    await first.claim()
    assert (await granted(core))[first.id] == 5


async def test_a_claim_that_arrives_late_takes_nothing_away(core: SqlCore) -> None:
    """It was given up and sent again; meanwhile the process was granted more, and uses it."""
    first, second = await processes(core, 2, wants=CEILING)
    first.wants = 4
    await first.claim()
    late = first.request()
    first.wants = CEILING
    assert await first.claim() == 10
    assert await second.claim() == 0
    await first.worker.claim(0, engine_lease=late)
    assert (await granted(core))[first.id] == 10
    assert await second.claim() == 0


# ---- its end


async def test_what_is_given_back_is_free_at_once(core: SqlCore) -> None:
    first, second = await processes(core, 2)
    await first.claim()
    await first.worker.hand_back(engine_lease_id=first.id)
    assert await second.claim() == 8
    assert await granted(core) == {second.id: 8}


@pytest.mark.parametrize("error", [None, "engine_unavailable"])
async def test_a_hand_back_gives_back_no_lease_but_the_one_it_names(core: SqlCore, error: str | None) -> None:
    first, second = await processes(core, 2)
    await first.claim()
    await second.claim()
    await first.worker.hand_back(engine_error=error)
    await first.worker.hand_back(engine_lease_id=str(uuid4()))
    assert (await granted(core)).keys() == {first.id, second.id}
    await first.worker.hand_back(engine_error=error, engine_lease_id=first.id)
    await first.worker.hand_back(engine_error=error, engine_lease_id=first.id)
    assert (await granted(core)).keys() == {second.id}


async def test_the_lease_of_one_who_was_lost_runs_out_when_his_time_is_up_and_not_before(core: SqlCore) -> None:
    lost, other = await processes(core, 2, wants=CEILING)
    before = await core.now()
    await lost.claim()
    expires_at = await core.owner.value("select expires_at from scheduler.engine_leases")
    assert 60 <= (expires_at - before).total_seconds() <= 61
    assert await other.claim() == 0
    await let_it_run_out(core, lost)
    assert await other.claim() == 10


async def test_a_slice_with_less_time_left_does_not_shorten_the_lease_of_its_process(core: SqlCore) -> None:
    (process,) = await processes(core, 1)
    await process.claim()
    expires_at = await core.owner.value("select expires_at from scheduler.engine_leases")
    process.seconds = 5
    await process.claim()
    assert await core.owner.value("select expires_at from scheduler.engine_leases") == expires_at
    process.seconds = 90
    await process.claim()
    assert await core.owner.value("select expires_at from scheduler.engine_leases") > expires_at


async def test_one_whose_lease_has_run_out_has_no_more_than_is_free(core: SqlCore) -> None:
    """A process that was frozen: its calls are over, and others have its places."""
    frozen, other = await processes(core, 2, wants=7)
    await frozen.claim()
    await let_it_run_out(core, frozen)
    assert await other.claim() == 7
    assert await frozen.claim() == 3


async def test_dispatch_clears_away_what_has_run_out(core: SqlCore) -> None:
    lost, other = await processes(core, 2)
    await lost.claim()
    await other.claim()
    await let_it_run_out(core, lost)
    await core.owner.run("select scheduler.dispatch()")
    assert await core.owner.column("select id::text from scheduler.engine_leases") == [other.id]


# ---- all at once


async def test_simultaneous_claims_never_add_up_to_more_than_the_ceiling(core: SqlCore) -> None:
    """Processes come, go, lose answers, and have calls in flight beyond their share; the order is the server's."""
    auditor = await core.session()
    all_done = asyncio.Event()
    seen: list[int] = []

    async def audit() -> None:
        while not all_done.is_set():
            seen.append(await auditor.value("select coalesce(sum(granted), 0) from scheduler.engine_leases"))

    async def be_busy(worker: Worker, random: Random) -> None:
        process = Process(worker, wants=random.randint(1, 12))
        for _ in range(60):
            step = random.randrange(12)
            if step == 0:
                await worker.hand_back(engine_lease_id=process.id)
                process = Process(worker, wants=random.randint(1, 12))
            elif step == 1:
                # Its answer is lost.
                await worker.claim(0, engine_lease=process.request())
            else:
                # Never more than it was granted, as a process promises.
                await process.claim(holds=random.randint(process.calls, max(process.calls, process.calls + 2)))

    auditing = asyncio.create_task(audit())
    await asyncio.gather(*(be_busy(worker, Random(seed)) for seed, worker in enumerate(await core.workers(8))))
    all_done.set()
    await auditing
    assert max(seen) == CEILING


async def test_a_claim_waits_for_other_claims_and_for_nothing_else(core: SqlCore) -> None:
    """Not for a hand-back that has taken a lease away and waits itself."""
    first, second, third, leaving = await processes(core, 4)
    await core.open_run(first.worker, [pairs([1])])
    await leaving.claim()
    async with core.owner.transaction():
        await core.owner.run("select from public.scheduler_invocations for no key update")
        handing_back = asyncio.create_task(
            leaving.worker.hand_back(engine_error="engine_unavailable", engine_lease_id=leaving.id)
        )
        await core.until_waiting_for_a_lock(leaving.worker)
        async with first.worker.transaction():
            assert await first.claim(1) == 2
            claiming = asyncio.create_task(second.claim())
            await core.until_waiting_for_a_lock(second.worker)
            # Whoever has no ceiling to keep does not wait.
            await third.worker.claim(1)
        assert await claiming == 0
    await handing_back
