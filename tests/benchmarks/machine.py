"""The machine and the versions of a benchmark."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.emulator.gateway import find_caddy
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.postgrest import find_postgrest
from tests.emulator.staging import ROOT

from .peers.contenders import WRK_BINARY
from .peers.fast_engine import NODE_MODULES, find_deno

PACKAGES = (
    *("functions-framework", "fastapi", "uvicorn", "uvloop", "h11", "supabase", "postgrest", "httpx", "pyreqwest"),
    *("aiohttp", "dbos"),
)
VERSION = re.compile(r"\d+(?:\.\d+)+")
CPU_MODEL = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


def describe_machine() -> dict[str, Any]:
    cpu = CPU_MODEL.search(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu.group(1).strip() if cpu else platform.machine(),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {_version(platform.release())}",
        "versions": _versions(),
    }


def describe_commit(root: Path = ROOT) -> str:
    """Returns a checkout's commit, with `+` where files differ from it; empty where it is none."""
    command: list[str | Path] = ["git", "-C", root, "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _versions() -> dict[str, str]:
    supabase = json.loads((NODE_MODULES / "@supabase/supabase-js/package.json").read_text(encoding="utf-8"))
    return {
        "Python": platform.python_version(),
        "PostgreSQL": PostgresBinaries.find().version,
        "PostgREST": _version_of(find_postgrest(), "--version"),
        "Caddy": _version_of(find_caddy(), "version"),
        "Deno": _version_of(find_deno(), "--version"),
        "wrk": _version_of(str(WRK_BINARY), "-v"),
        "supabase-js": supabase["version"],
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _version(text: str) -> str:
    found = VERSION.search(text)
    return found.group() if found else text.strip()


def _version_of(*command: str | Path) -> str:
    """Reads both streams: wrk writes its version as an error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return _version(done.stdout + done.stderr)
