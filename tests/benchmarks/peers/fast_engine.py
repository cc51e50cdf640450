"""The fast fake engine (`engine.ts`) as a process, what it counted, and how Deno programs of this folder are run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess

HERE = Path(__file__).parent
NODE_MODULES = HERE / "node_modules"


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


def find_deno() -> Path:
    """Returns the binary that npm brought; not node_modules/.bin/deno, which keeps a Node.js process around it."""
    for binary in NODE_MODULES.glob("@deno/*/deno"):
        return binary
    raise EmulatorError("Deno and supabase-js are not installed: run `npm install` in tests/benchmarks/peers")


def deno_command(program: str) -> list[str | Path]:
    """Runs a program of this folder: it may use the loopback interface and its environment, and downloads nothing."""
    offline = ("--no-remote", "--cached-only", "--no-prompt", "--node-modules-dir=manual")
    return [find_deno(), "run", *offline, "--allow-env", "--allow-net=127.0.0.1", HERE / program]


def deno_env(data_dir: DataDir) -> dict[str, str]:
    """Deno keeps what it compiled in a folder of the run's own."""
    home = str(data_dir.folder("deno"))
    return {"HOME": home, "DENO_DIR": home, "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}


@contextlib.asynccontextmanager
async def fast_engine(
    data_dir: DataDir, *, latency_ms: float = 20, tail: bool = False, notable: float = 0.1, expect: int = 100_000
) -> AsyncIterator[str]:
    """Yields its URL.

    `tail`: latencies are log-normal, p50 20 ms, p99 400 ms, the same for each contender. `notable`: the share of pairs
    that are `triggered`. `expect`: the most idempotency keys that it has to remember.
    """
    port = free_port()
    options = [f"--latency={latency_ms}", f"--notable={notable}", f"--expect={expect}", *(["--tail"] if tail else [])]
    command = [*deno_command("engine.ts"), str(port), *options]
    process = ChildProcess("fast-engine", command, data_dir=data_dir, env=deno_env(data_dir), health=(port, "/"))
    try:
        await process.start()
        yield f"http://{LOCALHOST}:{port}"
    finally:
        await process.stop()


async def read_stats(engine_url: str) -> EngineStats:
    async with httpx.AsyncClient(trust_env=False) as client:
        return EngineStats(**(await client.get(f"{engine_url}/stats")).raise_for_status().json())


async def reset(engine_url: str) -> EngineStats:
    """Resets all counts, and returns what is left: those of calls still in flight."""
    async with httpx.AsyncClient(trust_env=False) as client:
        (await client.post(f"{engine_url}/reset")).raise_for_status()
    return await read_stats(engine_url)
