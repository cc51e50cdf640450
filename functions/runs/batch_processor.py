"""Evaluates claimed batches and records them, or releases them where the engine or the time budget ends the work."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from functions.runs.evaluation_batch import run_evaluation_batch
from functions.runs.result_ledger import BatchResult
from functions.runs.run_log import RunResult, log_run_result
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
from shared.queue_repository import QueueRepository

if TYPE_CHECKING:
    from shared.telemetry import Telemetry

WORKER = f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True)
class WorkerStats:
    """Counts of a slice's work on the queues.

    Args:
        batches: how many were recorded.
        outcomes: of their pairs.
        progressed: something was recorded, or more was queued: the work is not merely waiting for others.
        fatal_error: the engine refused access or is down, which ended the work.
        engine_paused: the circuit breaker was open already.
    """

    batches: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    progressed: bool = False
    fatal_error: EngineError | None = None
    engine_paused: bool = False


class BatchProcessor:
    """Processes batches side by side; the first fatal error of engine or database stops it for all.

    Args:
        queue: where batches are recorded.
        engine: evaluates them.
        config: sizes and limits.
        deadline: when to stop.
        on_calls: called with the number of first attempts to come, and with -1 for each that has ended.
        on_change: called when a batch has left the process, and when processing stops.
        telemetry: measures the batches; None: no telemetry.
    """

    def __init__(
        self,
        *,
        queue: QueueRepository,
        engine: EngineClient,
        config: ScenarioEvaluationConfig,
        deadline: Deadline,
        on_calls: Callable[[int], None],
        on_change: Callable[[], None],
        telemetry: Telemetry | None,
    ) -> None:
        self._queue = queue
        self._engine = engine
        self._config = config
        self._deadline = deadline
        self._on_calls = on_calls
        self._on_change = on_change
        self._telemetry = telemetry
        self._evaluations: set[asyncio.Timeout] = set()
        self.stats = WorkerStats()
        self.is_stopped = False
        self.in_hand = 0
        self.database_error: DatabaseError | None = None

    async def process(self, batch: EvaluationBatch) -> None:
        """Evaluates and records a batch of those in hand; errors of engine and database are kept, not raised."""
        try:
            with nullcontext() if self._telemetry is None else self._telemetry.batch(batch):
                await self._evaluate_and_record(batch)
        except DatabaseError as error:
            # The other batches stay in hand: much of them is evaluated already.
            self.stop_for_database(error)
        finally:
            self.in_hand -= 1
            self._on_change()

    async def accept(self, batches: list[EvaluationBatch]) -> list[EvaluationBatch]:
        """Takes claimed batches in hand; releases them instead where processing stopped during the claim."""
        if self.stats.fatal_error is None and self.database_error is None:
            self.in_hand += len(batches)
            return batches
        if self.database_error is None or isinstance(self.database_error, DatabaseRefusedError):
            for batch in batches:
                await self._release(batch, count_delivery=False)
        return []

    def stop_for_database(self, error: DatabaseError) -> None:
        """Lets no other batch begin; those in hand are recorded where that is possible."""
        self.database_error = self.database_error or error
        self.is_stopped = True
        self._on_change()

    async def _evaluate_and_record(self, batch: EvaluationBatch) -> None:
        started = self._deadline.elapsed()
        evaluated = await self._evaluate(batch)
        if evaluated is None:
            return
        duration_ms = round((self._deadline.elapsed() - started) * 1000)
        result = RunResult(batch, evaluated.results, duration_ms, WORKER, evaluated.remaining)
        if (outcomes := await log_run_result(result, queue=self._queue)) is not None:
            self.stats.batches += 1
            self.stats.outcomes.update(outcomes)
            if self._telemetry is not None:
                self._telemetry.recorded(evaluated.results, duration_ms)
        self.stats.progressed = True

    async def _evaluate(self, batch: EvaluationBatch) -> BatchResult | None:
        """Returns the results of a batch; None where it was released."""
        began: float | None = None

        def begin() -> None:
            nonlocal began
            began = self._deadline.elapsed() if began is None else began

        try:
            # A fatal error ends evaluations, not records that are under way.
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
                        on_calls=self._on_calls,
                        on_begin=begin,
                    )
                finally:
                    self._evaluations.discard(evaluation)
        except DeadlineExceededError:
            # A batch whose calls had half of a time budget and got no result is not merely late.
            await self._release(batch, count_delivery=began is not None and began < self._deadline.seconds / 2)
        except (EngineAccessError, EngineUnavailableError) as error:
            self._stop_for_engine(error)
            await self._release(batch, count_delivery=False)
        except TimeoutError:
            if self.stats.fatal_error is None:
                raise
            await self._release(batch, count_delivery=False)
        return None

    def _stop_for_engine(self, error: EngineError) -> None:
        if self.stats.fatal_error is not None:
            return
        self.stats.fatal_error = error
        self.is_stopped = True
        for evaluation in self._evaluations:
            evaluation.reschedule(asyncio.get_running_loop().time())
        log_event(
            "engine_stopped",
            f"Engine unavailable ({error.code}); batches released",
            level=logging.ERROR,
            error_code=error.code,
            detail=error.message,
        )

    async def _release(self, batch: EvaluationBatch, *, count_delivery: bool) -> None:
        await self._queue.release(batch, count_delivery=count_delivery)
        log_event(
            "batch_released",
            f"Batch {batch.batch_no} released",
            **batch.log_fields,
            deliveries=batch.deliveries,
            count_delivery=count_delivery,
        )
