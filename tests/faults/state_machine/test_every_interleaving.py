"""Two workers and an operator over one batch of two users: in every order, the invariants hold (`invariants.py`).

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

from . import steps
from .harness import Harness, State, Step, ViolationError, harness, name_of

SCHEDULED, MANUAL, FIRED_AGAIN = partial(steps.fire, which=1), partial(steps.open_run), partial(steps.fire, which=0)
ENQUEUED = partial(steps.enqueue, page=steps.TWO_USERS, done=True)
BY_WORKERS: tuple[Step, ...] = (
    *(partial(step) for step in (steps.claim, steps.complete, steps.release, steps.split, steps.die)),
    partial(steps.complete, remaining=1),
    partial(steps.release, count_delivery=True),
)
BY_OTHERS = (steps.finish, steps.end, steps.run_out_of_time, steps.expire, steps.delete, steps.prune)
STEPS: tuple[Step, ...] = (
    *(partial(step, worker=worker) for worker in ("A", "B") for step in BY_WORKERS),
    *(partial(step) for step in BY_OTHERS),
    *(partial(steps.reappear, which=number) for number in (0, 1)),
)

# What a change of an SQL function might get wrong, so that it is known to be found: the function, what it says, what it
# would say, and the violation.
MISTAKES = (
    ("public.scheduler_complete", "v_batch.state = 'done'", "false", "duplicate key"),
    ("public.scheduler_release", "is distinct from p_read_count", "is null", "not this one's to release"),
    ("public.scheduler_finish", "and state = 'open'", "and false", "was ended, or ended"),
)


@dataclass
class Exploration:
    """Explores each state once, however many sequences of steps, in any order and within the bounds, lead to it."""

    harness: Harness
    steps: Sequence[Step]
    is_within: Callable[[State], bool]
    # From each state, how many sequences lead to an end, each step of which changes something.
    ways: dict[str, int] = field(default_factory=dict)

    async def explore(self, state: State) -> int:
        """Return how many interleavings there are, or raise ViolationError with the steps that led to it."""
        ways = 0
        async with self.harness.returning_here() as back:
            for step in self.steps:
                after = await self.harness.take(step, state)
                if after is not None:
                    ways += await self._go_on(state, step, after)
                    await back()
        self.ways[state.key] = ways or 1
        return self.ways[state.key]

    async def _go_on(self, before: State, step: Step, after: State) -> int:
        if after.key == before.key or not self.is_within(after):
            return 0
        if after.key in self.ways:
            return self.ways[after.key]
        try:
            return await self.explore(after)
        except ViolationError as violation:
            violation.add_note(f"after {name_of(step)}")
            raise


@pytest.fixture
async def url(projects: ProjectFactory) -> AsyncIterator[str]:
    async with projects.database() as name:
        yield projects.server.url(name)


async def explore(harness: Harness, opening: Step, taken: Sequence[Step], *, claims: int) -> tuple[int, int]:
    """Explore what can become of one batch of the run that `opening` opens: how many interleavings, and states."""
    state = await harness.begin()
    for step in (opening, ENQUEUED):
        after = await harness.take(step, state)
        assert after
        state = after
    exploration = Exploration(harness, taken, lambda state: state.ledger.claims <= claims)
    return await exploration.explore(state), len(exploration.ways)


async def test_every_interleaving_over_a_scheduled_run_keeps_the_invariants(url: str) -> None:
    async with harness(url) as explored:
        interleavings, states = await explore(explored, SCHEDULED, (*STEPS, FIRED_AGAIN), claims=3)
    assert (interleavings > 250_000, states > 1_400) == (True, True), (interleavings, states)


async def test_every_interleaving_over_a_manual_run_keeps_the_invariants(url: str) -> None:
    async with harness(url) as explored:
        interleavings, states = await explore(explored, MANUAL, STEPS, claims=2)
    assert interleavings > 7_000, (interleavings, states)


@pytest.mark.parametrize(("function", "right", "wrong", "found"), MISTAKES)
async def test_the_exploration_finds_a_mistake(url: str, function: str, right: str, wrong: str, found: str) -> None:
    async with harness(url) as broken:
        await broken.change(function, right, wrong)
        with pytest.raises(ViolationError, match=found):
            await explore(broken, SCHEDULED, (*STEPS, FIRED_AGAIN), claims=2)
