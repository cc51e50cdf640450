"""This function's loop without what makes it durable: what that costs is the difference.

The same mentors' pages, the same batches evaluated by the same client, the same Data API client, results sent in the
same form; but no queue, no frozen batches, no visibility timeouts, and rows that are upserted instead of recorded once
and with their batch. A crash loses what was not written, and a second call evaluates all mentors again.

Served as the function is and in its environment, with `evaluate_all` as the target. Where `MENTORS_AFTER` and
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

from functions.main import CONFIG
from functions.runs.enumeration import prefetch
from functions.runs.evaluation_batch import run_evaluation_batch
from functions.runs.peer_mentors import fetch_active_peer_mentors
from functions.runs.services import build_services
from shared.concurrency import gather_or_cancel
from shared.deadline import Deadline
from shared.evaluations import EvaluationBatch, GroupedResults, MentorScenarios
from shared.logs import start_trace

MOST_IN_HAND = 64
AFTER = os.environ.get("MENTORS_AFTER") or None
UP_TO = os.environ.get("MENTORS_UP_TO") or "ffffffff-ffff-ffff-ffff-ffffffffffff"


async def run() -> dict[str, Any]:
    """Reads, evaluates and writes side by side."""
    services, deadline = build_services(CONFIG), Deadline(CONFIG.time_budget_seconds)
    run_id, scheduled_for = str(uuid.uuid4()), datetime.now(UTC).isoformat(timespec="seconds")
    size = CONFIG.evaluation_batch_size
    # Enough batches in hand to fill the engine's concurrency, and half as many again that are about to be written.
    busy = math.ceil(CONFIG.engine_max_concurrency * CONFIG.engine_users_per_call / size)
    workers = min(MOST_IN_HAND, busy + max(2, busy // 2))
    batches: asyncio.Queue[EvaluationBatch | None] = asyncio.Queue(2 * MOST_IN_HAND)
    outcomes: Counter[str] = Counter()
    mentors = 0

    async def read() -> None:
        nonlocal mentors
        number = 0
        async with aclosing(prefetch(fetch_active_peer_mentors(services.database, after=AFTER))) as pages:
            async for page in pages:
                users = [
                    MentorScenarios(user_id, services.table.scenarios.types_for(segments))
                    for user_id, segments, *_ in page.mentors
                    if user_id <= UP_TO
                ]
                mentors += len(users)
                for start in range(0, len(users), size):
                    number += 1
                    batch = EvaluationBatch(
                        invocation_id=run_id,
                        batch_no=number,
                        users=tuple(users[start : start + size]),
                        deliveries=1,
                        read_count=1,
                        engine_scope=f"manual:{run_id}",
                        scheduled_for=scheduled_for,
                        dry_run=False,
                    )
                    await batches.put(batch)
                if len(users) < len(page):
                    break
        for _ in range(workers):
            await batches.put(None)

    async def evaluate() -> None:
        while (batch := await batches.get()) is not None:
            evaluated = await run_evaluation_batch(batch, engine=services.engine, config=CONFIG, deadline=deadline)
            results = GroupedResults(evaluated.results)
            outcomes.update(results.outcomes())
            await services.database.call("benchmark_upsert", results=results.stored_rows())

    await gather_or_cancel([read(), *(evaluate() for _ in range(workers))])
    return {"id": run_id, "mentors": mentors, "counts": dict(outcomes)}


async def evaluate_all(request: Request) -> Response:
    """GET: it serves. POST: one run of all mentors."""
    if request.method != "POST":
        return JSONResponse({"status": "ok"})
    start_trace(None)
    return JSONResponse(await run())
