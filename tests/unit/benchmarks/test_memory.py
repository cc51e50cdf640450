"""A family of processes holds each page once."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.peers.process_use import (
    FamilyMemory,
    ProcessMeter,
    Resident,
    family_kilobytes,
    read_files,
    read_resident,
)

ROLLUP = b"""\
55d0-7fff ---p 00000000 00:00 0                          [rollup]
Rss:               71156 kB
Pss:               51000 kB
Pss_Anon:          33744 kB
Pss_File:           9000 kB
Pss_Shmem:             0 kB
Anonymous:         53012 kB
"""
SMAPS = b"""\
55d0-55d8 r--p 00000000 fe:00 260386                     /usr/bin/program
Size:                  8 kB
Rss:                   8 kB
Pss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
55d8-55e0 rw-p 00008000 fe:00 260386                     /usr/bin/program
Size:                  8 kB
Rss:                   8 kB
Pss:                   8 kB
Anonymous:             4 kB
VmFlags: rd wr mr mw me ac sd
7f00-7f10 rw-p 00000000 00:00 0
Rss:                 100 kB
Anonymous:           100 kB
7f10-7f20 r--p 00000000 fe:00 77                         /usr/lib/a library (deleted)
Rss:                  40 kB
Anonymous:             0 kB
"""
# Has 64 MB, forks a child that shares them, says so, and waits to be told to end.
FAMILY = """
import os, sys
ballast = bytearray(os.urandom(1)) * (64 * 2**20)
child = os.fork()
if child == 0:
    sys.stdin.read()
else:
    print("ready", flush=True)
    os.waitpid(child, 0)
"""


def test_what_a_process_has_is_read() -> None:
    assert read_resident(ROLLUP) == Resident(total=71156, own=33744)
    assert read_resident(b"") == Resident(0, 0)


def test_files_are_counted_without_what_was_written_to_in_private() -> None:
    assert read_files(SMAPS) == {b"fe:00 260386": 12, b"fe:00 77": 40}


def test_a_family_has_a_file_once_and_its_shares_of_the_rest() -> None:
    members = [{b"python": 30, b"library": 5}, {b"python": 20, b"another": 1}]
    assert family_kilobytes([Resident(100, 40), Resident(90, 50)], members) == 40 + 50 + 30 + 5 + 1


def test_pages_that_a_fork_shares_count_once() -> None:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        peak, largest = FamilyMemory(parent.pid).read()
        parent.communicate()
    assert 64 < largest < peak < 96


def test_a_meter_counts_from_where_it_was_started() -> None:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        with ProcessMeter({"it": parent.pid}, watched="it") as meter:
            use = meter.read()["it"]
        parent.communicate()
    assert use.cpu_seconds == 0
    assert 64 < use.largest_megabytes < use.peak_megabytes
