"""CPU time and memory of processes with their children.

Memory is what a family of processes holds in pages, each page once, whatever else on the machine has it mapped as well:

- Anonymous pages and shared memory are shared within the family only. The kernel divides each page by the number of
  processes that map it (`Pss_Anon`, `Pss_Shmem`), so that the family's sum has each once.
- Pages of files are shared with every process that has the same library or binary open, even with the one that
  measures. So the kernel's division would charge a contender less because another one runs beside it. They are counted
  in full, as many as that member has in memory that has most of them (`RssFile`): a family runs one program.

A family's peak is the high-water mark of the largest member (`VmHWM`, which misses no moment) and the most that the
others were seen to hold beside it, twice a second. Both need not have been at the same moment, so the peak is not too
small by that; for a family of one it is exact.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

from .figures import ProcessUse

LOOK_SECONDS = 0.5

_FIELD = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)


class FamilyMemory:
    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._largest = 0
        self._beside_largest = 0

    def look(self) -> None:
        members = [fields for process in family(self._pid) if "Pss_Anon" in (fields := _read(process.pid))]
        if members:
            own = sum(fields["Pss_Anon"] + fields["Pss_Shmem"] for fields in members)
            whole = own + max(fields["RssFile"] for fields in members)
            self._largest = max(self._largest, *(fields["VmHWM"] for fields in members))
            if len(members) > 1:
                self._beside_largest = max(self._beside_largest, whole - max(fields["Rss"] for fields in members))

    def read(self) -> tuple[float, float]:
        """The peak of all, and that of the largest alone, in megabytes; the processes must still be there."""
        self.look()
        return (self._largest + self._beside_largest) / 1024, self._largest / 1024


class ProcessMeter:
    """Reads the use of processes since a `with` block began, the memory of the `watched` one all the time."""

    def __init__(self, pids: Mapping[str, int], *, watched: str | None = None) -> None:
        self._pids = dict(pids)
        self._memory = {name: FamilyMemory(pid) for name, pid in pids.items()}
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        self._watched = [self._memory[watched]] if watched is not None else []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def read(self) -> dict[str, ProcessUse]:
        """Up to now; the processes must still be there."""
        cpu = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}
        self.__exit__()
        return {name: ProcessUse(cpu[name], *memory.read()) for name, memory in self._memory.items()}

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            for memory in self._watched:
                # a process that ended meanwhile is not read any more
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory.look()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living children, and those that it has waited for."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _read(pid: int) -> dict[str, int]:
    """Kilobytes by name; nothing where the process is gone."""
    try:
        texts = [Path(f"/proc/{pid}/{name}").read_text() for name in ("status", "smaps_rollup")]
    except OSError:
        return {}
    return {name: int(kilobytes) for text in texts for name, kilobytes in _FIELD.findall(text)}
