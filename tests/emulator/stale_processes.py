"""Processes that a killed emulator left behind. Found by a variable in their environment, never by name or number."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

# Each child is started with it, and passes it on to its own children: the data directory that they belong to.
MARK = "EMULATOR_DATA_DIR"
POLITE_SECONDS = 5.0
LOOK_SECONDS = 0.01


def end_stale_processes(data_dir: Path) -> None:
    """Ends what still runs of this data directory, first by SIGINT: a database is shut down, not crashed."""
    running = _processes(lambda process: process.environ().get(MARK) == str(data_dir))
    for process in running:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT)
    for process in wait_until_gone(running, POLITE_SECONDS):
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_until_gone(running, POLITE_SECONDS)


def with_working_folder(folder: str) -> list[psutil.Process]:
    """Returns the processes that work in this folder, as those of a PostgreSQL server do in its data directory."""
    return _processes(lambda process: process.cwd() == folder)


def wait_until_gone(processes: Iterable[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Waits for processes that are no children, and returns those that still run. A zombie holds nothing any more."""
    deadline = time.monotonic() + timeout_seconds
    remaining = list(processes)
    while (remaining := [process for process in remaining if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return remaining


def _processes(belongs: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if belongs(process):
                found.append(process)
    return found


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
