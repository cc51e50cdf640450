"""Two workers and an operator over one batch of two users: in whatever order they come, I1 to I3 hold (DESIGN.md).

Every sequence of steps is explored on the real SQL functions, in one transaction with savepoints; a state that was reached
before is not explored again. It ends because batches are handed out so many times at most, and because each step that
changes anything leads further from the beginning. So that it cannot come to explore nothing, what it covered is asserted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from tests.emulator.project import ProjectFactory

from .exploration import Exploration
from .steps import (
    Cancel,
    Claim,
    Complete,
    Delete,
    Die,
    Enqueue,
    Expire,
    Finish,
    Fire,
    Open,
    Prune,
    Reappear,
    Release,
    RunOutOfTime,
    Split,
    Step,
)
from .world import Breakage, Violation, World, world

BATCH = Enqueue(page=(((2, ("lapsed",), False),),), done=True)
SCHEDULED, MANUAL = Fire(which=1), Open()
STEPS: tuple[Step, ...] = (
    *(
        step
        for worker in ("A", "B")
        for step in (
            Claim(worker),
            Complete(worker),
            Complete(worker, rest=1),
            Release(worker),
            Release(worker, blameless=False),
            Split(worker),
            Die(worker),
        )
    ),
    Reappear(0),
    Reappear(1),
    Finish(),
    Cancel(),
    RunOutOfTime(noticed=True),
    Expire(),
    Delete(),
    Prune(),
)
FIRED_AGAIN = Fire(which=0)

# Each is one mistake that a change of the SQL might make, by what the exploration finds.
BREAKAGES = {
    "a batch is recorded twice": Breakage("public.scheduler_complete", "if v_batch.state = 'done' then", "if false then"),
    "a late result is dropped": Breakage(
        "public.scheduler_complete", "if v_batch.state = 'done' then", "if v_batch.state <> 'open' then"
    ),
    "a recorded batch stays queued": Breakage("public.scheduler_complete", "perform pgmq.delete(", "perform abs(1); --"),
    "what is cut off late stays open": Breakage(
        "public.scheduler_complete", "if v_batch.state = 'abandoned' and p_rest is not null then", "if false then"
    ),
    "a worker releases what another one holds": Breakage(
        "public.scheduler_release", "is distinct from p_read_count then", "is null then"
    ),
    "a worker splits what another one holds": Breakage(
        "public.scheduler_split", "is distinct from p_read_count then", "is null then"
    ),
    "a split leaves the batch": Breakage(
        "public.scheduler_split", "delete from public.scheduler_invocation_batches where", "perform 1 where 1 = 1 or"
    ),
    "a split leaves the message": Breakage("public.scheduler_split", "perform pgmq.delete(", "perform abs(1); --"),
    "a run ends before its batches": Breakage("public.scheduler_finish", "and state = 'open'", "and state = 'none'"),
    "a late result moves the end": Breakage(
        "public.scheduler_finish", "if v_invocation.status in ('pending', 'running')", "if v_invocation.status <> 'skipped'"
    ),
    "an ended run leaves its messages": Breakage("scheduler.abandon_batches", "perform pgmq.delete(", "perform abs(1); --"),
    "a run expires before its time": Breakage("scheduler.expire", "and expires_at <= now()", ""),
    "prune takes an open run": Breakage("scheduler.prune", "i.deleted_at is not null or", "i.finished_at is null or"),
    "a slot is opened again": Breakage(
        "public.scheduler_open_slot", "and p_due_slot > v_settings.slot_high_water_mark", ""
    ),
}


@pytest.fixture
async def url(projects: ProjectFactory) -> AsyncIterator[str]:
    async with projects.database() as name:
        yield projects.server.url(name)


async def explore(world: World, opening: Step, steps: Sequence[Step], *, claims: int) -> Exploration:
    """Explore what can become of one batch, once the run that `opening` opens has been enumerated."""
    state = await world.begin()
    for step in (opening, BATCH):
        after = await world.take(step, state)
        assert after
        state = after
    exploration = Exploration(world, steps, lambda state: state.ledger.claims <= claims)
    await exploration.explore(state)
    return exploration


async def test_every_interleaving_over_a_scheduled_run_keeps_the_invariants(url: str) -> None:
    async with world(url) as explored:
        exploration = await explore(explored, SCHEDULED, (*STEPS, FIRED_AGAIN), claims=3)
    print(exploration)
    assert exploration.interleavings > 250_000
    assert len(exploration.ways) > 1_500


async def test_every_interleaving_over_a_manual_run_keeps_the_invariants(url: str) -> None:
    async with world(url) as explored:
        exploration = await explore(explored, MANUAL, STEPS, claims=2)
    print(exploration)
    assert exploration.interleavings > 7_000


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES)
async def test_the_exploration_finds_a_breakage(url: str, breakage: Breakage) -> None:
    async with world(url, breakage) as broken:
        with pytest.raises(Violation) as caught:
            await explore(broken, SCHEDULED, (*STEPS, FIRED_AGAIN), claims=3)
    print(caught.value, *caught.value.__notes__, sep="\n")
