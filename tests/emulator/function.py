"""The function under functions-framework, staged as it is deployed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from .data_dir import DataDir
from .errors import EmulatorError
from .ports import LOCALHOST, free_port
from .processes import ChildProcess, http_status
from .staging import ROOT, TARGET, stage
from .supervisor import Supervisor

READY = 200


class FunctionProcess:
    """One instance of the function on a fixed port, started again when it dies unless told otherwise.

    `pid` is the current process; the worker that serves the requests is its child and ends with it. `python` may be
    that of another environment.
    """

    def __init__(
        self,
        data_dir: DataDir,
        env: Mapping[str, str],
        *,
        port: int | None = None,
        root: Path = ROOT,
        name: str = "function",
        restart: bool = True,
        python: str | Path = sys.executable,
    ) -> None:
        self.port = port or free_port()
        self.name = name
        self.env = dict(env)
        self.log_path = data_dir.log_path(name)
        self.supervisor: Supervisor | None = None
        self._restart = restart
        self.root = root
        self._staged = data_dir.path / f"{name}-staged"
        self._process = ChildProcess(
            name,
            [
                *(python, "-m", "functions_framework", "--target", TARGET, "--asgi"),
                *("--source", self._staged / "main.py", "--host", LOCALHOST, "--port", str(self.port)),
            ],
            data_dir=data_dir,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._staged), **env},
            cwd=self._staged,
        )

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.alive

    @property
    def restarts(self) -> int:
        return self.supervisor.restarts if self.supervisor else 0

    async def start(self) -> None:
        """Stage, start, and return once GET /health answers 200."""
        self.stage()
        await self.spawn()
        await self.until_ready()

    def stage(self) -> None:
        """Copy what is deployed to where it is started."""
        stage(self._staged, self.root)

    async def spawn(self) -> None:
        """Start the process, which is staged already, and return at once."""
        await self._process.start()
        if self._restart:
            self.supervisor = Supervisor(self._process)

    async def until_ready(self, timeout_seconds: float = 30) -> None:
        """Wait until it serves, also across a death and a new start."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while await http_status(self.port, "/health") != READY:
                    if self.supervisor is not None and self.supervisor.gave_up.done():
                        await self.supervisor.gave_up
                    if self.supervisor is None and not self.alive:
                        raise EmulatorError(f"{self.name} ended; its log says:\n{self.log_tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise EmulatorError(
                f"{self.name} did not answer GET /health with 200 within {timeout_seconds:g} s; "
                f"its log says:\n{self.log_tail()}"
            ) from error

    def log_tail(self) -> str:
        return self._process.log_tail()

    async def stop(self) -> None:
        """End it for good, at once: it holds nothing that is not in the database, and gunicorn takes a second to go."""
        if self.supervisor is not None:
            await self.supervisor.stop()
        if self.alive:
            await self._process.kill()

    async def kill(self) -> None:
        """Kill the instance with its worker, mid-work or not."""
        await self._process.kill()
