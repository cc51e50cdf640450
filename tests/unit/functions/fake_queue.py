"""The queue within the process, and a worker on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from functions.runs.batch_worker import BatchWorker
from functions.runs.process_gate import ProcessGate
from shared.evaluations import EvaluationBatch, GroupedResults
from shared.queue_repository import ClaimedBatches, Poison, QueueRepository
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.fake_engine import FakeEngine, make_batch
from tests.unit.functions.fake_sql import make_services


class FakeQueue(QueueRepository):
    """The queue within the process. `before_claim` and `after_claim` happen while a claim is under way."""

    def __init__(self, batches: Sequence[EvaluationBatch] = (), *, at_a_time: int = 100) -> None:
        self.waiting = [batch for batch in batches if not batch.is_poison]
        self.poison = [batch for batch in batches if batch.is_poison]
        self.at_a_time = at_a_time
        self.recorded: list[EvaluationBatch] = []
        self.released: list[tuple[EvaluationBatch, bool]] = []
        self.in_hand: list[EvaluationBatch] = []
        self.split_by_others: list[EvaluationBatch] = []
        self.quantities: list[int] = []
        self.in_hand_at_poison_claims: list[int] = []
        self.before_claim: Callable[[], Awaitable[object]] | None = None
        self.after_claim: Callable[[], None] = lambda: None
        self.before_record: Callable[[], Awaitable[object]] | None = None

    async def claim(self, quantity: int, *, manual_only: bool, poison: Poison | None = None) -> ClaimedBatches:
        if poison is not None:
            self.in_hand_at_poison_claims.append(len(self.in_hand))
        self.quantities.append(quantity)
        if self.before_claim is not None:
            await self.before_claim()
        quantity = min(quantity, self.at_a_time)
        if self.poison and (poison == "first" or (poison == "last" and not self.waiting)):
            taken = [self.poison.pop(0)]
        else:
            taken, self.waiting = self.waiting[:quantity], self.waiting[quantity:]
        poison_waits = bool(not taken and not manual_only and poison is None and self.poison)
        self.in_hand += taken
        self.after_claim()
        return ClaimedBatches(tuple(taken), stale=0, engine_paused=False, poison_waits=poison_waits)

    async def complete(self, batch: EvaluationBatch, results: GroupedResults, **_: object) -> str:
        if self.before_record is not None:
            await self.before_record()
        self._let_go(batch)
        self.recorded.append(batch)
        return "done"

    async def release(self, batch: EvaluationBatch, *, delay_seconds: int = 0, count_delivery: bool) -> None:
        self._let_go(batch)
        self.released.append((batch, count_delivery))
        (self.poison if batch.is_poison else self.waiting).append(batch)

    async def split(self, batch: EvaluationBatch) -> bool:
        self._let_go(batch)
        if any(batch is other for other in self.split_by_others):
            return False
        self.poison += [make_batch([user], deliveries=3, is_poison=True) for user in batch.users]
        return True

    def _let_go(self, batch: EvaluationBatch) -> None:
        self.in_hand = [other for other in self.in_hand if other is not batch]


def make_worker(
    queue: FakeQueue, engine: FakeEngine, *, seconds: float = 1000, gate: ProcessGate | None = None, **kind: bool
) -> BatchWorker:
    """Four calls at a time; `kind` is `manual_only` or `poison_overdue`."""
    services = make_services(FakeDatabase(), engine, EVALUATION_BATCH_SIZE="100")
    client = engine.client(concurrency=4)
    services = replace(services, queue=queue, engine=client, gate=gate or services.gate)
    return BatchWorker(services, engine.deadline(seconds), **kind)
