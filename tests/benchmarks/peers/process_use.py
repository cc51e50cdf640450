"""CPU time and memory of processes with their children.

Memory is what a family of processes holds in pages, each page once, whoever else on the machine has it mapped as well:

- Anonymous pages are shared by a fork only, thus within the family. The kernel divides each by the number of processes
  that map it (`Pss_Anon`), so that the family's sum has each once.
- Pages of files are shared with anybody who has the same library or binary open, even with the process that measures.
  So the kernel's division would charge a contender less because another one runs beside it. They are counted in full,
  and of each file once: as much as the one has in memory who has most of it.

A family of one holds what `VmRSS` says. A larger one is looked at twice a second. Its peak is the high-water mark
of the largest member (`VmHWM`, which misses no moment) and the most that the others were seen to hold beside it. Both
need not have been at the same moment, so the peak is not too small by that; for a family of one it is exact.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from .figures import ProcessUse

KILOBYTES_PER_MEGABYTE = 1024
LOOK_SECONDS = 0.5
# Who is in the family, and which files are in memory, changes little once a program has started.
THOROUGH_SECONDS = 2.0

_FIELD = re.compile(rb"^(Rss|Pss_Anon|VmHWM):\s+(\d+) kB$", re.MULTILINE)
# A mapping's device and inode, and its sizes further down.
_MAPPING = re.compile(
    rb"^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ (\S+ \d+) [^\n]*\n"
    rb"(?:[^\n]*\n)*?Rss: +(\d+) kB\n(?:[^\n]*\n)*?Anonymous: +(\d+) kB$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Resident:
    """What one process has in memory, in kB.

    Args:
        total: all of it.
        own: its share of anonymous pages.
    """

    total: int
    own: int


def read_resident(rollup: bytes) -> Resident:
    """From `/proc/PID/smaps_rollup`."""
    fields = {name: int(kilobytes) for name, kilobytes in _FIELD.findall(rollup)}
    return Resident(fields.get(b"Rss", 0), fields.get(b"Pss_Anon", 0))


def read_files(smaps: bytes) -> dict[bytes, int]:
    """The kB of each file and of each piece of shared memory, by device and inode, from `/proc/PID/smaps`."""
    files: defaultdict[bytes, int] = defaultdict(int)
    for file, resident, anonymous in _MAPPING.findall(smaps):
        # anonymous memory has no inode; shared memory has one
        if not file.endswith(b" 0"):
            files[file] += int(resident) - int(anonymous)
    return files


def family_kilobytes(residents: Iterable[Resident], files: Iterable[Mapping[bytes, int]]) -> int:
    """What a family of several holds, each page once."""
    most: defaultdict[bytes, int] = defaultdict(int)
    for member in files:
        for file, kilobytes in member.items():
            most[file] = max(most[file], kilobytes)
    return sum(resident.own for resident in residents) + sum(most.values())


class FamilyMemory:
    """Watches a process and its children.

    Args:
        pid: the eldest.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._beside_largest = 0
        self._files: dict[int, dict[bytes, int]] = {}

    def look(self, *, thorough: bool) -> None:
        """Looks once.

        Args:
            thorough: also at who is in the family and at files; else as they were.
        """
        if thorough:
            pids = [process.pid for process in family(self._pid)]
            # one alone is known by its high-water mark
            self._files = {pid: read_files(_read(pid, "smaps")) for pid in pids} if len(pids) > 1 else {}
        if not self._files:
            return
        residents = [read_resident(_read(pid, "smaps_rollup")) for pid in self._files]
        whole = family_kilobytes(residents, self._files.values())
        self._beside_largest = max(self._beside_largest, whole - max(resident.total for resident in residents))

    def read(self) -> tuple[float, float]:
        """The peak of all, and that of the largest alone, in megabytes; the processes must still be there."""
        self.look(thorough=True)
        largest = max(_high_water_kilobytes(process.pid) for process in family(self._pid))
        return (largest + self._beside_largest) / KILOBYTES_PER_MEGABYTE, largest / KILOBYTES_PER_MEGABYTE


class ProcessMeter:
    """Reads what processes used, from the beginning of a `with` block on.

    Args:
        pids: by name; each counts with all of its children.
        watched: the name of the one whose memory is looked at all the time; the others' is when it is read.
    """

    def __init__(self, pids: Mapping[str, int], *, watched: str | None = None) -> None:
        self._pids = dict(pids)
        self._watched = watched
        self._memory = {name: FamilyMemory(pid) for name, pid in pids.items()}
        self._before: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        if self._watched is not None:
            self._thread = threading.Thread(target=self._watch, args=(self._memory[self._watched],), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_watching()

    def read(self) -> dict[str, ProcessUse]:
        """Up to now; the processes must still be there."""
        cpu = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}
        self._stop_watching()
        return {name: ProcessUse(cpu[name], *memory.read()) for name, memory in self._memory.items()}

    def _watch(self, memory: FamilyMemory) -> None:
        looks = 0
        while not self._ended.wait(LOOK_SECONDS):
            # what ended meanwhile is no more to be looked at
            with contextlib.suppress(psutil.NoSuchProcess):
                memory.look(thorough=looks % round(THOROUGH_SECONDS / LOOK_SECONDS) == 0)
            looks += 1

    def _stop_watching(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living children, and those that it has waited for."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _high_water_kilobytes(pid: int) -> int:
    return next((int(kilobytes) for name, kilobytes in _FIELD.findall(_read(pid, "status")) if name == b"VmHWM"), 0)


def _read(pid: int, name: str) -> bytes:
    """A file of `/proc`; nothing where the process is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
