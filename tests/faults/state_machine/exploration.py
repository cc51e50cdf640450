"""Takes every step in every state that can be reached, depth first, each within a savepoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .steps import Step
from .world import State, Violation, World


@dataclass
class Exploration:
    """Explores each state once, however many ways lead to it.

    Args:
        steps: what can happen, in any order.
        is_within: whether a state is within the bounds that make this end.
    """

    world: World
    steps: Sequence[Step]
    is_within: Callable[[State], bool]
    taken: int = 0
    # Of each state that was explored, in how many ways things can go on until nothing more can happen.
    ways: dict[str, int] = field(default_factory=dict)

    async def explore(self, state: State) -> int:
        """Return how many interleavings begin here: sequences of steps, each of which changes something, to the end.

        Raises:
            Violation: with the steps that lead to it.
        """
        here, ways = state.key, 0
        for step in self.steps:
            async with self.world.undone_afterwards():
                after = await self.world.take(step, state)
                if after is None or not self.is_within(after):
                    continue
                self.taken += 1
                if (key := after.key) == here:
                    continue
                try:
                    ways += self.ways[key] if key in self.ways else await self.explore(after)
                except Violation as violation:
                    violation.add_note(f"after {step}")
                    raise
        self.ways[here] = ways or 1
        return self.ways[here]
