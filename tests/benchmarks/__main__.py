"""`python -m tests.benchmarks [--mentors N] [--calls N] [--rounds N]`: prints two tables."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.benchmarks.engine_client import CONTENDERS, ClientFigures, measure_client
from tests.benchmarks.night import IN_FLIGHT, LATENCY_SECONDS, NightFigures, measure_night
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import http_status
from tests.emulator.project import ProjectFactory


@contextlib.asynccontextmanager
async def fast_engine(latency: float) -> AsyncIterator[str]:
    """The engine in a process of its own, for as long as the block runs."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.fast_engine", str(port), str(latency)
    )
    url = f"http://{LOCALHOST}:{port}"
    try:
        while await http_status(port, "/") != 200:  # noqa: ASYNC110  # another process has no Event to set
            await asyncio.sleep(0.02)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def compare_clients(calls: int, rounds: int) -> Table:
    """The engine client by transport."""
    figures: dict[str, list[ClientFigures]] = {name: [] for name in CONTENDERS}
    async with fast_engine(0) as url:
        for _ in range(rounds):
            for name, transport in CONTENDERS.items():
                figures[name].append(await measure_client(url, transport(), calls))
    table = Table(title=f"Engine client: {calls:,} calls of one pair, 64 in flight, median of {rounds}")
    for heading in ("transport", "CPU µs a call", "calls/s"):
        table.add_column(heading, justify="left" if heading == "transport" else "right")
    for name, runs in figures.items():
        table.add_row(
            name,
            f"{median(run.cpu_microseconds_per_call for run in runs):,.0f}",
            f"{median(run.calls_per_second for run in runs):,.0f}",
        )
    return table


async def compare_nights(mentors: int, rounds: int) -> Table:
    """The whole function by users a call."""
    figures: dict[int, list[NightFigures]] = {100: [], 1: []}
    async with ProjectFactory() as projects:
        for _ in range(rounds):
            for users_per_call, runs in figures.items():
                async with fast_engine(LATENCY_SECONDS) as url, projects.project() as project:
                    runs.append(await measure_night(project, url, mentors=mentors, users_per_call=users_per_call))
    table = Table(
        title=f"A night: {mentors:,} mentors seeded, engine {LATENCY_SECONDS * 1000:.0f} ms, "
        f"{IN_FLIGHT} in flight, median of {rounds}"
    )
    for heading in ("users a call", "wall s", "evaluations/s", "of the ideal", "peak MB"):
        table.add_column(heading, justify="right")
    for users_per_call, runs in figures.items():
        wall = median(run.wall_seconds for run in runs)
        table.add_row(
            str(users_per_call),
            f"{wall:.2f}",
            f"{runs[0].evaluations / wall:,.0f}",
            f"{median(run.share_of_ideal for run in runs):.2f}",
            f"{median(run.peak_megabytes for run in runs):.0f}",
        )
    return table


async def main() -> None:
    """Runs both comparisons and prints them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--mentors", type=int, default=5000)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    console.print(await compare_clients(options.calls, options.rounds))
    console.print(await compare_nights(options.mentors, options.rounds))


if __name__ == "__main__":
    asyncio.run(main())
