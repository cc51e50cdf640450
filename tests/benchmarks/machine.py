"""On what a benchmark was run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.emulator.errors import EmulatorError
from tests.emulator.gateway import find_caddy
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.postgrest import find_postgrest
from tests.emulator.staging import ROOT

from .peers.deno import HERE, find_deno
from .peers.limit import find_wrk

PACKAGES = (
    *("functions-framework", "fastapi", "uvicorn", "uvloop", "h11", "supabase", "postgrest", "httpx", "pyreqwest"),
    *("aiohttp", "dbos"),
)
VERSION = re.compile(r"\d+(?:\.\d+)+")


def describe_machine() -> dict[str, Any]:
    """Cores, processor, memory, system, and the versions of what takes part and is installed."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {_version(platform.release())}",
        "versions": _versions(),
    }


def describe_commit() -> str:
    """Of the project; with `+` where files differ from it, empty where nobody knows."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def _versions() -> dict[str, str]:
    programs: dict[str, Callable[[], Sequence[str | Path]]] = {
        "PostgREST": lambda: [find_postgrest(), "--version"],
        "Caddy": lambda: [find_caddy(), "version"],
        "Deno": lambda: [find_deno(), "--version"],
        "wrk": lambda: [find_wrk(), "-v"],
    }
    versions = {"Python": platform.python_version(), "PostgreSQL": PostgresBinaries.find().version}
    for name, command in programs.items():
        # what is not installed takes no part
        with contextlib.suppress(EmulatorError):
            versions[name] = _version(_output(command()))
    supabase = HERE / "node_modules" / "@supabase" / "supabase-js" / "package.json"
    if supabase.exists():
        versions["supabase-js"] = json.loads(supabase.read_text(encoding="utf-8"))["version"]
    installed = {package.metadata["Name"].lower(): package.version for package in importlib.metadata.distributions()}
    return versions | {name: installed[name] for name in PACKAGES if name in installed}


def _version(text: str) -> str:
    found = VERSION.search(text)
    return found.group() if found else text.strip()


def _output(command: Sequence[str | Path]) -> str:
    """Whatever it writes: wrk tells its version as an error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
