"""`python -m tests.benchmarks [SECTION …] [--rounds 3] [--quick] [--beside CHECKOUT] [--out DIR]`: measures by section.

Each section's tables are printed when it has ended, and `results.json`, `results.md` and `chart.png` in the folder are
written anew. A section that is not run again stays in them as it was, unless it was measured on another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from tests.emulator.cli import until_signal
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

from .chart import draw
from .machine import describe_commit, describe_machine
from .peers.contenders import require_all
from .report import Stored, read_results, section_markdown, to_markdown, write_results
from .scale_out import SCALE_OUT
from .section import Conditions, Section
from .sections.clients import CLIENTS_SECTION
from .sections.cold_start import COLD_START
from .sections.comparisons import BATCHED, DURABILITY, FAN_OUT, TAIL
from .sections.history import HISTORY
from .sections.million import MILLION
from .side_by_side import beside

SECTIONS = (FAN_OUT, TAIL, BATCHED, MILLION, DURABILITY, COLD_START, HISTORY, CLIENTS_SECTION, SCALE_OUT)

OUT = ROOT / "build" / "benchmarks"
QUICK_OUT = ROOT / "build" / "benchmarks-quick"
ROUNDS = 3
# For one round of a section; none takes half of it where nothing hangs.
ROUND_SECONDS = 900
# Characters that the tables need; a pipe has 80.
TABLE_WIDTH = 160


def parse(arguments: Sequence[str]) -> tuple[list[Section], Conditions, Path]:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    known = ", ".join(section.name for section in SECTIONS)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"all, or some of: {known}")
    parser.add_argument("--rounds", type=int, help=f"of each contender ({ROUNDS}; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small loads: only whether everything works")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="beside another checkout's function, in turn")
    parser.add_argument("--out", type=Path, help=f"folder ({OUT.relative_to(ROOT)})")
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - {section.name for section in SECTIONS}:
        parser.error(f"no section is called {', '.join(unknown)}; there are {known}")
    rounds = options.rounds if options.rounds is not None else (1 if options.quick else ROUNDS)
    if rounds < 1:
        parser.error("--rounds: at least one is expected")
    chosen = [section for section in SECTIONS if not options.sections or section.name in options.sections]
    if options.beside is not None:
        chosen = [beside(section, options.beside.resolve()) for section in chosen]
    conditions = Conditions(rounds, options.quick, lambda text: print(f"  {text}", flush=True))
    return chosen, conditions, options.out or (QUICK_OUT if options.quick else OUT)


async def measure(section: Section, conditions: Conditions) -> Stored:
    """Runs one section; raises `EmulatorError` where it broke or did not end in time."""
    started_at, started = datetime.now(UTC), time.monotonic()
    limit = asyncio.timeout(ROUND_SECONDS * conditions.rounds)
    try:
        async with limit:
            measured = await section.measure(conditions)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise EmulatorError(f"expected an end within {ROUND_SECONDS} s a round, found none") from error
    return {
        "title": section.title,
        "about": section.about,
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "commit": describe_commit(),
        "rounds": conditions.rounds,
        "quick": conditions.quick,
        **asdict(measured),
    }


async def main(sections: Sequence[Section], conditions: Conditions, out: Path) -> int:
    """Runs the sections, writes and prints after each; returns 1 if one broke."""
    try:
        require_all()
    except EmulatorError as error:
        print(f"the benchmark cannot run: {error}", file=sys.stderr)
        return 1
    machine, broken = describe_machine(), []
    results = read_results(out / "results.json", machine)
    console = Console(width=max(Console().width, TABLE_WIDTH))
    for section in sections:
        print(f"{section.name}: {section.title}", flush=True)
        try:
            results[section.name] = await measure(section, conditions)
        except EmulatorError as error:
            print(f"{section.name} broke: {error}", file=sys.stderr, flush=True)
            broken.append(section.name)
            continue
        names = dict.fromkeys((*(known.name for known in SECTIONS), *results))
        results = {name: results[name] for name in names if name in results}
        write_results(out / "results.json", machine, results)
        (out / "results.md").write_text(to_markdown(machine, results), encoding="utf-8")
        draw(machine, results, out / "chart.png")
        console.print(Markdown(section_markdown(section.name, results[section.name])))
    print(f"broken: {', '.join(broken)}" if broken else f"the results are in {out}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(until_signal(main(*parse(sys.argv[1:])), when_stopped=128 + signal.SIGTERM)))
