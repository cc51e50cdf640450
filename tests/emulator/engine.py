"""The reference trigger engine as a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from .data_dir import DataDir
from .ports import LOCALHOST, free_port
from .processes import ChildProcess, http_status
from .staging import ROOT


class EngineProcess(ChildProcess):
    """`python -m tests.emulator.reference_engine`, ready when GET /health answers 200."""

    def __init__(self, data_dir: DataDir, env: Mapping[str, str], *, name: str = "engine") -> None:
        self.port = free_port()
        self.url = f"http://{LOCALHOST}:{self.port}"
        super().__init__(
            name,
            [sys.executable, "-m", "tests.emulator.reference_engine", "--host", LOCALHOST, "--port", str(self.port)],
            data_dir=data_dir,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data_dir.path), **env},
            cwd=ROOT,
        )

    async def is_ready(self) -> bool:
        return await http_status(self.port, "/health") == 200
