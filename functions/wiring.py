"""How a route gets at what it works with: `create_app` puts it into the application's state, once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from functions.last_run import LastGoodRun
from functions.work import Work


async def _work(request: Request) -> Work:
    work: Work = request.app.state.connect()
    return work


async def _last_good_run(request: Request) -> LastGoodRun:
    found: LastGoodRun = request.app.state.last_good_run
    return found


Connected = Annotated[Work, Depends(_work)]
CachedLastGoodRun = Annotated[LastGoodRun, Depends(_last_good_run)]
