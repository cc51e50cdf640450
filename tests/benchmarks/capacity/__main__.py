"""`python -m tests.benchmarks.capacity measure [--rounds N] [--add]` measures and writes docs/scaling.md's tables anew.

`tables` only prints them, from what was measured last; `write` puts them into the document.
"""

from __future__ import annotations

import argparse
import asyncio

from .document import DOCUMENT, with_tables
from .measure import measure
from .measurements import FILE, Measurements
from .report import all_tables


async def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.capacity", description=__doc__)
    parser.add_argument("what", choices=("measure", "tables", "write"))
    parser.add_argument("--rounds", type=int, default=3, help="of each run")
    parser.add_argument(
        "--add", action="store_true", help="to the rounds that were measured before, on the same machine"
    )
    options = parser.parse_args()
    if options.what == "measure":
        before = Measurements.read() if options.add and FILE.exists() else None
        measured = await measure(options.rounds, before=before, say=lambda text: print(f"  {text}", flush=True))
        measured.write()
    tables = all_tables(Measurements.read())
    if options.what == "tables":
        for name, table in tables.items():
            print(f"\n## {name}\n\n{table}")
    else:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
