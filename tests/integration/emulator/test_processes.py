"""Child processes: ready or given up with a reason, started again, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.processes import ChildProcess
from tests.emulator.staging import ROOT

from .looking import until

SLEEP = ("sleep", "600")
# Does not end when the kernel says that its parent is gone, as where the kernel says no such thing.
OUTLIVES_ITS_PARENT = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("ready", flush=True)
time.sleep(600)
"""
KILLED_EMULATOR = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.emulator.data_dir import DataDir
from tests.emulator.processes import ChildProcess

async def main():
    data_dir = DataDir.kept(Path(sys.argv[1]))
    child = ChildProcess("child", [sys.executable, "-uc", sys.argv[2]], data_dir=data_dir, env={})
    await child.spawn()
    async def is_ready():
        return child.log_tail() == "ready"
    await child.until_ready(is_ready)
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.fixture
async def data_dir(tmp_path: Path) -> AsyncIterator[DataDir]:
    data_dir = DataDir.kept(tmp_path / "data")
    yield data_dir
    data_dir.close()


def child(data_dir: DataDir, *argv: str) -> ChildProcess:
    return ChildProcess("child", argv, data_dir=data_dir, env={"PATH": os.defpath})


async def never() -> bool:
    return False


async def gone(pid: int) -> bool:
    """A zombie that no parent has collected is gone, too."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def test_one_that_ends_at_its_start_is_an_error_with_the_end_of_its_log(data_dir: DataDir) -> None:
    process = child(data_dir, "sh", "-c", "seq 100; echo no configuration; exit 3")
    await process.spawn()
    with pytest.raises(EmulatorError, match=r"^child ended with code 3; its log says:\n90\n[\d\n]+no configuration$"):
        await process.until_ready(never)


async def test_one_that_never_answers_is_an_error(data_dir: DataDir) -> None:
    process = child(data_dir, *SLEEP)
    await process.spawn()
    with pytest.raises(EmulatorError, match=r"was not ready within 0\.05 s"):
        await process.until_ready(never, timeout_seconds=0.05)
    await process.stop()


async def test_one_that_is_killed_again_and_again_is_started_again_until_it_is_stopped(data_dir: DataDir) -> None:
    process = child(data_dir, *SLEEP)
    await process.start()
    process.keep_alive()
    for times in range(1, 6):
        await process.kill()

        async def restarted(times: int = times) -> bool:
            return process.restarts == times

        await until(restarted)
    assert process.alive
    await process.stop()
    assert not process.alive


async def test_one_that_dies_at_its_start_again_and_again_is_given_up(data_dir: DataDir) -> None:
    process = child(data_dir, "sh", "-c", "echo no configuration; exit 1")
    await process.spawn()
    process.keep_alive()
    with pytest.raises(EmulatorError, match=r"died 3 times at its start, last with code 1[\s\S]*no configuration"):
        await process.until_ready(never)


@pytest.mark.parametrize("end", [ChildProcess.stop, ChildProcess.kill, ChildProcess.wait])
async def test_what_it_started_ends_with_it(data_dir: DataDir, end: object) -> None:
    process = child(data_dir, "sh", "-c", "sleep 600 & echo $!; " + ("wait" if end is not ChildProcess.wait else ""))
    await process.spawn()
    await end(process)  # type: ignore[operator]
    for pid in process.log_tail().split():
        await until(partial(gone, int(pid)))


async def test_one_that_does_not_end_when_asked_is_killed(data_dir: DataDir) -> None:
    process = child(data_dir, sys.executable, "-uc", OUTLIVES_ITS_PARENT)

    async def is_ready() -> bool:
        return process.log_tail() == "ready"

    await process.spawn()
    await process.until_ready(is_ready)
    await process.stop(timeout_seconds=0.05)
    assert not process.alive


async def test_one_that_outlived_a_killed_emulator_is_ended_by_the_next_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "data"
    other = DataDir.kept(tmp_path / "other-data")
    bystander = child(other, *SLEEP)
    await bystander.start()
    emulator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED_EMULATOR, path, OUTLIVES_ITS_PARENT), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await emulator.communicate()
    assert emulator.returncode == -signal.SIGKILL
    assert not await gone(int(output))

    DataDir.kept(path).close()

    assert await gone(int(output))
    assert bystander.alive
    await bystander.stop()
    other.close()
