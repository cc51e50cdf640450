"""The fast fake engine (`engine.ts`) as a process, and what it counted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from tests.emulator.data_dir import DataDir
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status

from .deno import deno_command, deno_env


@dataclass(frozen=True)
class EngineStats:
    """Since the last reset; see `engine.ts`."""

    pid: int
    calls: int
    evaluations: int
    distinct: int
    duplicates: int
    in_flight: int
    max_in_flight: int
    connections: int
    busy_seconds: float
    latency_seconds: float
    longest_seconds: float


@contextlib.asynccontextmanager
async def fast_engine(
    data_dir: DataDir,
    *,
    latency_ms: float = 20,
    tail: bool = False,
    notable: float = 0.1,
    expect: int = 100_000,
    repeat: bool = False,
) -> AsyncIterator[str]:
    """Its URL, for as long as the block runs.

    Args:
        data_dir: where its log goes.
        latency_ms: of each call, unless `tail`.
        tail: latencies are log-normal, p50 20 ms, p99 400 ms, the same for each contender.
        notable: share of pairs that are `triggered`.
        expect: idempotency keys for which there is room from the start.
        repeat: answer a key that was seen before as the first time; a duplicate is a second key for a pair then. Else a
            key that was seen before is one, and its call is refused.
    """
    port = free_port()
    options = [f"--latency={latency_ms}", f"--notable={notable}", f"--expect={expect}"]
    options += [f"--{name}" for name, wanted in (("tail", tail), ("repeat", repeat)) if wanted]
    process = ChildProcess(
        "fast-engine",
        [*deno_command("engine.ts"), str(port), *options],
        data_dir=data_dir,
        env=deno_env(data_dir),
    )
    await process.start()
    try:
        await process.until_ready(lambda: _answers(port))
        yield f"http://{LOCALHOST}:{port}"
    finally:
        await process.stop()


async def _answers(port: int) -> bool:
    return await http_status(port, "/") == httpx.codes.OK


async def read_stats(engine_url: str) -> EngineStats:
    """What it counted since the last reset."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return EngineStats(**(await client.get(f"{engine_url}/stats")).raise_for_status().json())


async def reset(engine_url: str) -> EngineStats:
    """Forget everything; the counts that are left are those of calls still in flight."""
    async with httpx.AsyncClient(trust_env=False) as client:
        (await client.post(f"{engine_url}/reset")).raise_for_status()
    return await read_stats(engine_url)
