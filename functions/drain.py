"""Works the queue off: claims batches, evaluates them, records them, until nothing is left or the time is up."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections import Counter, deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from functions.evaluation_batch import BatchResult, run_evaluation_batch
from functions.run_log import RunResult, log_run_result
from functions.solitude import Solitude
from shared.config import ScenarioEvaluationConfig
from shared.errors import (
    DatabaseError,
    DatabaseRefusedError,
    EngineError,
    EngineRejectedError,
    EngineUnavailableError,
    OutOfTimeError,
)
from shared.evaluations import EvaluationBatch
from shared.invocations import Invocations
from shared.observability import log_event
from shared.side_by_side import side_by_side
from shared.time_budget import TimeBudget
from shared.trigger_engine import TriggerEngine

if TYPE_CHECKING:
    from shared.telemetry import Telemetry

# Batches that one process has in hand at a time, at most: bounds its memory.
MAX_IN_HAND = 64
# Nothing new is claimed in the last part of the time budget: it would only be given back.
CLOSING_SHARE = 0.2
WORKER = f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True)
class Drained:
    """What a drain did.

    Args:
        batches: how many it recorded.
        outcomes: what their pairs came to.
        progressed: it recorded something, or more was queued for it: the work is not merely waiting for others.
        stopped_by: the engine turned us away or is down, so there was no point in going on.
        engine_paused: it was known before that it is.
    """

    batches: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    progressed: bool = False
    stopped_by: EngineError | None = None
    engine_paused: bool = False


class Drain:
    """One slice's work on the queue.

    Several runners each take a batch at a time, so that while one batch waits for its last calls or for its record the
    next ones keep the engine busy; the engine's own limiter decides how many calls are in flight. No more is claimed
    than there are runners waiting, and than keeps the lanes of calls busy: a batch in hand but not begun would be kept
    from other workers, and begun after a cancel.

    A batch that was delivered too often without a result is a suspect: it may hold a user who kills its workers, and
    every batch that a worker has in hand when it dies is charged a delivery. So a suspect is split until each of its
    users is a suspect of her own, and that one is claimed and evaluated while this process has nothing else in hand.

    Args:
        invocations: where batches are claimed and recorded.
        engine: who evaluates them.
        config: sizes and limits.
        budget: when to stop.
        solitude: the process's own.
        manual_only: leave the nights to others: a person waits for the answer.
        telemetry: measures the batches; None: nobody does.
    """

    def __init__(
        self,
        *,
        invocations: Invocations,
        engine: TriggerEngine,
        config: ScenarioEvaluationConfig,
        budget: TimeBudget,
        solitude: Solitude,
        manual_only: bool = False,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._invocations = invocations
        self._telemetry = telemetry
        self._engine = engine
        self._config = config
        self._budget = budget
        self._solitude = solitude
        self._manual_only = manual_only
        self._claimed: deque[EvaluationBatch] = deque()
        self._claiming = asyncio.Lock()
        # There may be something in the queue that no claim has seen yet.
        self._queued = asyncio.Event()
        self._queued.set()
        self._all_queued = False
        self._exhausted = False
        self._met_suspect = False
        self._waiting = 0
        self._in_hand = 0
        self._let_go = asyncio.Event()
        self._evaluations: set[asyncio.Task[BatchResult]] = set()
        self._database_error: DatabaseError | None = None
        self.done = Drained()

    def note_queued(self) -> None:
        """More batches are in the queue."""
        self.done.progressed = True
        self._queued.set()

    def note_all_queued(self) -> None:
        """This slice will put no more batches in the queue."""
        self._all_queued = True
        self._queued.set()

    async def run(self) -> Drained:
        """Works until the queue is empty and `note_all_queued` was called, the time is up, or the engine stops us.

        Raises:
            DatabaseError: a call to the Data API failed, and nothing was claimed after that. The other batches in hand
                were recorded where that was possible; the rest become visible again.
        """
        await side_by_side(self._work_off() for _ in range(_most_in_hand(self._config)))
        if self._database_error is None or isinstance(self._database_error, DatabaseRefusedError):
            for batch in self._claimed:
                await self._give_back(batch, blameless=True)
        if self._database_error is not None:
            raise self._database_error
        return self.done

    async def _work_off(self) -> None:
        while await self._more_to_do():
            try:
                if self._met_suspect:
                    self._met_suspect = False
                    await self._work_alone()
                else:
                    await self._work_together()
            except OutOfTimeError:
                return  # this process was not free in time
            except DatabaseError as error:
                # The other runners keep what they have in hand: the engine has answered for much of it already.
                self._database_error = self._database_error or error
                self._stop_claiming()

    async def _more_to_do(self) -> bool:
        await self._queued.wait()
        return self._may_claim()

    def _may_claim(self) -> bool:
        return not self._exhausted and self._budget.remaining() > CLOSING_SHARE * self._budget.seconds

    async def _work_together(self) -> None:
        async with self._solitude.together(self._budget):
            batch = await self._next()
            if batch is not None:
                await self._work_on(batch)

    async def _work_alone(self) -> None:
        """Works on suspects, one after another, until something else comes.

        They are claimed only now: who waits to be alone has nothing in hand that could be charged with another's death.
        """
        async with self._solitude.alone(self._budget):
            while self._may_claim() and self._queued.is_set():
                for batch in await self._claim(1):
                    await self._work_on(batch)
                    if not batch.is_suspect:
                        return

    async def _work_on(self, batch: EvaluationBatch) -> None:
        self._in_hand += 1
        try:
            with self._measuring(batch):
                await self._evaluate_and_record(batch)
        finally:
            self._in_hand -= 1
            self._let_go.set()

    def _measuring(self, batch: EvaluationBatch) -> AbstractContextManager[None]:
        return nullcontext() if self._telemetry is None else self._telemetry.batch(batch)

    async def _evaluate_and_record(self, batch: EvaluationBatch) -> None:
        started = self._budget.elapsed()
        evaluated = await self._evaluate(batch, started)
        if evaluated is None:
            return
        duration_ms = round((self._budget.elapsed() - started) * 1000)
        result = RunResult(batch, evaluated.results, duration_ms, WORKER, evaluated.rest)
        if (outcomes := await log_run_result(result, invocations=self._invocations)) is not None:
            self.done.batches += 1
            self.done.outcomes.update(outcomes)
            if self._telemetry is not None:
                self._telemetry.recorded(evaluated.results, duration_ms)
        self.done.progressed = True

    async def _evaluate(self, batch: EvaluationBatch, started: float) -> BatchResult | None:
        """What came of a batch, or None when it was given back. `started`: seconds into the time budget."""
        # A task of its own: when the engine stops us, evaluations are cancelled, and records under way are not.
        evaluation = asyncio.create_task(
            run_evaluation_batch(
                batch,
                engine=self._engine,
                budget=self._budget,
                users_per_call=self._config.engine_users_per_call,
                types_per_call=self._config.engine_types_per_call,
                max_deliveries=self._config.max_batch_deliveries,
            )
        )
        self._evaluations.add(evaluation)
        try:
            return await evaluation
        except OutOfTimeError:
            # A batch that had most of a time budget to itself and got nowhere is not merely late.
            had_a_fair_share = started < self._budget.seconds / 2
            await self._give_back(batch, blameless=not had_a_fair_share)
        except (EngineRejectedError, EngineUnavailableError) as error:
            self._stop_for(error)
            await self._give_back(batch, blameless=True)
        except asyncio.CancelledError:
            if self.done.stopped_by is None:
                raise
            await self._give_back(batch, blameless=True)
        finally:
            self._evaluations.discard(evaluation)
        return None

    def _stop_for(self, error: EngineError) -> None:
        if self.done.stopped_by is not None:
            return
        self.done.stopped_by = error
        self._stop_claiming()
        for evaluation in self._evaluations:
            evaluation.cancel()
        log_event(
            "engine_stopped",
            f"The engine is no use at present ({error.code}); batches are given back, nobody failed",
            level=logging.ERROR,
            error_code=error.code,
            detail=error.message,
        )

    def _stop_claiming(self) -> None:
        self._exhausted = True
        self._queued.set()

    async def _next(self) -> EvaluationBatch | None:
        """A batch for this runner, or None: there is none at present."""
        self._waiting += 1
        try:
            async with self._claiming:
                if not self._claimed and self._may_claim() and self._queued.is_set() and not self._met_suspect:
                    await self._claim_for_company()
                is_stopped = self.done.stopped_by is not None or self._database_error is not None
                return self._claimed.popleft() if self._claimed and not is_stopped else None
        finally:
            self._waiting -= 1

    async def _claim_for_company(self) -> None:
        wanted = await self._until_calls_are_short()
        while (room := _most_in_hand(self._config) - self._in_hand) <= 0:
            self._let_go.clear()
            await self._let_go.wait()
        # What is claimed now would keep whoever waits to be alone; and if it is a suspect, it would only be given back.
        if not self._may_claim() or self._solitude.is_wished_for:
            return
        for batch in await self._claim(min(self._waiting, room, wanted)):
            if batch.is_suspect:
                self._met_suspect = True
                await self._give_back(batch, blameless=True)
            else:
                self._claimed.append(batch)

    async def _until_calls_are_short(self) -> int:
        """Waits until the lanes could do with more calls: the batches that have so many.

        Raises:
            OutOfTimeError: the time budget ended before.
        """
        # Whoever was handed a batch just now puts its calls into the lanes first.
        await asyncio.sleep(0)
        try:
            # The calls may be those of another slice, whose time is up later.
            async with asyncio.timeout(self._budget.remaining()):
                shortage = await self._engine.lanes.until_short()
        except TimeoutError as error:
            raise OutOfTimeError("the time budget ended before there was room for calls") from error
        return math.ceil(shortage / _calls_per_batch(self._config))

    async def _claim(self, quantity: int) -> list[EvaluationBatch]:
        """Claims what is to be evaluated as it is; suspects of several users are split on the way."""
        # Read before the claim: what is queued while it is under way may be too late for it.
        all_queued = self._all_queued
        self._queued.clear()
        claimed = await self._invocations.claim(quantity, manual_only=self._manual_only)
        is_empty = not claimed.batches and not claimed.stale
        self.done.engine_paused = claimed.engine_paused
        if claimed.engine_paused or (all_queued and is_empty):
            self._exhausted = True
        if self._exhausted or not is_empty:
            self._queued.set()
        return [batch for batch in claimed.batches if not await self._is_split(batch)]

    async def _is_split(self, batch: EvaluationBatch) -> bool:
        if not batch.is_suspect or batch.has_one_user:
            return False
        if await self._invocations.split(batch):
            self.note_queued()
            log_event(
                "batch_split",
                f"Batch {batch.batch_no} may kill its workers: each of its users gets a batch of her own",
                level=logging.WARNING,
                invocation_id=batch.invocation_id,
                slot=batch.scheduled_for,
                batch_no=batch.batch_no,
                mentors=len(batch.users),
                deliveries=batch.deliveries,
            )
        return True

    async def _give_back(self, batch: EvaluationBatch, *, blameless: bool) -> None:
        await self._invocations.release(batch, blameless=blameless)
        log_event(
            "batch_given_back",
            f"Batch {batch.batch_no} goes back to the queue",
            invocation_id=batch.invocation_id,
            slot=batch.scheduled_for,
            batch_no=batch.batch_no,
            deliveries=batch.deliveries,
            blameless=blameless,
        )


def _calls_per_batch(config: ScenarioEvaluationConfig) -> int:
    types = len(config.enabled_types())
    calls_per_user = math.ceil(types / min(types, config.engine_types_per_call or types))
    return math.ceil(config.evaluation_batch_size / config.engine_users_per_call) * calls_per_user


def _most_in_hand(config: ScenarioEvaluationConfig) -> int:
    """Enough batches to have all calls in flight, and half as many again that wait for their record."""
    busy = math.ceil(config.engine_max_concurrency / _calls_per_batch(config))
    return min(MAX_IN_HAND, busy + max(2, busy // 2))
