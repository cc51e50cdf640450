"""Keeps a poison batch alone in its process: a crash kills all requests of the process.

Normal work shares the process. A poison batch has it exclusively, so that its crash counts against no other batch. A
poison batch never waits for its turn: it stays in its queue, so it blocks no other work either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.deadline import Deadline
from shared.errors import DeadlineExceededError


class ProcessGate:
    def __init__(self) -> None:
        self._sharing = 0
        self._exclusive = asyncio.Lock()

    @asynccontextmanager
    async def shared(self, deadline: Deadline) -> AsyncIterator[None]:
        """Waits until no poison batch is in hand, and lets none begin until the block ends."""
        try:
            async with asyncio.timeout(deadline.remaining()), self._exclusive:
                self._sharing += 1
        except TimeoutError as error:
            raise DeadlineExceededError("the time budget ended while a poison batch had this process") from error
        try:
            yield
        finally:
            self._sharing -= 1

    @property
    def is_idle(self) -> bool:
        """Returns whether a poison batch may begin."""
        return not self._sharing and not self._exclusive.locked()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[bool]:
        """Yields whether the process is idle; if it is, nothing else begins until the block ends."""
        if not self.is_idle:
            yield False
            return
        async with self._exclusive:
            # A request that waited for the lock may have come first.
            yield not self._sharing
