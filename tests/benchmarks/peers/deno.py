"""How the Deno programs of this folder are run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError

HERE = Path(__file__).parent


def find_deno() -> Path:
    """The binary that npm brought, else the wheel's beside this Python, else `deno` on PATH."""
    # not node_modules/.bin/deno, which keeps a Node.js process around it
    for binary in sorted(HERE.glob("node_modules/@deno/*/deno")):
        return binary
    found = shutil.which("deno", path=str(Path(sys.executable).parent)) or shutil.which("deno")
    if found is None:
        raise EmulatorError("Deno is not installed: run `npm install` in tests/benchmarks/peers, or put `deno` on PATH")
    return Path(found)


def deno_command(program: str) -> list[str | Path]:
    """Runs a program of this folder: it may use the loopback interface and its environment, and downloads nothing."""
    if not (HERE / "node_modules" / "@supabase" / "supabase-js").is_dir():
        raise EmulatorError("supabase-js is not installed: run `npm install` in tests/benchmarks/peers")
    offline = ("--no-remote", "--cached-only", "--no-prompt", "--node-modules-dir=manual")
    return [find_deno(), "run", *offline, "--allow-env", "--allow-net=127.0.0.1", HERE / program]


def deno_env(data_dir: DataDir) -> dict[str, str]:
    """Deno keeps what it compiled in a folder of the run's own."""
    home = str(data_dir.folder("deno"))
    return {"HOME": home, "DENO_DIR": home, "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
