"""Works the queues off: claims batches, evaluates them, records them, until nothing is left or the time is up."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from functions.runs.evaluation_batch import BatchResult, run_evaluation_batch
from functions.runs.run_log import RunResult, log_run_result
from shared.concurrency import task_group
from shared.config import ScenarioEvaluationConfig
from shared.deadline import Deadline
from shared.engine_client import EngineClient
from shared.errors import (
    DatabaseError,
    DatabaseRefusedError,
    DeadlineExceededError,
    EngineAccessError,
    EngineError,
    EngineUnavailableError,
)
from shared.evaluations import EvaluationBatch
from shared.logs import log_event
from shared.queue_repository import Poison, QueueRepository

if TYPE_CHECKING:
    from shared.telemetry import Telemetry

# Batches that one slice has in hand at a time, at most: bounds its memory.
MAX_IN_HAND = 64
# For every call in flight, how many should be waiting while there is more work: to claim it takes about as long as some
# calls to a fast engine.
RESERVE = 3
# Nothing new is claimed in the last part of the time budget: it would only be given back.
CLAIM_CUTOFF = 0.2
WORKER = f"{socket.gethostname()}:{os.getpid()}"


class Process:
    """What this process has in hand: requests that are served at the same time die together.

    Any number of them share it, or a poison batch has it alone, so that its death counts against no other batch. A
    poison batch never waits for its turn: it is left in its queue, so nothing else is held up for it either.
    """

    def __init__(self) -> None:
        self._sharing = 0
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def shared(self, deadline: Deadline) -> AsyncIterator[None]:
        """Waits until no poison batch is in hand, and keeps them away until the block ends.

        Raises:
            DeadlineExceededError: the time budget ended before.
        """
        try:
            async with asyncio.timeout(deadline.remaining()), self._alone:
                self._sharing += 1
        except TimeoutError as error:
            raise DeadlineExceededError("the time budget ended before this process was free") from error
        try:
            yield
        finally:
            self._sharing -= 1

    @property
    def is_idle(self) -> bool:
        """Whether a poison batch may be taken."""
        return not self._sharing and not self._alone.locked()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Yields whether the process is idle; if it is, nothing else begins until the block ends."""
        if not self.is_idle:
            yield False
            return
        async with self._alone:
            # A request that waited for the lock may have come first.
            yield not self._sharing


@dataclass(slots=True)
class WorkerStats:
    """What a drain did.

    Args:
        batches: how many it recorded.
        outcomes: what their pairs came to.
        progressed: it recorded something, or more was queued for it: the work is not merely waiting for others.
        fatal_error: the engine turned us away or is down, so there was no point in going on.
        engine_paused: it was known before that it is.
    """

    batches: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    progressed: bool = False
    fatal_error: EngineError | None = None
    engine_paused: bool = False


