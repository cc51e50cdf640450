"""HTTP clients behind the product's own protocol, alone and in the whole product."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import PACKAGES, ROOT

from ..child_run import run_child
from ..comparison import Comparison, Entry, in_turn, project_and_engine
from ..peers.contenders import THIS_FUNCTION
from ..peers.fast_engine import read_stats, reset
from ..peers.figures import Load
from ..peers.scheduler import Scheduler
from ..section import Conditions, Measured, Row, Section, reported
from ..spread import Spread

LATENCY_SECONDS = 0.020
IN_FLIGHT = (32, 64, 256)
# In the whole product.
PRODUCT_IN_FLIGHT = (64, 256)
DRIVER = Path(__file__).parents[1] / "client_calls.py"


class Client(NamedTuple):
    """`calls`: enough for a second or two."""

    name: str
    module: str
    cls: str
    calls: int


CHOSEN = Client("pyreqwest", "shared.http_client", "HttpClient", 10_000)
CANDIDATE = Client("aiohttp", "tests.benchmarks.clients.aiohttp_client", "AiohttpClient", 10_000)
PLAIN = Client("httpx", "tests.benchmarks.clients.httpx_client", "HttpxClient", 1_000)
OVER_CANDIDATE = f"this function over {CANDIDATE.name}"


async def measure(conditions: Conditions) -> Measured:
    async with project_and_engine(latency_ms=LATENCY_SECONDS * 1000, notable=1) as (project, engine):
        alone = await in_turn(
            conditions,
            {
                (client.name, in_flight): partial(_calls, conditions, client, in_flight, engine, project.data_dir)
                for in_flight in IN_FLIGHT
                for client in (CHOSEN, CANDIDATE, PLAIN)
            },
            lambda key, found: f"{key[0]}, {key[1]} in flight: {found['cpu_microseconds']:.0f} µs CPU a call",
        )
        over_candidate = Scheduler(root=await asyncio.to_thread(_root_over, CANDIDATE, project.data_dir))
        schedulers = {THIS_FUNCTION: Scheduler(), OVER_CANDIDATE: over_candidate}
        entries = [
            Entry(side, _label(in_flight), Load(conditions.sized(10_000, 300), in_flight))
            for in_flight in PRODUCT_IN_FLIGHT
            for side in schedulers
        ]
        comparison = await Comparison.run(
            conditions, entries, lambda entry: schedulers[entry.contender].run(project, engine, entry.load)
        )
    rows = {
        (name, in_flight): Row(
            name,
            f"client alone, {in_flight} in flight",
            {"in_flight": in_flight},
            {figure: Spread.of(one[figure] for one in found) for figure in found[0]},
        )
        for (name, in_flight), found in alone.items()
    }
    cost = {key: row.figures["cpu_microseconds"] for key, row in rows.items()}
    figures = {"wall time": "wall_seconds", "CPU": "cpu_seconds", "peak memory": "peak_megabytes"}
    return Measured(
        [*rows.values(), *comparison.rows],
        [
            *(
                reported(
                    f"CPU a call, as a share of {client.name}'s, {in_flight} in flight",
                    cost[CHOSEN.name, in_flight].over(cost[client.name, in_flight]),
                )
                for in_flight in IN_FLIGHT
                for client in (CANDIDATE, PLAIN)
            ),
            *(
                reported(
                    f"{what}, as a share of that over {CANDIDATE.name}, {_label(in_flight)}",
                    comparison.share(figure, _label(in_flight), OVER_CANDIDATE),
                )
                for in_flight in PRODUCT_IN_FLIGHT
                for what, figure in figures.items()
            ),
        ],
        [
            "A client alone: calls about one user and one type on a loop of uvloop, over warm connections; bodies are"
            " made before. CPU is that of all threads; memory and import are those of a process that does no more.",
            f"{OVER_CANDIDATE}: the same function with {CANDIDATE.name} for the engine; the Data API as before.",
        ],
    )


async def _calls(
    conditions: Conditions, client: Client, in_flight: int, engine: str, data_dir: DataDir
) -> Mapping[str, float]:
    calls = conditions.sized(client.calls, client.calls // 10)
    await reset(engine)
    arguments = [f"{client.module}:{client.cls}", f"{engine}/v1/evaluations", str(calls), str(in_flight)]
    result = data_dir.path / "client.json"
    found = await run_child([sys.executable, "-P", DRIVER, *arguments, result], result, root=ROOT, data_dir=data_dir)
    stats = await read_stats(engine)
    if (stats.calls, stats.distinct) != (calls + in_flight,) * 2 or stats.max_in_flight > in_flight:
        raise EmulatorError(
            f"{client.name}: expected {calls + in_flight} calls, at most {in_flight} at a time; the engine saw"
            f" {stats.calls}, {stats.distinct} of them different, {stats.max_in_flight} at a time"
        )
    return {
        "efficiency": calls * LATENCY_SECONDS / in_flight / found["wall_seconds"],
        "cpu_microseconds": found["cpu_seconds"] / calls * 1e6,
        "peak_megabytes": found["peak_megabytes"],
        "import_milliseconds": found["import_seconds"] * 1000,
    }


def _root_over(client: Client, data_dir: DataDir) -> Path:
    """Copies what is deployed, and has another client call the engine; the Data API keeps the chosen one."""
    root = data_dir.path / f"over-{client.name}"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT.joinpath(*client.module.split(".")).with_suffix(".py"), root / "shared" / f"{client.cls}.py")
    # the module's other names stay: shared/database.py imports them
    with (root / "shared" / "http_client.py").open("a") as module:
        module.write(f"\n\nfrom shared.{client.cls} import {client.cls} as {CHOSEN.cls}\n")
    return root


def _label(in_flight: int) -> str:
    return f"whole product, {in_flight} in flight"


CLIENTS_SECTION = Section(
    "clients",
    "HTTP clients",
    "The client that was chosen, the other candidate and plain httpx behind the same small protocol call a loopback"
    " engine in another process, latency 20 ms; then the whole product with either candidate, one user a call.",
    measure,
)
