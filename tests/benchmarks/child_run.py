"""A Python program that is run to its end for the figures that it writes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.processes import ChildProcess

# A program may have a stack of its own to stop.
STOP_SECONDS = 30

_numbers = itertools.count(1)


async def run_child(argv: Sequence[str | Path], *, root: Path, data_dir: DataDir) -> Any:
    """Runs it and returns the JSON that it wrote; raises `EmulatorError` where it wrote none.

    Args:
        argv: the command; the name of the file for its figures is added.
        root: of the checkout whose code it imports; its working directory.
        data_dir: keeps its log and its figures.
    """
    name = f"child-{next(_numbers)}"
    result = data_dir.path / f"{name}.json"
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data_dir.path), "PYTHONPATH": str(root)}
    process = ChildProcess(name, [*argv, result], data_dir=data_dir, env=env, cwd=root)
    await process.start()
    try:
        await process.wait()
    finally:
        await process.stop(STOP_SECONDS)
    if not result.exists():
        raise EmulatorError(f"{' '.join(map(str, argv))} failed in {root}; its log ends:\n{process.log_tail()}")
    return json.loads(await asyncio.to_thread(result.read_text, encoding="utf-8"))
