"""`python -m tests.benchmarks.peers good --mentors 2000`: one run of one contender, as JSON, to look at it alone."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict

from tests.emulator.project import ProjectFactory

from .contenders import Contender
from .fast_engine import fast_engine
from .figures import TYPES, Load
from .limit import LIMIT
from .scheduler import SCHEDULER
from .served import DBOS_QUEUE, GOOD, NAIVE, PLAIN_LOOP

NAMES: dict[str, Contender] = {
    "scheduler": SCHEDULER,
    "good": GOOD,
    "naive": NAIVE,
    "dbos": DBOS_QUEUE,
    "wrk": LIMIT,
    "plain": PLAIN_LOOP,
}


async def main() -> None:
    """Runs one contender and prints its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("contender", choices=NAMES)
    parser.add_argument("--mentors", type=int, default=2000)
    parser.add_argument("--types", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--users-per-call", type=int, default=1)
    parser.add_argument("--types-per-call", type=int, help="one where a call is about one user, else all")
    parser.add_argument("--latency", type=float, default=20, help="milliseconds")
    parser.add_argument("--notable", type=float, default=1, help="share of outcomes that get a row of their own")
    parser.add_argument("--tail", action="store_true", help="log-normal latency, p50 20 ms, p99 400 ms")
    options = parser.parse_args()
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(
            project.data_dir, latency_ms=options.latency, tail=options.tail, notable=options.notable
        ) as engine_url,
    ):
        load = Load(
            options.mentors,
            options.in_flight,
            options.users_per_call,
            options.types_per_call or (1 if options.users_per_call == 1 else options.types),
            TYPES[: options.types],
        )
        figures = await NAMES[options.contender].run(project, engine_url, load)
    summary = {"efficiency": figures.efficiency, "evaluations_per_second": figures.evaluations_per_second}
    print(json.dumps(asdict(figures) | summary, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
