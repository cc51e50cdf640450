"""An engine that asks its callers to come back later."""

from __future__ import annotations

import asyncio

from tests.scripted_engine import Call, Proceed, Reply


class AsksForPatience:
    """A rule: waits for the first `calls` to be there together, and turns them away for so many seconds.

    All know then when to come back, so no later call was on its way already.
    """

    def __init__(self, calls: int, seconds: int) -> None:
        self.turned_away = 0
        self._calls = calls
        self._seconds = seconds
        self._all_there = asyncio.Event()

    async def __call__(self, call: Call, proceed: Proceed) -> Reply:
        if self.turned_away == self._calls:
            return await proceed(call)
        self.turned_away += 1
        if self.turned_away == self._calls:
            self._all_there.set()
        await self._all_there.wait()
        return Reply(503, headers={"retry-after": str(self._seconds)}, body=b"{}")
