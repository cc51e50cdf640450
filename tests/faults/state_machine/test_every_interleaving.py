"""Two workers and an operator over one batch of two users: in whatever order they come, I1 to I3 hold (DESIGN.md).

Every sequence of steps is explored on the real SQL functions, in one transaction with savepoints; a state that was reached
before is not explored again. It ends because batches are handed out so many times at most, and because each step that
changes anything leads further from the beginning. So that it cannot come to explore nothing, what it covered is asserted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

import pytest

from tests.emulator.project import ProjectFactory

from . import steps
from .exploration import Exploration
from .world import Step, ViolationError, World, world

SCHEDULED, MANUAL = partial(steps.fire, which=1), partial(steps.open_run)
STEPS: tuple[Step, ...] = (
    *(
        step
        for worker in ("A", "B")
        for step in (
            partial(steps.claim, worker=worker),
            partial(steps.complete, worker=worker),
            partial(steps.complete, worker=worker, rest=1),
            partial(steps.release, worker=worker),
            partial(steps.release, worker=worker, blameless=False),
            partial(steps.split, worker=worker),
            partial(steps.die, worker=worker),
        )
    ),
    partial(steps.reappear, which=0),
    partial(steps.reappear, which=1),
    partial(steps.finish),
    partial(steps.cancel),
    partial(steps.run_out_of_time),
    partial(steps.expire),
    partial(steps.delete),
    partial(steps.prune),
)
FIRED_AGAIN = partial(steps.fire, which=0)


class Mistake(NamedTuple):
    """What a change of the SQL might get wrong, and how the exploration says that it did."""

    function: str
    right: str
    wrong: str
    found: str


MISTAKES = {
    "a batch is recorded twice": Mistake(
        "public.scheduler_complete", "if v_batch.state = 'done' then", "if false then", "duplicate key"
    ),
    "a late result is dropped": Mistake(
        "public.scheduler_complete",
        "v_batch.state = 'done'",
        "v_batch.state <> 'open'",
        "the answer was 'already_done'",
    ),
    "a late result reopens the run": Mistake(
        "public.scheduler_complete", "v_batch.state = 'abandoned' and p_rest", "false and p_rest", "left batches open"
    ),
    "a recorded batch stays queued": Mistake(
        "public.scheduler_complete", "perform pgmq.delete(", "perform concat(", "a message is left"
    ),
    "another worker's batch is released": Mistake(
        "public.scheduler_release", "is distinct from p_read_count", "is null", "is not this one's to release"
    ),
    "another worker's batch is split": Mistake(
        "public.scheduler_split", "is distinct from p_read_count", "is null", "is not its to split"
    ),
    "a split leaves the batch": Mistake(
        "public.scheduler_split", "  delete from public", "  perform from public", "was split, and is still there"
    ),
    "a split leaves the message": Mistake(
        "public.scheduler_split", "perform pgmq.delete(", "perform concat(", "a message is left"
    ),
    "a run ends before its batches": Mistake(
        "public.scheduler_finish", "and state = 'open'", "and state = 'none'", "was ended, or ended again"
    ),
    "a late result moves the end": Mistake(
        "public.scheduler_finish", "v_invocation.status in ('pending', 'running')", "true", "was ended, or ended again"
    ),
    "an ended run leaves its messages": Mistake(
        "scheduler.abandon_batches", "perform pgmq.delete(", "perform concat(", "a message is left"
    ),
    "a run expires before its time": Mistake(
        "scheduler.expire", "and expires_at <= now()", "", "ended before its time"
    ),
    "prune takes an open run": Mistake(
        "scheduler.prune",
        "(i.deleted_at is not null",
        "(i.finished_at is null or i.deleted_at is not null",
        "only_what_has_ended_is_deleted",
    ),
    "a slot is opened again": Mistake(
        "public.scheduler_open_slot", "and p_due_slot > v_settings.slot_high_water_mark", "", "opened a second time"
    ),
}


@pytest.fixture
async def url(projects: ProjectFactory) -> AsyncIterator[str]:
    async with projects.database() as name:
        yield projects.server.url(name)


async def explore(world: World, opening: Step, taken: Sequence[Step], *, claims: int) -> Exploration:
    """Explore what can become of one batch, once the run that `opening` opens has been enumerated."""
    state = await world.begin()
    for step in (opening, partial(steps.enqueue, page=steps.TWO_USERS, done=True)):
        after = await world.take(step, state)
        assert after
        state = after
    exploration = Exploration(world, taken, lambda state: state.ledger.claims <= claims)
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


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
async def test_the_exploration_finds_a_mistake(url: str, mistake: Mistake) -> None:
    async with world(url) as broken:
        await broken.change(mistake.function, mistake.right, mistake.wrong)
        with pytest.raises(ViolationError, match=mistake.found):
            await explore(broken, SCHEDULED, (*STEPS, FIRED_AGAIN), claims=2)
