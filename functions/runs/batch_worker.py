"""Claims batches from the queues and passes them to the processor, until nothing is left or the time is up."""

from __future__ import annotations

import asyncio
import logging
import math

from functions.runs.batch_processor import BatchProcessor
from functions.runs.services import Services
from shared.concurrency import task_group
from shared.deadline import Deadline
from shared.errors import DatabaseError, DeadlineExceededError
from shared.evaluations import EvaluationBatch
from shared.logs import log_event
from shared.queue_repository import Poison

# Batches that one slice has in hand at a time, at most: bounds its memory.
MAX_IN_HAND = 64
# No claim in the last part of the time budget: its batches would only be released.
CLAIM_CUTOFF = 0.2


class BatchWorker:
    """One slice's work on the queues: claim, evaluate, record.

    Each batch is a task, so that while one waits for its last calls or for its record the next ones keep the engine
    busy; the engine's limiter decides how many calls are in flight. No more is claimed than keeps the engine busy:
    prefetched batches block other workers, and would begin after a cancel.

    A batch that was delivered twice without a result may hold a user who crashes its workers, and a crash counts as a
    delivery of every batch that the process has in hand. So on its third delivery it is split into batches of one user
    in the poison queue, which are processed one at a time, in a process that has nothing else in hand.

    Args:
        manual_only: process manual runs only, and no poison batch: a caller waits for the answer.
        poison_overdue: a poison batch has waited for so long that it is processed first.
    """

    def __init__(
        self, services: Services, deadline: Deadline, *, manual_only: bool = False, poison_overdue: bool = False
    ) -> None:
        self._services = services
        self._deadline = deadline
        self._manual_only = manual_only
        self._poison_overdue = poison_overdue
        self._processor = BatchProcessor(services, deadline)
        self.stats = self._processor.stats
        config = services.config
        types = len(config.scenario_types)
        calls_per_user = math.ceil(types / (config.engine_types_per_call or types))
        self._calls_per_batch = math.ceil(config.evaluation_batch_size / config.engine_users_per_call) * calls_per_user
        # The queues may hold something that no claim has returned yet.
        self._queued = True
        # Where a call cannot be repeated, a user is begun only if there is time for a whole call.
        may_repeat = services.engine.protocol.idempotency
        self._cutoff_seconds = max(
            CLAIM_CUTOFF * deadline.seconds, 0.0 if may_repeat else config.engine_timeout_seconds
        )
        self._enumeration_done = False
        self._poison_waits = False

    def on_enqueued(self) -> None:
        """Notes that more batches are in the queue."""
        self.stats.progressed = True
        self._queued = True
        self._processor.changed.set()

    def on_enumeration_done(self) -> None:
        """Notes that this slice will enqueue no more batches."""
        self._enumeration_done = self._queued = True
        self._processor.changed.set()

    async def run(self) -> None:
        """Works until the queues are empty and the enumeration is done, the time is up, or the engine stops it.

        Raises:
            DatabaseError: a call to the Data API failed, and nothing was claimed after that. The other batches in hand
                were recorded where that was possible; the others become visible again.
        """
        try:
            if self._poison_overdue:
                await self._process_poison("first")
            while self._may_claim():
                async with self._services.gate.shared(self._deadline):
                    await self._process_batches()
                if self._poison_waits and self._may_begin():
                    await self._process_poison("last")
        except DeadlineExceededError:
            pass  # a poison batch of another slice had this process
        if self._processor.database_error is not None:
            raise self._processor.database_error

    def _may_begin(self) -> bool:
        has_time = self._deadline.remaining() > self._cutoff_seconds and self._deadline.may_call()
        return has_time and not self._processor.is_stopped

    def _may_claim(self) -> bool:
        return self._may_begin() and (self._queued or not self._enumeration_done)

    async def _process_batches(self) -> None:
        """Keeps the engine busy until nothing more is to be claimed, and all that was claimed is recorded."""
        async with task_group() as tasks:
            while quantity := await self._wait_for_capacity():
                for batch in await self._claim(quantity):
                    tasks.create_task(self._processor.process(batch))
                # Each new task reports how many calls it is about to make.
                await asyncio.sleep(0)

    async def _process_poison(self, order: Poison) -> None:
        """Processes poison batches one at a time while nothing else is in hand, until another batch comes."""
        async with self._services.gate.exclusive() as is_idle:
            while is_idle and self._may_begin():
                batches = await self._claim(1, poison=order)
                for batch in batches:
                    await self._processor.process(batch)
                if order == "first" or not any(batch.is_poison for batch in batches):
                    return

    async def _wait_for_capacity(self) -> int:
        """Waits until more batches would keep the engine busy; returns how many, or 0: claim no more."""
        processor = self._processor
        while self._may_claim():
            busy = math.ceil(self._services.engine.limiter.limit / self._calls_per_batch)
            # Half as many again wait for their record.
            room = min(MAX_IN_HAND, busy + max(2, busy // 2)) - processor.in_hand
            shortage = math.ceil(processor.missing_calls / self._calls_per_batch)
            if self._queued and (quantity := min(room, shortage)) > 0:
                return quantity
            processor.changed.clear()
            await processor.changed.wait()
        return 0

    async def _claim(self, quantity: int, *, poison: Poison | None = None) -> list[EvaluationBatch]:
        """Claims batches to be evaluated as they are; splits those that have to be split."""
        self._queued = False
        try:
            claimed = await self._services.queue.claim(quantity, manual_only=self._manual_only, poison=poison)
            self.stats.engine_paused = claimed.engine_paused
            self._poison_waits = claimed.poison_waits
            # Otherwise an empty answer is not an empty queue.
            self._queued |= bool(claimed.batches or claimed.stale)
            return await self._processor.accept([batch for batch in claimed.batches if not await self._is_split(batch)])
        except DatabaseError as error:
            self._processor.stop_for_database(error)
        return []

    async def _is_split(self, batch: EvaluationBatch) -> bool:
        if not batch.is_to_be_split:
            return False
        if await self._services.queue.split(batch):
            self.on_enqueued()
            log_event(
                "batch_split",
                f"Batch {batch.batch_no} may crash its workers; split into the poison queue, one batch per user",
                level=logging.WARNING,
                **batch.log_fields,
                mentors=batch.mentors,
                deliveries=batch.deliveries,
            )
        return True
