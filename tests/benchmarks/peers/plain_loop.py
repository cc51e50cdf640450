"""This function's loop without what makes it durable: what that costs is the difference.

The same mentors' pages, the same batches evaluated by the same client, the same Data API client, results sent in the
same form; but no queue, no frozen batches, no visibility time-outs, and rows that are upserted instead of recorded once
and with their batch. A crash loses what was not written, and a second call evaluates everybody again.

Served as the function is and in its environment, with `evaluate_everybody` as the target. Where `MENTORS_AFTER` and
`MENTORS_UP_TO` are set it is given a share of the mentors, those whose ids lie between.
"""

from __future__ import annotations

import asyncio
import math
import os
import uuid
from collections import Counter
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from functions.enumeration import read_ahead
from functions.evaluation_batch import run_evaluation_batch
from functions.main import CONFIG
from functions.peer_mentors import fetch_active_peer_mentors
from functions.work import build_work
from shared.evaluations import EvaluationBatch, GroupedResults, MentorScenarios
from shared.load_control import gather_or_cancel
from shared.observability import start_trace
from shared.time_budget import TimeBudget

MOST_IN_HAND = 64
AFTER = os.environ.get("MENTORS_AFTER") or None
UP_TO = os.environ.get("MENTORS_UP_TO") or "ffffffff-ffff-ffff-ffff-ffffffffffff"


class PlainLoop:
    """One run of everybody."""

    def __init__(self) -> None:
        self._work = build_work(CONFIG)
        self._budget = TimeBudget(CONFIG.time_budget_seconds)
        self._id = str(uuid.uuid4())
        self._scheduled_for = datetime.now(UTC).isoformat(timespec="seconds")
        self._workers = _worker_count()
        self._batches: asyncio.Queue[EvaluationBatch | None] = asyncio.Queue(2 * MOST_IN_HAND)
        self._outcomes: Counter[str] = Counter()
        self._mentors = 0

    async def run(self) -> dict[str, Any]:
        """Reads, evaluates and writes side by side."""
        await gather_or_cancel([self._read(), *(self._evaluate() for _ in range(self._workers))])
        return {"id": self._id, "mentors": self._mentors, "counts": dict(self._outcomes)}

    async def _read(self) -> None:
        number = 0
        async with aclosing(read_ahead(fetch_active_peer_mentors(self._work.slices, after=AFTER))) as pages:
            async for page in pages:
                users = [
                    MentorScenarios(user_id, CONFIG.scenario_types_for(segments))
                    for user_id, segments, *_ in page.mentors
                    if user_id <= UP_TO
                ]
                self._mentors += len(users)
                for start in range(0, len(users), CONFIG.evaluation_batch_size):
                    number += 1
                    await self._batches.put(self._batch(number, users[start : start + CONFIG.evaluation_batch_size]))
                if len(users) < len(page):
                    break
        for _ in range(self._workers):
            await self._batches.put(None)

    def _batch(self, number: int, users: list[MentorScenarios]) -> EvaluationBatch:
        return EvaluationBatch(
            invocation_id=self._id,
            batch_no=number,
            users=tuple(users),
            deliveries=1,
            read_count=1,
            engine_scope=f"manual:{self._id}",
            scheduled_for=self._scheduled_for,
            dry_run=False,
        )

    async def _evaluate(self) -> None:
        while (batch := await self._batches.get()) is not None:
            evaluated = await run_evaluation_batch(
                batch,
                engine=self._work.engine,
                budget=self._budget,
                users_per_call=CONFIG.engine_users_per_call,
                types_per_call=CONFIG.engine_types_per_call,
                max_deliveries=CONFIG.max_batch_deliveries,
            )
            results = GroupedResults(evaluated.results)
            self._outcomes.update(results.outcomes())
            await self._work.slices.call("benchmark_upsert", results=results.notable())


def _worker_count() -> int:
    """Enough batches in hand to fill the engine's concurrency, and half as many again that are about to be written."""
    busy = math.ceil(CONFIG.engine_max_concurrency * CONFIG.engine_users_per_call / CONFIG.evaluation_batch_size)
    return min(MOST_IN_HAND, busy + max(2, busy // 2))


async def evaluate_everybody(request: Request) -> Response:
    """GET: it serves. POST: one run of everybody."""
    if request.method != "POST":
        return JSONResponse({"status": "ok"})
    start_trace(None)
    return JSONResponse(await PlainLoop().run())
