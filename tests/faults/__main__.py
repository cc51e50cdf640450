"""`make soak`: random runs, two side by side, for as long as is set.

One line for each. One that fails is printed with all that was drawn and happened, and the command that plays it again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import httpx

from tests.emulator.project import ProjectFactory
from tests.faults.chaos_plan import KINDS, Kind, command, draw
from tests.faults.chaos_run import play
from tests.faults.conftest import DURABLE
from tests.integration.project_logs import project_without_leaks
from tests.integration.scheduled_runs.harness import harness as a_scheduled_run

SIDE_BY_SIDE = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

# Beside the runs: hypothesis's stories over the SQL functions, in a pytest of its own.
SQL = "sql"
STORIES_FILE = Path(__file__).parent / "state_machine" / "test_stories.py"
STORIES = 60


class Turn(NamedTuple):
    """One run, or some stories of the state machine."""

    kind: str
    seed: int


async def _take_turns(turns: Iterator[Turn], ends_at: float, played: list[Turn], failed: list[Turn]) -> None:
    """Takes turns until the time is over; a turn that has begun is played to its end."""
    while time.monotonic() < ends_at and (turn := next(turns, None)):
        began = time.monotonic()
        try:
            ended = await (_tell_stories(turn) if turn.kind == SQL else _play_run(turn))
        except Exception:  # a failure is a line and a number; the others continue
            ended = f"FAILED\n{traceback.format_exc()}"
            failed.append(turn)
        played.append(turn)
        print(f"{turn.kind:<8} {turn.seed:<7} {time.monotonic() - began:5.1f} s  {ended}", flush=True)


async def _soak(turns: Iterator[Turn], ends_at: float, played: list[Turn], failed: list[Turn]) -> None:
    """Ends as soon as it is cancelled, and everything that was started with it."""
    async with asyncio.TaskGroup() as group:
        for _ in range(SIDE_BY_SIDE):
            group.create_task(_take_turns(turns, ends_at, played, failed))


async def _play_run(turn: Turn) -> str:
    drawn = draw(cast(Kind, turn.kind), turn.seed)
    # A server for each run: it may be crashed, and nothing piles up however long this takes.
    async with (
        ProjectFactory(settings=DURABLE) as projects,
        project_without_leaks(projects) as project,
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
        a_scheduled_run(project, http) as harness,
    ):
        played = await play(drawn, harness)
    times = Counter(fault.what for fault in played.struck)
    struck = ", ".join(f"{what} x{n}" if n > 1 else what for what, n in times.items())
    return f"{drawn.mentors:3} mentors  {played.status:<9}  {struck}"


async def _tell_stories(turn: Turn) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", STORIES_FILE),
        env={**os.environ, "STATE_MACHINE_EXAMPLES": str(STORIES), "STATE_MACHINE_SEED": str(turn.seed)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A Ctrl-C in the terminal is ours to act on.
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.wait()
    if process.returncode != 0:
        raise AssertionError(output.decode(errors="replace"))
    return f"{STORIES} stories"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    kinds = "; ".join(f"{name}: {text}" for name, text in KINDS.items())
    parser.add_argument("--minutes", type=float, default=10, help="begin no run after so many (10)")
    parser.add_argument("--runs", type=int, help="so many at most")
    parser.add_argument("--seed", type=int, help="of the first run, the next one has the next (by chance)")
    parser.add_argument(
        "--kind",
        choices=[*KINDS, SQL],
        help=f"{kinds}; {SQL}: no run, but stories over the SQL functions (all, in turns)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays, prints, and returns the exit code."""
    options = _options(arguments)
    # The scripted engine's server has something to say about each connection that it drops.
    logging.disable(logging.CRITICAL)
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    kinds = itertools.cycle([options.kind] if options.kind else [*KINDS, SQL])
    turns = itertools.islice(map(Turn, kinds, itertools.count(seed)), options.runs)
    began, code = time.monotonic(), 0
    played: list[Turn] = []
    failed: list[Turn] = []
    # SIGINT cancels what runs; so does SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        asyncio.run(_soak(turns, began + options.minutes * 60, played, failed))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    print(f"{len(played)} in {(time.monotonic() - began) / 60:.1f} minutes, {len(failed)} failed")
    for turn in failed:
        print(f"  {command(*turn)}")
    return EXIT_FAILED if failed else code


if __name__ == "__main__":
    sys.exit(main())
