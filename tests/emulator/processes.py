"""Child processes that cannot outlive the emulator."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from .account import Account
from .data_dir import DataDir
from .errors import EmulatorError
from .ports import LOCALHOST

PR_SET_PDEATHSIG = 1
LOG_TAIL_LINES = 12


class ChildProcess:
    """One child in a process group of its own, writing to a log file; known to the data directory while it lives."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        data_dir: DataDir,
        env: Mapping[str, str],
        cwd: Path | None = None,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        log_path: Path | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path or data_dir.log_path(name)
        self._argv = [str(part) for part in argv]
        self._data_dir = data_dir
        self._env = dict(env)
        self._cwd = cwd
        self._account = account or Account()
        self._stop_signal = stop_signal
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                env=self._env,
                cwd=self._cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # a Ctrl-C in the terminal is the emulator's to act on: it stops its children in order
                start_new_session=True,
                preexec_fn=_die_with_parent(self._stop_signal),
                **self._account.popen_options,
            )
        self._data_dir.remember(self.name, self._process.pid)

    async def wait(self) -> int:
        """Wait for the process to end by itself, clear away its group, and return its exit code."""
        process = self._started()
        code = await process.wait()
        self._end_group(process.pid)
        return code

    async def stop(self, timeout_seconds: float = 5) -> None:
        """Ask it to end, and make it end when it does not within the time."""
        if not self.alive:
            return
        process = self._started()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(process.wait(), timeout_seconds)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._end_group(process.pid)

    async def kill(self) -> None:
        """End the whole group at once, as a machine that disappears does."""
        process = self._started()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        self._end_group(process.pid)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._started().send_signal(number)

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def _end_group(self, pid: int) -> None:
        """End what the process `pid` started itself: it may still hold the port."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._data_dir.forget(pid)

    def log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join(lines[-LOG_TAIL_LINES:])

    async def until_ready(self, is_ready: Callable[[], Awaitable[bool]], timeout_seconds: float = 30) -> None:
        """Wait until it answers; say what its log says when it ends instead."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not await is_ready():
                    if not self.alive:
                        raise EmulatorError(
                            f"{self.name} ended with code {self.returncode}; its log says:\n{self.log_tail()}"
                        )
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise EmulatorError(
                f"{self.name} was not ready within {timeout_seconds:g} s; its log says:\n{self.log_tail()}"
            ) from error


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What the child runs before exec: have the kernel signal it when the emulator is gone, kill -9 included.

    subprocess calls it after the change of account, which would have cleared the setting. Linux only; elsewhere the
    data directory's list lets the next start end what is left.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # the parent may have ended between the fork and the line above
        if os.getppid() != parent:
            os._exit(1)

    return in_child


async def http_status(port: int, path: str) -> int | None:
    """The status that a GET is answered with, or None. Bare, since it is asked every few milliseconds."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(LOCALHOST, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {LOCALHOST}:{port}\r\nConnection: close\r\n\r\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
            return int(line.split()[1]) if line.startswith(b"HTTP/") else None
    except (OSError, TimeoutError, IndexError, ValueError):
        return None
