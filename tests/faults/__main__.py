"""`make soak`: random runs, two side by side, for as long as is asked.

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


class Soak:
    """Takes turns, in this order, until the minutes are over; a turn that has begun is played to its end."""

    def __init__(self, turns: Iterator[Turn], minutes: float) -> None:
        self._turns = turns
        self._began = time.monotonic()
        self._seconds = minutes * 60
        self._played = 0
        self.failed: list[Turn] = []

    async def run(self) -> None:
        """Plays; ends as soon as it is cancelled, and everything that was started with it."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SIDE_BY_SIDE):
                group.create_task(self._take_turns())

    def summary(self) -> str:
        """How many there were, and how to have those that failed again."""
        lines = [f"{self._played} in {(time.monotonic() - self._began) / 60:.1f} minutes, {len(self.failed)} failed"]
        return "\n".join([*lines, *(f"  {command(*turn)}" for turn in self.failed)])

    async def _take_turns(self) -> None:
        while time.monotonic() - self._began < self._seconds:
            turn = next(self._turns, None)
            if turn is None:
                return
            began = time.monotonic()
            try:
                ended = await (_tell_stories(turn) if turn.kind == SQL else _play_run(turn))
            except Exception:  # a failure is a line and a number; the others go on
                ended = f"FAILED\n{traceback.format_exc()}"
                self.failed.append(turn)
            self._played += 1
            print(f"{turn.kind:<8} {turn.seed:<7} {time.monotonic() - began:5.1f} s  {ended}", flush=True)


async def _play_run(turn: Turn) -> str:
    drawn = draw(cast(Kind, turn.kind), turn.seed)
    # A server for each run: it may be crashed, and nothing piles up however long this goes on.
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


def _turns(kinds: Sequence[str], first_seed: int, runs: int | None) -> Iterator[Turn]:
    kinds_in_turn = itertools.cycle(kinds)
    return itertools.islice((Turn(next(kinds_in_turn), seed) for seed in itertools.count(first_seed)), runs)


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
    kinds = [options.kind] if options.kind else [*KINDS, SQL]
    soak = Soak(_turns(kinds, seed, options.runs), options.minutes)
    code = 0
    # SIGINT cancels what runs; so does SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        asyncio.run(soak.run())
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    print(soak.summary())
    return EXIT_FAILED if soak.failed else code


if __name__ == "__main__":
    sys.exit(main())
