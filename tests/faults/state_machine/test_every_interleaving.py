"""Two workers and an operator over one batch of two users: in whatever order they come, I1 to I3 hold (DESIGN.md).

Every sequence of steps is explored on the real SQL functions, in one transaction with savepoints; a state that was
reached before is not explored again. It ends because batches are handed out so many times at most, and because each
step that changes anything leads further from the beginning. That it does not explore nothing is asserted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.emulator.project import ProjectFactory

from .steps import (
    TWO_USERS,
    cancel,
    claim,
    complete,
    delete,
    die,
    enqueue,
    expire,
    finish,
    fire,
    open_run,
    prune,
    reappear,
    release,
    run_out_of_time,
    split,
)
from .world import State, Step, ViolationError, World, name_of, world

SCHEDULED, MANUAL, FIRED_AGAIN = partial(fire, which=1), partial(open_run), partial(fire, which=0)
ENQUEUED = partial(enqueue, page=TWO_USERS, done=True)
COMPLETE = (partial(complete), partial(complete, rest=1))
RELEASE = (partial(release), partial(release, blameless=False))
BY_WORKERS = (partial(claim), *COMPLETE, *RELEASE, partial(split), partial(die))
BY_OTHERS = (
    finish,
    cancel,
    run_out_of_time,
    expire,
    delete,
    prune,
    partial(reappear, which=0),
    partial(reappear, which=1),
)
STEPS: tuple[Step, ...] = (
    *(partial(step, worker=worker) for worker in ("A", "B") for step in BY_WORKERS),
    *(partial(step) for step in BY_OTHERS),
)

# What a change of an SQL function might get wrong: function, what it says, what it would say, how that is found.
MISTAKES = {
    "a batch is recorded twice": "public.scheduler_complete | v_batch.state = 'done' | false | duplicate key",
    "a late result is dropped": "public.scheduler_complete | v_batch.state = 'done' | v_batch.state <> 'open'"
    " | the answer was 'already_done'",
    "a late result reopens a run": "public.scheduler_complete | v_batch.state = 'abandoned' and | false and"
    " | left batches open",
    "a recorded batch stays queued": "public.scheduler_complete | pgmq.delete( | concat( | a message is left",
    "another's batch is released": "public.scheduler_release | is distinct from p_read_count | is null"
    " | not this one's to release",
    "another's batch is split": "public.scheduler_split | is distinct from p_read_count | is null | not its to split",
    "a split leaves the batch": "public.scheduler_split | delete from public | perform from public | is still there",
    "a split leaves the message": "public.scheduler_split | pgmq.delete( | concat( | a message is left",
    "a run ends before its batches": "public.scheduler_finish | and state = 'open' | and false | was ended, or ended",
    "a run ends again": "public.scheduler_finish | v_invocation.status in ('pending', 'running') | true | ended again",
    "an ended run keeps messages": "scheduler.abandon_batches | pgmq.delete( | concat( | a message is left",
    "a run expires before its time": "scheduler.expire | and expires_at <= now() | | ended before its time",
    "prune takes an open run": "scheduler.prune | (i.deleted_at is not null | (i.finished_at is null"
    " or i.deleted_at is not null | only_what_has_ended_is_deleted",
    "a slot is opened again": "public.scheduler_open_slot | and p_due_slot > v_settings.slot_high_water_mark |"
    " | opened a second time",
}


@dataclass
class Exploration:
    """Explores each state once, however many sequences of steps lead to it.

    Args:
        steps: what can happen, in any order.
        is_within: whether a state is within the bounds that make this end.
    """

    world: World
    steps: Sequence[Step]
    is_within: Callable[[State], bool]
    # How many steps were taken, those that changed nothing too.
    taken: int = 0
    # How many sequences, each step of which changes something, lead from the first state to an end.
    interleavings: int = 0
    # The same from each state.
    ways: dict[str, int] = field(default_factory=dict)

    async def explore(self, state: State) -> None:
        """Explore from here on.

        Raises:
            ViolationError: with the steps that led to it as its notes, the last one first.
        """
        self.interleavings = await self._explore(state)

    async def _explore(self, state: State) -> int:
        ways = 0
        async with self.world.returning_here() as back:
            for step in self.steps:
                after = await self.world.take(step, state)
                if after is not None:
                    ways += await self._go_on(state, step, after)
                    await back()
        self.ways[state.key] = ways or 1
        return self.ways[state.key]

    async def _go_on(self, before: State, step: Step, after: State) -> int:
        if not self.is_within(after):
            return 0
        self.taken += 1
        if after.key == before.key:
            return 0
        if after.key in self.ways:
            return self.ways[after.key]
        try:
            return await self._explore(after)
        except ViolationError as violation:
            violation.add_note(f"after {name_of(step)}")
            raise

    def __str__(self) -> str:
        return f"{self.interleavings} interleavings, {len(self.ways)} states, {self.taken} steps"


@pytest.fixture
async def url(projects: ProjectFactory) -> AsyncIterator[str]:
    async with projects.database() as name:
        yield projects.server.url(name)


async def explore(world: World, opening: Step, taken: Sequence[Step], *, claims: int) -> Exploration:
    """Explore what can become of one batch, once the run that `opening` opens has been enumerated."""
    state = await world.begin()
    for step in (opening, ENQUEUED):
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
    assert len(exploration.ways) > 1_400


async def test_every_interleaving_over_a_manual_run_keeps_the_invariants(url: str) -> None:
    async with world(url) as explored:
        exploration = await explore(explored, MANUAL, STEPS, claims=2)
    print(exploration)
    assert exploration.interleavings > 7_000


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
async def test_the_exploration_finds_a_mistake(url: str, mistake: str) -> None:
    function, right, wrong, found = (part.strip() for part in mistake.split("|"))
    async with world(url) as broken:
        await broken.change(function, right, wrong)
        with pytest.raises(ViolationError, match=found):
            await explore(broken, SCHEDULED, (*STEPS, FIRED_AGAIN), claims=2)
