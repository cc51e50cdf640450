"""`python -m tests.benchmarks [SECTION …] [--rounds 3] [--quick] [--beside CHECKOUT] [--out DIR]`: measures by section.

Each section's tables are printed when it is through, and `results.json`, `results.md` and `chart.png` in the folder are
written anew. A section that is not run again stays in them as it was, unless it was measured on another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

from .beside import TASKS, beside
from .chart import draw, require_matplotlib
from .machine import describe_commit, describe_machine
from .report import print_section, to_markdown
from .results import Results, SectionResult, read_results
from .section import Conditions, Section
from .sections import SECTIONS

OUT = ROOT / "build" / "benchmarks"
QUICK_OUT = ROOT / "build" / "benchmarks-quick"
ROUNDS = 3
# For one round of a section; none takes half of it where nothing hangs.
ROUND_SECONDS = 900
# Characters that the tables need; a pipe has 80.
TABLE_WIDTH = 132


def parse(arguments: Sequence[str]) -> tuple[list[Section], Conditions, Path]:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    known = {section.name: section for section in SECTIONS}
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"all, or some of: {', '.join(known)}")
    parser.add_argument("--rounds", type=int, default=None, help=f"of each contender ({ROUNDS}; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small loads: only whether everything works")
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="CHECKOUT",
        help=f"instead: this function and that of another checkout in turn; {', '.join(TASKS)}",
    )
    parser.add_argument("--out", type=Path, default=None, help=f"folder ({OUT.relative_to(ROOT)})")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sections if name not in known]
    if unknown:
        parser.error(f"no section is called {', '.join(unknown)}; there are {', '.join(known)}")
    rounds = options.rounds if options.rounds is not None else (1 if options.quick else ROUNDS)
    if rounds < 1:
        parser.error("--rounds: at least one is expected")
    conditions = Conditions(rounds, options.quick, lambda text: print(f"  {text}", flush=True))
    chosen = [section for section in SECTIONS if not options.sections or section.name in options.sections]
    if options.beside is not None:
        if alone := [name for name in options.sections if name not in TASKS]:
            parser.error(f"--beside: {', '.join(alone)} cannot be run so; {', '.join(TASKS)} can")
        chosen = [beside(section, options.beside.resolve()) for section in chosen if section.name in TASKS]
    return chosen, conditions, options.out or (QUICK_OUT if options.quick else OUT)


async def measure(section: Section, conditions: Conditions) -> SectionResult:
    """Runs one section.

    Raises:
        EmulatorError: it broke, or did not end in time.
    """
    started_at, started = datetime.now(UTC), time.monotonic()
    limit = ROUND_SECONDS * conditions.rounds
    whole = asyncio.timeout(limit)
    try:
        async with whole:
            measured = await section.measure(conditions)
    except TimeoutError as error:
        if not whole.expired():
            raise
        raise EmulatorError(f"expected an end within {limit} s, found none") from error
    return SectionResult(
        section.name,
        section.title,
        section.about,
        started_at.isoformat(timespec="seconds"),
        time.monotonic() - started,
        describe_commit(),
        conditions.rounds,
        conditions.quick,
        measured,
    )


def write(results: Results, out: Path) -> None:
    """The three files."""
    out.mkdir(parents=True, exist_ok=True)
    results.write(out / "results.json")
    (out / "results.md").write_text(to_markdown(results), encoding="utf-8")
    draw(results, out / "chart.png")


async def run_sections(
    sections: Sequence[Section],
    conditions: Conditions,
    results: Results,
    *,
    publish: Callable[[Results, SectionResult], None],
) -> list[str]:
    """Runs sections one after the other; one that breaks does not keep the next from its turn.

    Args:
        sections: which.
        conditions: how.
        results: what there is already.
        publish: called with all that there is, and what is new, after each section.

    Returns:
        The names of those that broke.
    """
    broken = []
    for section in sections:
        print(f"{section.name}: {section.title}", flush=True)
        try:
            result = await measure(section, conditions)
        except EmulatorError as error:
            print(f"{section.name} broke: {error}", file=sys.stderr, flush=True)
            broken.append(section.name)
            continue
        results = results.with_section(result, [known.name for known in SECTIONS])
        publish(results, result)
    return broken


async def main(sections: Sequence[Section], conditions: Conditions, out: Path) -> int:
    """Runs what is asked for; 1 where something broke, whatever the figures are."""
    try:
        require_matplotlib()
        for section in sections:
            section.require()
    except EmulatorError as error:
        print(f"the benchmark cannot run: {error}", file=sys.stderr)
        return 1
    console = Console(width=max(Console().width, TABLE_WIDTH))

    def publish(results: Results, result: SectionResult) -> None:
        write(results, out)
        print_section(console, result)

    earlier = read_results(out / "results.json", describe_machine())
    broken = await run_sections(sections, conditions, earlier, publish=publish)
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    print(f"the results are in {out}")
    return 1 if broken else 0


async def until_terminated(sections: Sequence[Section], conditions: Conditions, out: Path) -> int:
    """Runs `main`; at SIGTERM it stops what it started, as at Ctrl-C."""
    task = asyncio.create_task(main(sections, conditions, out))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        print("terminated", file=sys.stderr)
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(asyncio.run(until_terminated(*parse(sys.argv[1:]))))
