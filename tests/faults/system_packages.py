"""What a few tests need of the system, and what becomes of them where it is missing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tests.emulator.cache import make_once
from tests.emulator.extensions import STAND_INS
from tests.emulator.postgres import PostgresBinaries

# Hosted projects are on 15 or newer.
OLDEST_SERVER = 15
WALL_CLOCK = Path(__file__).parent / "wall_clock.c"


def server_with_pg_cron() -> PostgresBinaries:
    """The newest PostgreSQL of the system that has the real pg_cron; see `not_there` for where it has none."""
    return _newest_server_with("pg_cron", "the real pg_cron", "postgresql-15 and postgresql-15-cron")


def server_with_pgtap() -> PostgresBinaries:
    """The newest PostgreSQL of the system that has pgTAP; see `not_there` for where it has none."""
    return _newest_server_with("pgtap", "pgTAP", "postgresql-15, postgresql-15-cron and postgresql-15-pgtap")


def _newest_server_with(extension: str, called: str, packages: str) -> PostgresBinaries:
    found = [PostgresBinaries.find({"EMULATOR_POSTGRES_BIN": str(path.parent)}) for path in _servers()]
    fitting = [server for server in found if server.major >= OLDEST_SERVER and server.has_own(extension)]
    if not fitting:
        not_there(f"no PostgreSQL with {called}", f"install the packages {packages}")
    newest = max(fitting, key=lambda server: server.major)
    others = [name for name in ("pgmq", *STAND_INS) if not (newest.extensions / f"{name}.control").exists()]
    if others and newest.major < 18 and not os.access(newest.extensions, os.W_OK):
        not_there(
            f"PostgreSQL {newest.major} reads extensions from {newest.extensions} only, and {', '.join(others)} cannot "
            "be put there",
            "run this as somebody who may write to it",
        )
    return newest


def wall_clock_library() -> Path:
    """wall_clock.c, compiled once; see `not_there` for where the system cannot."""
    compiler = shutil.which("cc")
    if compiler is None:
        not_there("no C compiler", "install the packages gcc and libc6-dev")
    name = WALL_CLOCK.with_suffix(".so").name

    def compile_in(folder: Path) -> None:
        options = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")
        subprocess.run([compiler, *options, "-o", folder / name, WALL_CLOCK], check=True)

    digest = hashlib.sha256(WALL_CLOCK.read_bytes()).hexdigest()[:16]
    return make_once(f"wall-clock-{digest}", compile_in) / name


def not_there(what: str, remedy: str) -> NoReturn:
    """Fail in CI, where everything has to be there; elsewhere skip, and say what to install."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}: .ci/run should have installed it")
    pytest.skip(f"{what}: {remedy}")


def _servers() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
