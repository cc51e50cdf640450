"""A data directory: whose it is, and what a killed emulator left behind there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path

from .errors import EmulatorError
from .stale_processes import end_stale_processes

MARKER = "emulator.json"
LOCK = "emulator.lock"
LOGS, EARLIER_LOGS = "logs", "logs-of-the-start-before"
TEMPORARY_PREFIX = "supabase-emulator-run-"
# Linux's; in a container it may be small.
MEMORY = Path("/dev/shm")  # noqa: S108  # what is made there is as private as in the folder for temporary files
ENOUGH_MEMORY_BYTES = 4 * 2**30


class DataDir:
    """One emulator's files. Locked while in use; the lock dies with the process."""

    def __init__(self, path: Path, *, temporary: bool) -> None:
        self.path = path
        self.temporary = temporary
        self._lock_file: int | None = None

    @classmethod
    def new_temporary(cls, *, in_memory: bool = False) -> DataDir:
        """Makes a folder that `close` removes; in memory, if there is room, cloning databases is twice as fast."""
        _remove_abandoned()
        has_room = os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH_MEMORY_BYTES
        parent = MEMORY if in_memory and has_room else None
        data_dir = cls(Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent)), temporary=True)
        data_dir._open()
        return data_dir

    @classmethod
    def kept(cls, path: Path) -> DataDir:
        """Opens the folder that the user named, made if it is not there. One with foreign files is refused."""
        path = path.expanduser().resolve()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            entries = {entry.name for entry in path.iterdir()}
        except OSError as error:
            raise EmulatorError(f"cannot use --data-dir {path}: {error.strerror}; name one you may write") from error
        if entries and MARKER not in entries:
            raise EmulatorError(f"--data-dir {path} holds files of something else: name an empty or a new folder")
        if not os.access(path, os.W_OK | os.X_OK):
            raise EmulatorError(f"--data-dir {path} is not writable: change its rights or name another folder")
        data_dir = cls(path, temporary=False)
        data_dir._open()
        return data_dir

    def _open(self) -> None:
        self._lock_file = _try_lock(self.path / LOCK)
        if self._lock_file is None:
            raise EmulatorError(f"--data-dir {self.path} is in use by a running emulator: stop it or name another")
        # PostgreSQL may run as another account, which has to get through; what is secret inside has its own mode
        self.path.chmod(0o711)
        marker = self.path / MARKER
        if not marker.exists():
            write_private(marker, json.dumps({"format": 1}))
        end_stale_processes(self.path)
        if (self.path / LOGS).exists():
            shutil.rmtree(self.path / EARLIER_LOGS, ignore_errors=True)
            (self.path / LOGS).rename(self.path / EARLIER_LOGS)

    def log_path(self, name: str) -> Path:
        return self.folder(LOGS) / f"{name}.log"

    def folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def close(self) -> None:
        """Unlocks the directory, and removes a temporary one."""
        if self._lock_file is None:
            return
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_file)
        self._lock_file = None


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, from its first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned() -> None:
    """Removes temporary data directories whose emulator is gone, together with the processes it left."""
    places = (Path(tempfile.gettempdir()), MEMORY)
    for path in (path for place in places for path in place.glob(f"{TEMPORARY_PREFIX}*")):
        # without a marker it may be one that is being made at this moment
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.geteuid() or not (path / MARKER).exists():
                continue
            lock = _try_lock(path / LOCK)
            if lock is None:
                continue
            try:
                end_stale_processes(path)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
