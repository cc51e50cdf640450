"""Takes every step in every state that can be reached, depth first, and takes it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .world import State, Step, ViolationError, World, name_of


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
