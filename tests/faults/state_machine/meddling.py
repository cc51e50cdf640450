"""What others do beside the product: messages put into a queue by hand, and locks held at a bad moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.integration.database.sql_core import Session, Worker

from .clock import Owned
from .operation import Scene, Step
from .picture import NIGHTLY

HELD_ROWS = {
    "run": "select from public.scheduler_invocations where id = %(run)s for no key update",
    "batches": "select from public.scheduler_invocation_batches where invocation_id = %(run)s for update",
    "messages": "select from pgmq.q_{queue} for update",
    "dispatches": "select from scheduler.dispatches for update",
    "settings": "select from scheduler.settings for update",
}


@dataclass(frozen=True)
class Stop:
    """Somebody who holds some rows of run `run`, so that others stop in the middle of what they do."""

    rows: str = "batches"
    run: int = 0

    async def hold(self, session: Session, scene: Scene) -> None:
        if run := scene.run(self.run):
            statement = HELD_ROWS[self.rows].format(queue=run.queue)
            await session.connection.execute(statement.encode(), {"run": run.id})


@dataclass(frozen=True)
class Stray(Owned):
    """A message put in by hand: a copy of a batch's, one that is over "again" (number and all), or "nonsense"."""

    kind: str = "copy"
    batch: int = 0

    async def ask(self, session: Worker, scene: Scene) -> Any:
        batches = [(run, number) for run in scene.picture.runs.values() for number in run.batches]
        open_first = sorted(batches, key=lambda one: one[1] not in one[0].open_batches)
        if self.kind == "nonsense" or not batches:
            message = '{"invocation_id": "somebody", "batch_no": 1}'
            return NIGHTLY, await session.value("select pgmq.send(%s, %s::jsonb)", NIGHTLY, message)
        if self.kind == "copy":
            run, number = open_first[self.batch % len(batches)]
        else:
            run, number = open_first[-1 - self.batch % len(batches)]
        is_open = number in run.open_batches
        message = f'{{"invocation_id": "{run.id}", "batch_no": {number}}}'
        msg_id = run.batches[number]["msg_id"]
        if self.kind == "copy" or is_open or (run.queue, msg_id) in scene.picture.messages:
            return run.queue, await session.value("select pgmq.send(%s, %s::jsonb)", run.queue, message)
        return run.queue, await session.value(
            f"insert into pgmq.q_{run.queue} (msg_id, read_ct, vt, message) overriding system value"
            " values (%s, 0, clock_timestamp(), %s::jsonb) returning msg_id",
            *(msg_id, message),
        )

    def judge(self, answer: Any, step: Step) -> None:
        step.ledger.strays.add(answer)


@dataclass(frozen=True)
class Lose(Owned):
    """Somebody empties the queues, or takes every other message out of them."""

    every: int = 1

    async def ask(self, session: Worker, scene: Scene) -> Any:
        taken = sorted(scene.picture.messages)[:: self.every]
        for queue, msg_id in taken:
            await session.run(f"delete from pgmq.q_{queue} where msg_id = %s", msg_id)
        return taken

    def judge(self, answer: Any, step: Step) -> None:
        step.ledger.lost |= set(answer)
