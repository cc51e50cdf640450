"""An engine that asks everybody to come back later, and notes who does not."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from math import ceil
from typing import Literal

from tests.scripted_engine import Call, Proceed, Reply

Form = Literal["seconds", "date"]


class AsksForPatience:
    """A rule: waits for the first `calls` to be there together, and turns them away until a time that it says.

    Whoever was told so knows when to come back; so no call that comes earlier was on its way already.

    Args:
        calls: how many are turned away; as many as can be in flight at a time.
        seconds: how long it asks them to wait, at least.
        form: of the Retry-After header.
        status: of the answer.
    """

    def __init__(self, calls: int, seconds: float, form: Form = "seconds", *, status: int = 503) -> None:
        self.turned_away = 0
        self.too_early: list[int] = []
        self._calls = calls
        self._seconds = ceil(seconds)
        self._form = form
        self._status = status
        self._all_there = asyncio.Event()
        self._welcome_at = 0.0

    async def __call__(self, call: Call, proceed: Proceed) -> Reply:
        if self.turned_away < self._calls:
            self.turned_away += 1
            if self.turned_away == self._calls:
                # A date says whole seconds.
                self._welcome_at = (
                    ceil(time.time()) + self._seconds if self._form == "date" else time.time() + self._seconds
                )
                self._all_there.set()
            await self._all_there.wait()
            return Reply(self._status, headers={"retry-after": self._header()}, body=b"{}")
        if time.time() < self._welcome_at:
            self.too_early.append(call.number)
        return await proceed(call)

    def _header(self) -> str:
        if self._form == "seconds":
            return str(self._seconds)
        return format_datetime(datetime.fromtimestamp(self._welcome_at, UTC), usegmt=True)
