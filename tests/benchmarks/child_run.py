"""A Python program that is run to its end for the figures that it writes."""

from __future__ import annotations

import asyncio
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


async def run_child(argv: Sequence[str | Path], result: Path, *, root: Path, data_dir: DataDir) -> Any:
    """Runs it in a checkout, whose code it imports, and returns the JSON that it wrote into a file."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data_dir.path), "PYTHONPATH": str(root)}
    await asyncio.to_thread(result.unlink, missing_ok=True)
    process = ChildProcess("child", argv, data_dir=data_dir, env=env, cwd=root)
    await process.start()
    try:
        await process.wait()
    finally:
        await process.stop(STOP_SECONDS)
    try:
        return json.loads(await asyncio.to_thread(result.read_text, encoding="utf-8"))
    except FileNotFoundError:
        said = f"{' '.join(map(str, argv))} failed in {root}; its log ends:\n{process.log_tail()}"
        raise EmulatorError(said) from None
