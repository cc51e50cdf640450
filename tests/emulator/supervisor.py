"""Starts what died again, as a platform would, until it is plain that it cannot start."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from .errors import EmulatorError
from .processes import ChildProcess

# a process that dies sooner than this died of its start, not of its work
QUICK_SECONDS = 5.0
QUICK_DEATHS = 3
BACK_OFF_SECONDS = 0.2


class Supervisor:
    """Watches one running process. `gave_up` fails with the reason once it died at its start again and again."""

    def __init__(self, process: ChildProcess, start_again: Callable[[], Awaitable[None]] | None = None) -> None:
        self.restarts = 0
        self.gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process = process
        self._start_again = start_again or process.start
        self._task = asyncio.create_task(self._watch(), name=f"supervise {process.name}")

    async def stop(self) -> None:
        """Let it die from now on."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        quick_deaths = 0
        while True:
            started = time.monotonic()
            code = await self._process.wait()
            # who was told to go, or killed, did not die of its start, however often
            is_quick = code > 0 and time.monotonic() - started < QUICK_SECONDS
            quick_deaths = quick_deaths + 1 if is_quick else 0
            if quick_deaths >= QUICK_DEATHS:
                self._give_up(f"died {QUICK_DEATHS} times at its start, last with code {code}")
                return
            if quick_deaths:
                await asyncio.sleep(BACK_OFF_SECONDS * (quick_deaths - 1))
            try:
                await self._start_again()
            except (EmulatorError, OSError) as error:
                self._give_up(f"could not be started again ({error})")
                return
            self.restarts += 1

    def _give_up(self, reason: str) -> None:
        message = f"{self._process.name} {reason}; its log says:\n{self._process.log_tail()}"
        self.gave_up.set_exception(EmulatorError(message))
        # nobody may be waiting for it, which is no reason for a warning
        self.gave_up.exception()
