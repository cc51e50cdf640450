"""Whatever is done to the SQL functions, in any order and by several at once, the invariants hold (DESIGN.md, I1-I5).

The same stories each time. `STATE_MACHINE_EXAMPLES` asks for another number of them, random ones unless
`STATE_MACHINE_SEED` names where they start.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.emulator.project import ProjectFactory
from tests.integration.database.sql_core import SqlCore

from .stories import Moment, Teller
from .world import World

EXAMPLES = 20
STEPS = 30
# Up to here hypothesis draws evenly.
NUMBERS = st.integers(0, 2**24 - 1)


class Story(RuleBasedStateMachine):
    """The first failure is the one that counts: hypothesis tries again, and a race may then come out otherwise."""

    def __init__(self, world: World, runner: asyncio.Runner, failures: list[BaseException]) -> None:
        super().__init__()
        self._world = world
        self._runner = runner
        self._failures = failures
        self._teller: Teller
        self._told: list[Moment] = []

    @initialize(start=NUMBERS)
    def begin(self, start: int) -> None:
        if self._failures:
            raise self._failures[0]
        self._teller = Teller(start)
        has_secrets, is_installed = self._teller.has_secrets, self._teller.is_installed
        self._run(self._world.begin(has_secrets=has_secrets, is_installed=is_installed))
        self._tell(self._teller.beginning())

    @rule(number=NUMBERS)
    def goes_on(self, number: int) -> None:
        self._tell(self._teller.moments(number))

    def teardown(self) -> None:
        if not self._failures:
            self._run(self._world.rest(by_expiry=self._teller.by_expiry))

    def _tell(self, moments: list[Moment]) -> None:
        for moment in moments:
            self._told.append(moment)
            self._run(self._world.step(moment.attempts, moment.stop))

    def _run(self, doing: Coroutine[Any, Any, Any]) -> None:
        try:
            self._runner.run(doing)
        except BaseException as error:
            error.add_note("\n".join(["What was done:", *map(str, self._told)]))
            self._failures.append(error)
            raise


@pytest.fixture
async def database_url(projects: ProjectFactory) -> Any:
    async with projects.database() as name:
        yield projects.server.url(name)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """hypothesis calls the rules of a machine one after the other, so they bring a loop of their own."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner


@pytest.fixture
def world(database_url: str, runner: asyncio.Runner) -> Iterator[World]:
    core = SqlCore(database_url)
    runner.run(core.__aenter__())
    try:
        world = World(core)
        runner.run(world.connect())
        yield world
    finally:
        runner.run(core.__aexit__())


def test_whatever_happens_in_whatever_order_the_invariants_hold(world: World, runner: asyncio.Runner) -> None:
    examples, start = os.environ.get("STATE_MACHINE_EXAMPLES"), os.environ.get("STATE_MACHINE_SEED")
    failures: list[BaseException] = []

    class OfThisWorld(Story):
        def __init__(self) -> None:
            super().__init__(world, runner, failures)

    try:
        run_state_machine_as_test(
            seed(int(start))(OfThisWorld) if start else OfThisWorld,
            settings=settings(
                max_examples=int(examples or EXAMPLES),
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=not examples and not start,
                database=None,
                # what a number means depends on those before it: there is nothing to shrink
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    except BaseException as error:
        raise (failures or [error])[0] from None
