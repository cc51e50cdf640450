"""What one call to the engine costs the calling process, by transport."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from shared.evaluations import MentorScenarios
from shared.http_transport import HttpTransport
from shared.load_control import ConcurrencyLimiter
from shared.time_budget import TimeBudget
from shared.trigger_engine import EvaluationContext, TriggerEngine
from tests.unit.through_httpx import ThroughHttpx

IN_FLIGHT = 64


@dataclass(frozen=True)
class ClientFigures:
    """Of one run."""

    cpu_microseconds_per_call: float
    calls_per_second: float


def stock_transport() -> httpx.AsyncBaseTransport:
    """httpx's own pool, told to keep as many connections as are in flight."""
    return httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT))


CONTENDERS: dict[str, Callable[[], httpx.AsyncBaseTransport]] = {
    "this function's transport": HttpTransport,
    "httpx's own pool": stock_transport,
}


async def measure_client(url: str, transport: httpx.AsyncBaseTransport, calls: int) -> ClientFigures:
    """Makes `calls` calls of one user and one type each, `IN_FLIGHT` at a time, through the function's own client."""
    engine = TriggerEngine(
        url,
        "token",
        transport=ThroughHttpx(transport),
        limiter=ConcurrencyLimiter(IN_FLIGHT),
        timeout_seconds=30,
        max_attempts=1,
    )
    context = EvaluationContext(str(uuid.uuid4()), "2026-01-01T02:00:00+00:00", f"bench:{uuid.uuid4()}", dry_run=False)
    users = iter([MentorScenarios(str(uuid.uuid4()), ("inactivity_30_days",)) for _ in range(calls)])
    budget = TimeBudget(600)

    async def pull() -> None:
        for user in users:
            answer = await engine.evaluate(context, [user], budget)
            assert len(answer) == 1

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(pull() for _ in range(IN_FLIGHT)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await transport.aclose()
    return ClientFigures(cpu / calls * 1e6, calls / wall)
