"""CPU time and memory of processes with their children."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

from .figures import ProcessUse


class ProcessMeter:
    """Reads what processes used.

    Args:
        pids: by name; each counts with all of its children.
        before: CPU seconds of each that do not count.
    """

    def __init__(self, pids: Mapping[str, int], before: Mapping[str, float]) -> None:
        self._pids = pids
        self._before = before

    @classmethod
    def start(cls, pids: Mapping[str, int]) -> Self:
        """From now on."""
        return cls(pids, {name: cpu_seconds(pid) for name, pid in pids.items()})

    @classmethod
    def from_start(cls, pids: Mapping[str, int]) -> Self:
        """All that the processes ever used."""
        return cls(pids, dict.fromkeys(pids, 0.0))

    def read(self) -> dict[str, ProcessUse]:
        """Up to now; the processes must still be there."""
        return {
            name: ProcessUse(cpu_seconds(pid) - self._before[name], peak_megabytes(pid))
            for name, pid in self._pids.items()
        }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living children, and those that it has waited for."""
    total = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_megabytes(pid: int) -> float:
    """The sum of the high-water marks; pages that processes share count for each of them."""
    total = 0.0
    for process in _family(pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
            total += next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return total


def _family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
