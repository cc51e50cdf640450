"""The command line: `record` what the present code leaves, `freeze` the migrations of a release that goes out."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence

from shared.version import VERSION
from tests.emulator.project import MIGRATIONS
from tests.emulator.staging import ROOT

from .kept import FOLDER, Release
from .record import record


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, does it, says where it is kept, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.releases", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("record", "play some runs on the present code and keep what is in the tables"),
        ("freeze", "note how its migrations are: from then on a change of them fails a test"),
    ):
        commands.add_parser(command, help=text).add_argument("version", type=_version, help=f"such as {VERSION}")
    parsed = parser.parse_args(arguments)

    kept = FOLDER / f"{parsed.version}.json"
    if parsed.command == "record":
        release = asyncio.run(record(parsed.version))
    elif kept.exists():
        release = Release.load(kept)
        release.freeze(MIGRATIONS)
    else:
        parser.error(f"{kept.name} is not there: record it first")
    print(release.save().relative_to(ROOT))
    return 0


def _version(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError(f"expected a version such as {VERSION}, found {text!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())
