"""Processes that an emulator wrote down and did not live to stop. Found by number and start time, never by name."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil

# how exactly the kernel's clock ticks let a start time be told, in seconds
SAME_START = 0.05
POLITE_SECONDS = 5.0
LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Child:
    """A process group's leader: its number may be another's by the time it is looked for, its start time not."""

    name: str
    pid: int
    started: float

    @classmethod
    def of(cls, name: str, pid: int) -> Child:
        return cls(name, pid, psutil.Process(pid).create_time())

    def living(self) -> list[psutil.Process]:
        """The process itself and what lives on of the group it led; nothing if its number was given away again."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if process.pid == self.pid:
                    if abs(process.create_time() - self.started) > SAME_START:
                        return []
                    found.append(process)
                elif os.getpgid(process.pid) == self.pid and process.create_time() >= self.started - SAME_START:
                    found.append(process)
        return found


def end(children: Iterable[Child]) -> None:
    """End what still runs of these, first politely: a database is shut down, not crashed."""
    running = [process for child in children for process in child.living()]
    for process in running:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT)
    for process in wait_until_gone(running, POLITE_SECONDS):
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_until_gone(running, POLITE_SECONDS)


def wait_until_gone(processes: Iterable[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Wait for others' children, and return those that are still there. A zombie is gone: it holds nothing any more."""
    deadline = time.monotonic() + timeout_seconds
    remaining = list(processes)
    while (remaining := [process for process in remaining if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return remaining


def with_working_folder(folder: str) -> list[psutil.Process]:
    """Who works in this folder, as every process of a PostgreSQL server does in its data directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == folder:
                found.append(process)
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def from_json(entries: Iterable[dict[str, Any]]) -> list[Child]:
    return [Child(str(entry["name"]), int(entry["pid"]), float(entry["started"])) for entry in entries]
