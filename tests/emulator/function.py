"""The function under functions-framework, started again when it dies, as a serverless platform would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from .data_dir import DataDir
from .errors import EmulatorError
from .processes import LOCALHOST, ChildProcess, free_port, http_status
from .staging import ROOT, TARGET, stage

# an instance that dies sooner than this died of its start, not of its work
QUICK_SECONDS = 5.0
QUICK_DEATHS = 3
BACK_OFF_SECONDS = 0.2
READY = 200


class FunctionProcess:
    """One instance of the function on a fixed port. `pid` is the current process; its workers are in its group."""

    def __init__(
        self,
        data_dir: DataDir,
        env: Mapping[str, str],
        *,
        port: int | None = None,
        root: Path = ROOT,
        name: str = "function",
        restart: bool = True,
    ) -> None:
        self.port = port or free_port()
        self.name = name
        self.restarts = 0
        self.log_path = data_dir.log_path(name)
        self.gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._data_dir = data_dir
        self._env = dict(env)
        self._root = root
        self._restart = restart
        self._process: ChildProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    async def start(self) -> None:
        """Stage, start, and return once GET /health answers 200."""
        source = stage(self._data_dir.path / f"{self.name}-staged", self._root)
        self._process = ChildProcess(
            self.name,
            [
                *(sys.executable, "-m", "functions_framework", "--target", TARGET, "--source", source, "--asgi"),
                *("--host", LOCALHOST, "--port", str(self.port)),
            ],
            data_dir=self._data_dir,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(source.parent), **self._env},
            cwd=source.parent,
        )
        await self._process.start()
        if self._restart:
            self._supervisor = asyncio.create_task(self._supervise(self._process), name=f"supervise {self.name}")
        await self.until_ready()

    async def until_ready(self, timeout_seconds: float = 30) -> None:
        """Wait until it serves, also across a death and a new start."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while await http_status(self.port, "/health") != READY:
                    if self.gave_up.done():
                        await self.gave_up
                    if not self._restart and not self.alive:
                        raise EmulatorError(f"{self.name} ended; its log says:\n{self._log_tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise EmulatorError(
                f"{self.name} did not answer GET /health with 200 within {timeout_seconds:g} s; "
                f"its log says:\n{self._log_tail()}"
            ) from error

    async def stop(self) -> None:
        await self._end_supervision()
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """Kill the instance with its workers, mid-work or not. A supervised one is started again at once."""
        if self._process is not None:
            await self._process.kill()

    async def _supervise(self, process: ChildProcess) -> None:
        quick_deaths = 0
        while True:
            started = time.monotonic()
            await process.wait()
            quick_deaths = quick_deaths + 1 if time.monotonic() - started < QUICK_SECONDS else 0
            if quick_deaths >= QUICK_DEATHS:
                self._give_up(process)
                return
            if quick_deaths:
                await asyncio.sleep(BACK_OFF_SECONDS * (quick_deaths - 1))
            await process.start()
            self.restarts += 1

    def _give_up(self, process: ChildProcess) -> None:
        """Fail whoever waits for it now or later, with the reason."""
        self.gave_up.set_exception(
            EmulatorError(
                f"{self.name} died {QUICK_DEATHS} times at its start, last with code {process.returncode}; "
                f"its log says:\n{process.log_tail()}"
            )
        )
        # nobody may be waiting, which is no reason for a warning
        self.gave_up.exception()

    async def _end_supervision(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None

    def _log_tail(self) -> str:
        return self._process.log_tail() if self._process else ""
