"""The reference trigger engine as a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from .data_dir import DataDir
from .ports import LOCALHOST, free_port
from .processes import ChildProcess, http_status
from .staging import ROOT

READY = 200


class EngineProcess:
    """`python -m tests.emulator.reference_engine`, ready when GET /health answers 200."""

    def __init__(
        self, data_dir: DataDir, env: Mapping[str, str], *, port: int | None = None, name: str = "engine"
    ) -> None:
        self.port = port or free_port()
        self.process = ChildProcess(
            name,
            [sys.executable, "-m", "tests.emulator.reference_engine", "--host", LOCALHOST, "--port", str(self.port)],
            data_dir=data_dir,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data_dir.path), **env},
            cwd=ROOT,
        )

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    async def start(self) -> None:
        await self.process.start()
        await self.until_ready()

    async def until_ready(self) -> None:
        await self.process.until_ready(self._is_ready)

    async def stop(self) -> None:
        await self.process.stop()

    async def kill(self) -> None:
        await self.process.kill()

    async def _is_ready(self) -> bool:
        return await http_status(self.port, "/health") == READY
