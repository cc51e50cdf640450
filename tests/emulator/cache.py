"""A folder of this user's own for what is slow to make and the same each time."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import EmulatorError

KEPT_SECONDS = 30 * 24 * 3600


def cache_folder() -> Path:
    """The cache, made on first use; refused when another user could have put something into it.

    Its name is predictable and its place writable by all, so that what is found there cannot be trusted unseen.
    """
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
    """The cache entry `name`, which `make` fills if it is not there. Two emulators may do so at once: one wins."""
    entry = cache_folder() / name
    if not is_there(entry):
        with draft_of(entry) as draft:
            make(draft)
    return entry


def is_there(entry: Path) -> bool:
    """Whether the entry was made earlier; asking keeps it from growing old."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(entry)
        return True
    return False


@contextlib.contextmanager
def draft_of(entry: Path) -> Iterator[Path]:
    """A folder to be filled, which becomes the entry in one step. Entries of a month ago make room for it."""
    for old in cache_folder().iterdir():
        # another process may just have kept or removed a draft of its own
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.lstat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=cache_folder()))
    draft.chmod(0o755)
    try:
        yield draft
        try:
            draft.rename(entry)
        except OSError:
            # another process was faster, unless the entry is still not there
            if not entry.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
