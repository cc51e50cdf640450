"""What can be done to the database, as a value: what is drawn for a story, and what a failing story is printed as."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from tests.integration.database.sql_core import Json, Worker

from .ledger import Ledger, key_of
from .picture import BatchKey, Picture, Run

# There was nothing that it could be done to.
NOTHING = object()


@dataclass(frozen=True)
class Scene:
    """What somebody who is about to do something can know."""

    picture: Picture
    ledger: Ledger
    # Slot number 0; the others are a minute apart.
    first_slot: datetime
    # The id that the next run is to have where its caller chooses it.
    new_id: str

    def run(self, index: int, first: Callable[[Run], bool] = lambda run: run.is_open) -> Run | None:
        """The newest is 0; those that do not come first (the open ones do) follow the others."""
        ordered = list(self.picture.runs.values())[::-1]
        ordered.sort(key=lambda run: not first(run))
        return ordered[index % len(ordered)] if ordered else None

    def in_hand(self, index: int) -> Json | None:
        """Who was handed out last is 0; those that are not open any more follow the others."""

        def is_over(batch: Json) -> bool:
            known = self.picture.batch(key_of(batch))
            return known is None or known["state"] != "open"

        ordered = self.ledger.in_hand[::-1]
        ordered.sort(key=is_over)
        return ordered[index % len(ordered)] if ordered else None


@dataclass(frozen=True)
class Step:
    """What was done, by one or by several at once, and what the tables said before and afterwards."""

    before: Picture
    after: Picture
    ledger: Ledger
    done: tuple[Operation, ...]
    # Nobody interfered, not even somebody who died, so the answer and the effect are exactly known.
    is_alone: bool

    @cached_property
    def requeued(self) -> set[BatchKey]:
        """Open batches that have another message than before."""
        return {
            (run.id, number)
            for run in self.after.runs.values()
            for number, batch in run.batches.items()
            if (known := self.before.batch((run.id, number))) and known["msg_id"] != batch["msg_id"]
        }

    def has(self, *kinds: type[Operation]) -> bool:
        return any(isinstance(operation, kinds) for operation in self.done)


@dataclass(frozen=True)
class Operation(ABC):
    """One call. Its fields are small numbers, which pick what it is about from what there is."""

    as_owner: ClassVar[bool] = False
    # A transaction around it would be refused.
    commits_itself: ClassVar[bool] = False
    # Answers are judged in this order: who frees a batch before who takes it.
    rank: ClassVar[int] = 0

    @abstractmethod
    async def ask(self, session: Worker, scene: Scene) -> Any:
        """Do it; the answer, or NOTHING."""

    @abstractmethod
    def judge(self, answer: Any, step: Step) -> None:
        """Hold the answer against what is known, and enter it into the ledger. What is exact is checked when alone."""
