"""Functions forked from a process that has imported their packages: for tests, which start one after the other.

Packages alone are shared. Our own modules are imported anew, from the staged folder and with the function's own
environment, and functions-framework runs as `python -m functions_framework` does.
"""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .processes import die_with_parent

OURS = ("functions", "shared", "tests")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["functions.http.app", "functions.runs.services", "functions_framework.aio", "functions_framework._http.gunicorn"]
)


class ForkedProcess:
    """A function's process, with what `ChildProcess` uses of asyncio's."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
        # Ended with this process, at the latest.
        self._process = CONTEXT.Process(target=_run, args=(arguments, env, cwd, log), daemon=True)
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        # In a thread: the first start waits until the packages are imported.
        await asyncio.to_thread(self._process.start)
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._set_ended)

    def _set_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._ended.set_result(self._process.exitcode or 0)

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


def _run(arguments: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
    os.setsid()
    die_with_parent(signal.SIGTERM, os.getppid())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, file, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        opened = os.open(file, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(cwd), *(path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix)))]
    sys.argv[1:] = arguments
    try:
        runpy.run_module("functions_framework", run_name="__main__", alter_sys=True)
    finally:
        # multiprocessing ends a process without.
        atexit._run_exitfuncs()
