"""Evaluates claimed batches and records them, or releases them where the engine or the time budget ends the work."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field

from functions.runs.evaluation_batch import run_evaluation_batch
from functions.runs.result_ledger import BatchResult
from functions.runs.run_log import log_run_result
from functions.runs.services import Services
from shared.deadline import Deadline
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

# Calls that wait for each call in flight while there is more work: a claim takes about as long as some calls to a fast
# engine.
RESERVE = 3


@dataclass(slots=True)
class WorkerStats:
    """Counts of a slice's work on the queues.

    Args:
        batches: how many were recorded; `outcomes` are of their pairs.
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
    """Processes batches side by side; the first fatal error of engine or database stops it for all."""

    def __init__(self, services: Services, deadline: Deadline) -> None:
        self._services = services
        self._deadline = deadline
        self._evaluations: set[asyncio.Timeout] = set()
        # First attempts of batches in hand that have not ended.
        self._calls = 0
        self.in_hand = 0
        self.stats = WorkerStats()
        self.database_error: DatabaseError | None = None
        self.changed = asyncio.Event()
        """Set where another batch may be wanted, or processing stopped."""

    @property
    def is_stopped(self) -> bool:
        """Returns whether no other batch may begin."""
        return self.stats.engine_paused or self.stats.fatal_error is not None or self.database_error is not None

    @property
    def missing_calls(self) -> int:
        """Returns how many more calls would keep the engine busy, with a reserve, or take half of the turns left."""
        most, seconds = (1 + RESERVE) * self._services.engine.limiter.limit, self._deadline.pace.seconds
        if seconds > 0:
            # The others are for retries and canaries. One at least: a worker with nothing in hand would wait in vain.
            most = min(most, math.ceil(self._deadline.remaining() / seconds / 2))
        return most - self._calls

    async def process(self, batch: EvaluationBatch) -> None:
        """Evaluates and records a batch of those in hand; errors of engine and database are kept, not raised."""
        telemetry = self._services.telemetry
        try:
            with nullcontext() if telemetry is None else telemetry.batch(batch):
                await self._evaluate_and_record(batch)
        except DatabaseError as error:
            # The other batches stay in hand: much of them is evaluated already.
            self.stop_for_database(error)
        finally:
            self.in_hand -= 1
            self.changed.set()

    async def accept(self, batches: list[EvaluationBatch]) -> list[EvaluationBatch]:
        """Takes claimed batches in hand; releases them instead where processing stopped during the claim."""
        if not self.is_stopped:
            self.in_hand += len(batches)
            return batches
        if self.database_error is None or isinstance(self.database_error, DatabaseRefusedError):
            for batch in batches:
                await self._release(batch, count_delivery=False)
        return []

    def stop_for_database(self, error: DatabaseError) -> None:
        """Lets no other batch begin; those in hand are recorded where that is possible."""
        self.database_error = self.database_error or error
        self.changed.set()

    async def _evaluate_and_record(self, batch: EvaluationBatch) -> None:
        started = self._deadline.elapsed()
        evaluated = await self._evaluate(batch)
        if evaluated is None:
            return
        if evaluated.fatal_error is not None:
            self._stop_for_engine(evaluated.fatal_error)
        duration_ms = round((self._deadline.elapsed() - started) * 1000)
        outcomes = await log_run_result(evaluated, batch, duration_ms=duration_ms, queue=self._services.queue)
        if outcomes is not None:
            self.stats.batches += 1
            self.stats.outcomes.update(outcomes)
            if self._services.telemetry is not None:
                self._services.telemetry.recorded(evaluated.results, duration_ms)
        self.stats.progressed = True

    async def _evaluate(self, batch: EvaluationBatch) -> BatchResult | None:
        """Returns the results of a batch; None where it was released."""
        begins: list[float] = []
        count_delivery = False
        engine = self._services.engine
        try:
            # A fatal error ends evaluations, not records that are under way, nor calls that must not be repeated.
            async with asyncio.timeout(None) as evaluation:
                if engine.may_repeat(dry_run=batch.dry_run):
                    self._evaluations.add(evaluation)
                try:
                    return await run_evaluation_batch(
                        batch,
                        engine=engine,
                        config=self._services.config,
                        deadline=self._deadline,
                        on_calls=self._count_calls,
                        on_begin=lambda: begins.append(self._deadline.elapsed()),
                        fatal_error=lambda: self.stats.fatal_error,
                    )
                finally:
                    self._evaluations.discard(evaluation)
        except DeadlineExceededError:
            # A batch whose calls had half of a time budget and got no result is not merely late.
            count_delivery = min(begins, default=math.inf) < self._deadline.seconds / 2
        except (EngineAccessError, EngineUnavailableError) as error:
            self._stop_for_engine(error)
        except TimeoutError:
            if self.stats.fatal_error is None:
                raise
        await self._release(batch, count_delivery=count_delivery)
        return None

    def _count_calls(self, change: int) -> None:
        self._calls += change
        if self.missing_calls > 0:
            self.changed.set()

    def _stop_for_engine(self, error: EngineError) -> None:
        if self.stats.fatal_error is not None:
            return
        self.stats.fatal_error = error
        for evaluation in self._evaluations:
            evaluation.reschedule(asyncio.get_running_loop().time())
        detail = error.message
        if error.code.startswith("engine_http_"):  # what an engine says may name a person
            status = error.code.removeprefix("engine_http_")
            detail = f"the engine answered {status}; error_message of the open runs has its words"
        log_event(
            "engine_stopped",
            f"Engine unavailable ({error.code}); batches released",
            level=logging.ERROR,
            error_code=error.code,
            detail=detail,
        )

    async def _release(self, batch: EvaluationBatch, *, count_delivery: bool) -> None:
        await self._services.queue.release(batch, count_delivery=count_delivery)
        log_event(
            "batch_released",
            f"Batch {batch.batch_no} released",
            **batch.log_fields,
            deliveries=batch.deliveries,
            count_delivery=count_delivery,
        )
