"""A folder of this user's own for what is slow to make and the same each time."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .errors import EmulatorError

KEPT_SECONDS = 30 * 24 * 3600


def cache_folder() -> Path:
    """Returns the cache. Its name is predictable and its place writable by all: it may be another user's."""
    path = Path(tempfile.gettempdir()) / f"supabase-emulator-cache-{os.geteuid()}"
    path.mkdir(mode=0o755, exist_ok=True)
    found = path.lstat()
    foreign = found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or foreign:
        raise EmulatorError(f"{path} is not a folder that only you can write to: remove it, or set TMPDIR elsewhere")
    # PostgreSQL may run as another account, which must get through whatever the umask said
    path.chmod(0o755)
    return path


def make_once(name: str, make: Callable[[Path], None]) -> Path:
    """Returns the cache entry, which `make` fills if it is not there. Two emulators may do so at once: one wins."""
    entry = cache_folder() / name
    with contextlib.suppress(FileNotFoundError):
        os.utime(entry)  # what is used does not grow old
        return entry
    _remove_old()
    draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_folder()))
    draft.chmod(0o755)
    try:
        make(draft)
        try:
            draft.rename(entry)
        except OSError:
            # another process was faster, unless the entry is still not there
            if not entry.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return entry


def _remove_old() -> None:
    for old in cache_folder().iterdir():
        # another process may just have kept or removed a draft of its own
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.lstat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
