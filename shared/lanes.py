"""Runs many steps with few tasks: as many as may be under way, each taking the next step when it is through with one.

A task for each step, and a place in a queue for each task, would cost a call to the engine a quarter of its time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context

# For every lane, how many steps should wait while there is more work elsewhere: to fetch it takes about as long as some
# calls to a fast engine.
RESERVE = 3

Step = Callable[[], Awaitable[None]]


class _Errand:
    """Steps that were asked for together."""

    def __init__(self, steps: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lanes: set[asyncio.Task[None]] = set()
        self.context = copy_context()
        self._left = steps

    def step_ended(self, error: BaseException | None) -> None:
        self._left -= 1
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif not self._left:
            self.done.set_result(None)


class Lanes:
    """First come, first served, whoever asks.

    Args:
        width: steps that are under way at a time, at most.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._reserve = RESERVE * width
        self._waiting: deque[tuple[_Errand, Step]] = deque()
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_short = asyncio.Event()
        self._is_short.set()

    async def until_short(self) -> int:
        """Waits until more steps would be welcome, and tells how many: more than that would only wait."""
        await self._is_short.wait()
        return self._reserve - len(self._waiting)

    async def run(self, steps: Sequence[Step]) -> None:
        """Runs the steps and returns when all are through.

        The first that fails stops the others, and its own error is raised. Each runs in the context of who asked.
        """
        if not steps:
            return
        errand = _Errand(len(steps))
        self._waiting.extend((errand, step) for step in steps)
        self._open_lanes()
        self._tell_whether_short()
        try:
            await errand.done
        except BaseException:
            errand.done.cancel()
            self._waiting = deque(waiting for waiting in self._waiting if waiting[0] is not errand)
            self._tell_whether_short()
            lanes = tuple(errand.lanes)
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            self._open_lanes()
            raise

    def _tell_whether_short(self) -> None:
        if len(self._waiting) < self._reserve:
            self._is_short.set()
        else:
            self._is_short.clear()

    def _open_lanes(self) -> None:
        for _ in range(min(self._width - self._open, len(self._waiting))):
            self._open += 1
            lane = asyncio.create_task(self._lane())
            # The event loop itself holds its tasks weakly.
            self._tasks.add(lane)
            lane.add_done_callback(self._tasks.discard)

    async def _lane(self) -> None:
        try:
            await self._work_off()
        finally:
            # Here, not when the task is done: until then nobody would open another lane for what has come meanwhile.
            self._open -= 1

    async def _work_off(self) -> None:
        lane = asyncio.current_task()
        assert lane is not None  # noqa: S101  # it runs in one
        context: Context | None = None
        while self._waiting:
            errand, step = self._waiting.popleft()
            if len(self._waiting) < self._reserve:
                self._is_short.set()
            if errand.done.done():
                continue  # it has failed, and whoever asked has not yet had the time to take its other steps back
            if errand.context is not context:
                context = errand.context
                for variable, value in context.items():
                    variable.set(value)
            errand.lanes.add(lane)
            error: BaseException | None = None
            try:
                await step()
            except asyncio.CancelledError as cancelled:
                error = cancelled
                raise
            except Exception as failure:  # whoever asked for it is told
                error = failure
            finally:
                errand.lanes.discard(lane)
                errand.step_ended(error)
