"""The function under functions-framework, staged as it is deployed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from .data_dir import DataDir
from .forked import ForkedProcess
from .ports import LOCALHOST, free_port
from .processes import ChildProcess
from .staging import ROOT, TARGET, stage


class FunctionProcess(ChildProcess):
    """One instance of the function on a fixed port; its worker, which serves the requests, is a child of `pid`."""

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
        forked: bool = False,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{LOCALHOST}:{self.port}"
        self.env = dict(env)
        self.root = root
        self._restart = restart
        self._data_dir = data_dir
        self._staged = data_dir.path / f"staged-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
        # a forked process has loaded its libraries
        self._forked = forked and "LD_PRELOAD" not in env
        self._arguments = [
            *("--target", TARGET, "--asgi", "--source", str(self._staged / "main.py")),
            *("--host", LOCALHOST, "--port", str(self.port)),
        ]
        super().__init__(
            name,
            [python, "-m", "functions_framework", *self._arguments],
            data_dir=data_dir,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._staged), **env},
            cwd=self._staged,
            health=(self.port, "/health"),
        )

    async def start(self) -> None:
        _stage_once(self._data_dir, self._staged, self.root)
        await super().start()

    async def spawn(self) -> None:
        if self._forked:
            self._process = process = ForkedProcess(self._arguments, self._env, self._staged, self.log_path)
            await process.start()
        else:
            await super().spawn()
        if self._restart and self.supervision is None:
            self.keep_alive()

    async def stop(self, timeout_seconds: float = 0) -> None:
        """Ends it for good, at once: it keeps no state, and gunicorn takes a second to stop."""
        await self.let_die()
        if self.alive:
            await self.kill()


@lru_cache
def _stage_once(data_dir: DataDir, target: Path, root: Path) -> None:
    """Stages once for all functions of a data directory: hundreds of copies would cost a test run a minute."""
    stage(target, root)
