"""A Python environment with nothing but what the deployed function needs."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from pathlib import Path

from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
# Its presence says that all was installed.
COMPLETE = ".complete"


async def deployed_python() -> Path:
    """The environment's interpreter; it is made on first use, and again when the requirements change.

    Raises:
        EmulatorError: it cannot be made; says what pip said.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"benchmark-environment-{digest}"
    python = folder / "bin" / "python"
    if not (folder / COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        await _run(sys.executable, "-m", "venv", folder)
        await _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS)
        (folder / COMPLETE).touch()
    return python


async def _run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise EmulatorError(
            f"the environment of requirements.txt cannot be made: {' '.join(map(str, command))} said:\n"
            + output.decode(errors="replace").strip()
        )
