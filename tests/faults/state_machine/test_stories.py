"""Longer stories over several runs, drawn and shrunk by hypothesis, of the same steps under the same invariants.

The same stories each time. `STATE_MACHINE_EXAMPLES` asks for another number of them, random ones unless
`STATE_MACHINE_SEED` names where they start.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.emulator.project import ProjectFactory

from . import steps
from .harness import Harness, State, Step, harness
from .invariants import has_readers
from .snapshot import last_success

EXAMPLES = 30
STEPS = 30

WORKER, RUN, HAND, YES_OR_NO = st.sampled_from("AB"), st.integers(0, 3), st.integers(0, 3), st.booleans()
SELDOM, OFTEN = st.sampled_from([False, False, False, True]), st.sampled_from([True, True, True, False])
TYPES = st.sampled_from([("lapsed",), ("milestone",), ("lapsed", "milestone"), ("milestone", "onboarding", "lapsed")])
PAGE = st.lists(st.lists(st.tuples(st.integers(1, 3), TYPES, SELDOM), min_size=1, max_size=2), min_size=1, max_size=3)


def drawn(
    step: Callable[..., Coroutine[Any, Any, None]], **arguments: st.SearchStrategy[Any]
) -> st.SearchStrategy[Step]:
    return st.fixed_dictionaries(arguments).map(lambda chosen: partial(step, **chosen))


CLAIM = drawn(steps.claim, worker=WORKER, quantity=st.integers(1, 4), lasts=OFTEN)
ENQUEUE = drawn(steps.enqueue, run=RUN, page=PAGE, done=SELDOM, stale=SELDOM)
OPEN = drawn(steps.open_run, retry_of=st.integers(-1, 3), repeated=SELDOM) | drawn(steps.fire, which=st.integers(-1, 1))
WORK = st.one_of(
    drawn(steps.complete, worker=WORKER, remaining=st.integers(0, 2), hand=HAND, repeated=SELDOM),
    drawn(steps.release, worker=WORKER, count_delivery=YES_OR_NO, at_once=OFTEN, hand=HAND, repeated=SELDOM),
    drawn(steps.split, worker=WORKER, hand=HAND),
    drawn(steps.die, worker=WORKER),
    drawn(steps.reappear, which=st.none() | st.integers(0, 2)),
    CLAIM,
)
PLATFORM = st.one_of(
    drawn(steps.finish, run=RUN),
    drawn(steps.dispatch, lost=st.integers(0, 2)),
    drawn(steps.run_out_of_time, run=RUN, noticed=YES_OR_NO),
    *map(drawn, (steps.expire, steps.prune)),
)
VERDICT = st.sampled_from(["cancelled", "failed"])
OPERATOR = drawn(steps.end, run=RUN, verdict=VERDICT) | drawn(steps.delete, run=RUN)


class Story(RuleBasedStateMachine):
    """Begins with a scheduled and a manual run, and continues until nothing is open."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        super().__init__()
        self._runner = runner
        self._stack = AsyncExitStack()
        self._world: Harness = runner.run(self._stack.enter_async_context(harness(url)))
        self.state: State = runner.run(self._world.begin())
        self._goes_well = True

    @initialize(page=PAGE)
    def begin(self, page: steps.Page) -> None:
        self.take(partial(steps.fire, which=1), partial(steps.enqueue, page=page))

    @rule(opening=OPEN, page=PAGE)
    def opens(self, opening: Step, page: steps.Page) -> None:
        self.take(opening, partial(steps.enqueue, page=page))

    @rule(step=ENQUEUE)
    def enumerates(self, step: Step) -> None:
        self.take(step)

    @rule(claim=CLAIM, work=st.lists(WORK, max_size=4))
    def works(self, claim: Step, work: list[Step]) -> None:
        self.take(claim, *work)

    @rule(step=PLATFORM)
    def runs_on(self, step: Step) -> None:
        self.take(step)

    @rule(step=OPERATOR)
    def interferes(self, step: Step) -> None:
        self.take(step)

    def take(self, *taken: Step) -> None:
        self._goes_well = False
        for step in taken:
            self.state = self._runner.run(self._world.take(step, self.state)) or self.state
        self._goes_well = True

    def teardown(self) -> None:
        try:
            if self._goes_well:
                self._end()
        finally:
            self._runner.run(self._stack.aclose())

    def _end(self) -> None:
        """Work until nothing is open, and take everything away."""
        for _ in range(100):
            if not (runs := self.state.snapshot.open_runs):
                break
            self.take(partial(steps.reappear, which=None))
            self.take(partial(steps.dispatch))
            self.take(partial(steps.claim, worker="the last", quantity=8))
            for _ in self.state.ledger.held["the last"]:
                self.take(partial(steps.complete, worker="the last"))
            self.take(partial(steps.enqueue, done=True))
            for run in range(len(runs)):
                self.take(partial(steps.finish, run=run))
        assert not self.state.snapshot.open_runs, "there are runs that never end"
        assert not self.state.snapshot.messages
        for run in range(len(self.state.snapshot.runs)):
            self.take(partial(steps.delete, run=run))
        # A retry goes in the first round, what it was a retry of in the next.
        for _ in self.state.snapshot.runs:
            self.take(partial(steps.prune))
        kept = self.state.snapshot
        for run_id in kept.runs.keys() - {last_success(kept.runs.values())}:
            assert has_readers(run_id, kept), f"{run_id} was deleted, and stays"


@pytest.fixture
async def url(projects: ProjectFactory) -> AsyncIterator[str]:
    async with projects.database() as name:
        yield projects.server.url(name)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """hypothesis calls the rules of a machine one after the other, so they bring a loop of their own."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner


def test_random_stories_keep_the_invariants(url: str, runner: asyncio.Runner) -> None:
    examples, start = os.environ.get("STATE_MACHINE_EXAMPLES"), os.environ.get("STATE_MACHINE_SEED")

    class Here(Story):
        def __init__(self) -> None:
            super().__init__(url, runner)

    run_state_machine_as_test(
        seed(int(start))(Here) if start else Here,
        settings=settings(
            max_examples=int(examples or EXAMPLES),
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not examples and not start,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
