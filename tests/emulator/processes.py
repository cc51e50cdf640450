"""Child processes that cannot outlive the emulator, and that are restarted when they exit."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

from .account import Account
from .data_dir import DataDir
from .errors import EmulatorError
from .ports import LOCALHOST
from .stale_processes import MARK

PRCTL = ctypes.CDLL(None, use_errno=True).prctl
PR_SET_PDEATHSIG = 1
LOG_TAIL_LINES = 12
# A process that exits sooner than this failed to start.
QUICK_SECONDS = 5.0
QUICK_DEATHS = 3
BACK_OFF_SECONDS = 0.2


class Process(Protocol):
    """What is used of asyncio's."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def send_signal(self, signal: int, /) -> None: ...


class ChildProcess:
    """One child in a process group of its own, writing to a log file.

    `health`: a port and a path; it is ready when GET is answered with 200 there. Without, it is ready at once.
    """

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
        health: tuple[int, str] | None = None,
    ) -> None:
        self.name = name
        self.log_path = data_dir.log_path(name)
        # While it is kept alive. Ends with an EmulatorError where that cannot be done.
        self.supervision: asyncio.Task[NoReturn] | None = None
        self._argv = [str(part) for part in argv]
        self._env = {**env, MARK: str(data_dir.path)}
        self._cwd = cwd
        self._account = account or Account()
        self._stop_signal = stop_signal
        self._health = health
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        await self.spawn()
        await self.until_ready()

    async def spawn(self) -> None:
        """Starts it, and returns at once."""
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
                # after the change of account, which would have cleared the setting
                preexec_fn=partial(die_with_parent, self._stop_signal, os.getpid()),
                **self._account.popen_options,
            )

    async def is_ready(self) -> bool:
        return self._health is None or await http_status(*self._health) == 200

    async def until_ready(
        self, is_ready: Callable[[], Awaitable[bool]] | None = None, timeout_seconds: float = 30
    ) -> None:
        """Waits until it can be used, also across a new start; the error of a time-out ends with the process's log."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not await (is_ready or self.is_ready)():
                    if self.supervision is None and not self.alive:
                        raise self._failure(f"ended with code {self._started().returncode}")
                    if self.supervision is not None and self.supervision.done():
                        await self.supervision
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise self._failure(f"was not ready within {timeout_seconds:g} s") from error

    def keep_alive(self, start_again: Callable[[], Awaitable[None]] | None = None) -> None:
        """From now on starts it again when it dies, as a platform would, until it dies at each start."""
        self.supervision = asyncio.create_task(self._supervise(start_again or self.spawn))
        # the failure may have no reader, which is no reason for a warning
        self.supervision.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _supervise(self, start_again: Callable[[], Awaitable[None]]) -> NoReturn:
        quick_deaths = 0
        while True:
            started = time.monotonic()
            code = await self.wait()
            # a process that a signal ended did not die of its start, however often
            is_quick = code > 0 and time.monotonic() - started < QUICK_SECONDS
            quick_deaths = quick_deaths + 1 if is_quick else 0
            if quick_deaths >= QUICK_DEATHS:
                raise self._failure(f"died {QUICK_DEATHS} times at its start, last with code {code}")
            await asyncio.sleep(BACK_OFF_SECONDS * max(0, quick_deaths - 1))
            try:
                await start_again()
            except (EmulatorError, OSError) as error:
                raise self._failure(f"could not be started again ({error})") from error

    async def wait(self) -> int:
        """Waits for the process to end by itself, kills the rest of its group, and returns its exit code."""
        process = self._started()
        code = await process.wait()
        # what it started itself may still hold the port
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return code

    async def stop(self, timeout_seconds: float = 5) -> None:
        """Ends it for good, by its signal, and by SIGKILL when it does not end within the time."""
        await self.let_die()
        if self.alive:
            self.signal(self._stop_signal)
            try:
                await asyncio.wait_for(self.wait(), timeout_seconds)
            except TimeoutError:
                await self.kill()

    async def let_die(self) -> None:
        if self.supervision is not None:
            self.supervision.cancel()
            await asyncio.wait([self.supervision])
            self.supervision = None

    async def kill(self) -> None:
        """Ends the whole group at once, as a machine that disappears does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait()

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._started().send_signal(number)

    def log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _started(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def _failure(self, what: str) -> EmulatorError:
        return EmulatorError(f"{self.name} {what}; its log says:\n{self.log_tail()}")


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Has the kernel signal this process when its parent is gone, kill -9 included."""
    PRCTL(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    # the parent may have ended between the fork and the line above
    if os.getppid() != parent:
        os._exit(1)


async def http_status(port: int, path: str) -> int | None:
    """Returns the status of a GET, or None where nothing answers within two seconds."""

    def get() -> int | None:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(http.client.HTTPConnection(LOCALHOST, port, timeout=2)) as connection,
        ):
            connection.request("GET", path)
            return connection.getresponse().status
        return None

    return await asyncio.to_thread(get)