class BatchWorker:
    """One slice's work on the queues: claim, evaluate, record.

    Each batch is a task, so that while one waits for its last calls or for its record the next ones keep the engine
    busy; the engine's limiter decides how many calls are in flight. No more is claimed than keeps it busy: batches in
    hand but not begun would be kept from other workers, and begun after a cancel.

    A batch that was delivered twice without a result may hold a user who kills its workers, and every batch that a
    worker has in hand when it dies is charged a delivery. So on its third delivery it is split into batches of one user
    in a queue of their own, whose batches are worked on one at a time, in a process that has nothing else in hand.

    Args:
        invocations: where batches are claimed and recorded.
        engine: who evaluates them.
        config: sizes and limits.
        deadline: when to stop.
        process: what this process has in hand.
        manual_only: work on manual runs only, and on no poison batch: a caller waits for the answer.
        poison_overdue: a poison batch has waited for so long that it comes first.
        telemetry: measures the batches; None: nothing does.
    """

    def __init__(
        self,
        *,
        queue: QueueRepository,
        engine: EngineClient,
        config: ScenarioEvaluationConfig,
        deadline: Deadline,
        process: Process,
        manual_only: bool = False,
        poison_overdue: bool = False,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._queue = queue
        self._telemetry = telemetry
        self._engine = engine
        self._config = config
        self._deadline = deadline
        self._process = process
        self._manual_only = manual_only
        self._poison_overdue = poison_overdue
        types = len(config.enabled_types())
        calls_per_user = math.ceil(types / (config.engine_types_per_call or types))
        self._calls_per_batch = math.ceil(config.evaluation_batch_size / config.engine_users_per_call) * calls_per_user
        # There may be something in the queues that no claim has seen yet.
        self._queued = True
        self._all_queued = False
        self._poison_waits = False
        self._stopped = False
        self._in_hand = 0
        # First attempts of batches in hand that have not ended.
        self._calls = 0
        self._changed = asyncio.Event()
        self._evaluations: set[asyncio.Timeout] = set()
        self._database_error: DatabaseError | None = None
        self.done = WorkerStats()

    def on_enqueued(self) -> None:
        """More batches are in the queue."""
        self.done.progressed = True
        self._queued = True
        self._changed.set()

    def on_enumeration_done(self) -> None:
        """This slice will put no more batches in the queue."""
        self._all_queued = self._queued = True
        self._changed.set()

    async def run(self) -> WorkerStats:
        """Works until the queue is empty and `on_enumeration_done` was called, the time is up, or the engine stops us.

        Raises:
            DatabaseError: a call to the Data API failed, and nothing was claimed after that. The other batches in hand
                were recorded where that was possible; the rest become visible again.
        """
        try:
            if self._poison_overdue:
                await self._work_on_poison("first")
            while self._may_claim():
                async with self._process.shared(self._deadline):
                    await self._work_on_batches()
                if self._poison_waits and self._may_begin():
                    await self._work_on_poison("last")
        except DeadlineExceededError:
            pass  # this process was not free in time
        if self._database_error is not None:
            raise self._database_error
        return self.done

    def _may_begin(self) -> bool:
        return not self._stopped and self._deadline.remaining() > CLAIM_CUTOFF * self._deadline.seconds

    def _may_claim(self) -> bool:
        return self._may_begin() and (self._queued or not self._all_queued)

    async def _work_on_batches(self) -> None:
        """Keeps the engine busy until nothing more is to be claimed, and all that was claimed is recorded."""
        async with task_group() as tasks:
            while quantity := await self._capacity():
                for batch in await self._claim(quantity):
                    self._in_hand += 1
                    tasks.create_task(self._work_on(batch))
                # Each new task says how many calls it is about to make.
                await asyncio.sleep(0)

    async def _work_on_poison(self, order: Poison) -> None:
        """Works on poison batches while nothing else is in hand, one after another, until something else comes."""
        async with self._process.alone() as is_idle:
            while is_idle and self._may_begin():
                batches = await self._claim(1, poison=order)
                for batch in batches:
                    self._in_hand += 1
                    await self._work_on(batch)
                if order == "first" or not any(batch.is_poison for batch in batches):
                    return

    async def _capacity(self) -> int:
        """Waits until more batches would keep the engine busy; returns how many, or 0: no more are to be claimed."""
        while self._may_claim():
            limit = self._engine.limiter.limit
            busy = math.ceil(limit / self._calls_per_batch)
            # Half as many again wait for their record.
            room = min(MAX_IN_HAND, busy + max(2, busy // 2)) - self._in_hand
            shortage = math.ceil(((1 + RESERVE) * limit - self._calls) / self._calls_per_batch)
            if self._queued and (quantity := min(room, shortage)) > 0:
                return quantity
            self._changed.clear()
            await self._changed.wait()
        return 0

    def _count_calls(self, change: int) -> None:
        self._calls += change
        if self._calls < (1 + RESERVE) * self._engine.limiter.limit:
            self._changed.set()

    async def _claim(self, quantity: int, *, poison: Poison | None = None) -> list[EvaluationBatch]:
        """Claims what is to be evaluated as it is; what has to be split is split on the way."""
        self._queued = False
        try:
            claimed = await self._queue.claim(quantity, manual_only=self._manual_only, poison=poison)
            self.done.engine_paused = claimed.engine_paused
            self._stopped |= claimed.engine_paused
            self._poison_waits = claimed.poison_waits
            # Else an empty answer is not an empty queue.
            self._queued |= bool(claimed.batches or claimed.stale)
            batches = [batch for batch in claimed.batches if not await self._is_split(batch)]
            if self.done.fatal_error is None and self._database_error is None:
                return batches
            # The slice was stopped while the claim was under way.
            if self._database_error is None or isinstance(self._database_error, DatabaseRefusedError):
                for batch in batches:
                    await self._release(batch, count_delivery=False)
        except DatabaseError as error:
            self._stop_for_database(error)
        return []

    async def _is_split(self, batch: EvaluationBatch) -> bool:
        if not batch.is_to_be_split:
            return False
        if await self._queue.split(batch):
            self.on_enqueued()
            log_event(
                "batch_split",
                f"Batch {batch.batch_no} may kill its workers: each of its users gets a batch in the poison queue",
                level=logging.WARNING,
                **batch.log_fields,
                mentors=len(batch.users),
                deliveries=batch.deliveries,
            )
        return True

    async def _work_on(self, batch: EvaluationBatch) -> None:
        try:
            with nullcontext() if self._telemetry is None else self._telemetry.batch(batch):
                await self._evaluate_and_record(batch)
        except DatabaseError as error:
            # The other batches stay in hand: the engine has answered for much of them already.
            self._stop_for_database(error)
        finally:
            self._in_hand -= 1
            self._changed.set()

    async def _evaluate_and_record(self, batch: EvaluationBatch) -> None:
        started = self._deadline.elapsed()
        evaluated = await self._evaluate(batch, started)
        if evaluated is None:
            return
        duration_ms = round((self._deadline.elapsed() - started) * 1000)
        result = RunResult(batch, evaluated.results, duration_ms, WORKER, evaluated.remaining)
        if (outcomes := await log_run_result(result, queue=self._invocations)) is not None:
            self.done.batches += 1
            self.done.outcomes.update(outcomes)
            if self._telemetry is not None:
                self._telemetry.recorded(evaluated.results, duration_ms)
        self.done.progressed = True

    async def _evaluate(self, batch: EvaluationBatch, started: float) -> BatchResult | None:
        """What came of a batch, or None when it was given back. `started`: seconds into the time budget."""
        try:
            # Only evaluations end when the engine stops us, not records that are under way.
            async with asyncio.timeout(None) as evaluation:
                self._evaluations.add(evaluation)
                try:
                    return await run_evaluation_batch(
                        batch,
                        engine=self._engine,
                        deadline=self._deadline,
                        users_per_call=self._config.engine_users_per_call,
                        types_per_call=self._config.engine_types_per_call,
                        max_deliveries=self._config.max_batch_deliveries,
                        on_calls=self._count_calls,
                    )
                finally:
                    self._evaluations.discard(evaluation)
        except DeadlineExceededError:
            # A batch that had most of a time budget to itself and got nowhere is not merely late.
            had_a_fair_share = started < self._deadline.seconds / 2
            await self._release(batch, count_delivery=had_a_fair_share)
        except (EngineAccessError, EngineUnavailableError) as error:
            self._stop_for_engine(error)
            await self._release(batch, count_delivery=False)
        except TimeoutError:
            if self.done.fatal_error is None:
                raise
            await self._release(batch, count_delivery=False)
        return None

    def _stop_for_engine(self, error: EngineError) -> None:
        if self.done.fatal_error is not None:
            return
        self.done.fatal_error = error
        self._stopped = True
        for evaluation in self._evaluations:
            evaluation.reschedule(asyncio.get_running_loop().time())
        log_event(
            "engine_stopped",
            f"The engine is no use at present ({error.code}); batches are given back, nobody failed",
            level=logging.ERROR,
            error_code=error.code,
            detail=error.message,
        )

    def _stop_for_database(self, error: DatabaseError) -> None:
        self._database_error = self._database_error or error
        self._stopped = True
        self._changed.set()

    async def _release(self, batch: EvaluationBatch, *, count_delivery: bool) -> None:
        await self._queue.release(batch, count_delivery=count_delivery)
        log_event(
            "batch_released",
            f"Batch {batch.batch_no} goes back to the queue",
            **batch.log_fields,
            deliveries=batch.deliveries,
            count_delivery=count_delivery,
        )
