"""The function under functions-framework, staged as it is deployed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from .data_dir import DataDir
from .ports import LOCALHOST, free_port
from .processes import ChildProcess, http_status
from .staging import ROOT, TARGET, stage


class FunctionProcess(ChildProcess):
    """One instance of the function on a fixed port, started again when it dies, unless `restart` is false.

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
        # Without a slash at its end.
        self.url = f"http://{LOCALHOST}:{self.port}"
        self.env = dict(env)
        self.root = root
        self._restart = restart
        self._data_dir = data_dir
        self._staged = data_dir.path / f"staged-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
        super().__init__(
            name,
            [
                *(python, "-m", "functions_framework", "--target", TARGET, "--asgi"),
                *("--source", self._staged / "main.py", "--host", LOCALHOST, "--port", str(self.port)),
            ],
            data_dir=data_dir,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._staged), **env},
            cwd=self._staged,
        )

    async def start(self) -> None:
        """Stage, start, and return once GET /health answers 200."""
        self.stage()
        await super().start()

    def stage(self) -> None:
        """Copy what is deployed to where it is started."""
        _stage_once(self._data_dir, self._staged, self.root)

    async def spawn(self) -> None:
        """Start the process, which is staged already, and return at once."""
        await super().spawn()
        if self._restart and self.supervision is None:
            self.keep_alive()

    async def is_ready(self) -> bool:
        return await http_status(self.port, "/health") == 200

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The instance gets no CPU for as long as the block runs."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    async def stop(self, timeout_seconds: float = 0) -> None:
        """End it for good, at once: it holds nothing that is not in the database, and gunicorn takes a second to go."""
        await self.let_die()
        if self.alive:
            await self.kill()


@lru_cache
def _stage_once(data_dir: DataDir, target: Path, root: Path) -> None:
    """Once for all functions of a data directory that is open: hundreds of copies would cost a test run a minute."""
    stage(target, root)
