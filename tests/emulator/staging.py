"""The function's folder as deploy.sh stages it: its two packages, their pinned requirements, one generated line."""

from __future__ import annotations

import compileall
import shutil
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("functions", "shared")
TARGET = "handle_scheduled_invocation"
# What is installed, to the version.
LOCK = Path("shared/deployment/requirements.lock")
# Runs on the deploying machine alone.
NOT_DEPLOYED = "deployment"
# The platform puts only the source file's own folder on the import path.
MAIN = f"from functions.main import {TARGET} as {TARGET}\n"


def stage(target: Path, root: Path = ROOT) -> Path:
    """Copies what is deployed from `root` into a fresh folder, and returns the source file to serve."""
    _compile(root)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for package in PACKAGES:
        if (root / package).is_dir():
            # compiled files come along: they hold as long as their sources do, and spare a start half a second
            shutil.copytree(root / package, target / package, ignore=shutil.ignore_patterns(NOT_DEPLOYED))
    if (root / LOCK).exists():
        shutil.copy(root / LOCK, target / "requirements.txt")
    source = target / "main.py"
    source.write_text(MAIN)
    return source


@lru_cache
def _compile(root: Path) -> None:
    """Compiles once for all functions of this process: PYTHONDONTWRITEBYTECODE may keep imports from doing it."""
    for package in PACKAGES:
        compileall.compile_dir(root / package, quiet=2)
