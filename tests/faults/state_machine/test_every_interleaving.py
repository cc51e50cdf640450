"""Two workers and an operator over one batch of two users: in whatever order they come, I1 to I3 hold."""

from __future__ import annotations

import time

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
    Prune,
    Reappear,
    Release,
    RunOutOfTime,
    Split,
    Step,
)
from .world import State, World, world

BATCH = Enqueue(page=(((2, ("lapsed",), False),),), done=True)
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
    Fire(),
)
CLAIMS = 3


def is_within(after: State) -> bool:
    return after.ledger.claims <= CLAIMS


async def begin(world: World) -> State:
    state = await world.begin()
    for step in (Fire(which=1), BATCH):
        after = await world.take(step, state)
        assert after
        state = after
    return state


@pytest.fixture
async def url(projects: ProjectFactory):
    async with projects.database() as name:
        yield projects.server.url(name)


async def test_every_interleaving_keeps_the_invariants(url: str) -> None:
    async with world(url) as explored:
        began = time.monotonic()
        exploration = Exploration(explored, STEPS, is_within)
        try:
            ways = await exploration.explore(await begin(explored))
        finally:
            print("states", len(exploration.ways), len(explored._checked), "taken", exploration.taken, time.monotonic() - began)
        print("ways", ways)
