"""A function that does nothing: what functions-framework itself takes to start."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response


async def answer(request: Request) -> Response:
    """Serves."""
    return PlainTextResponse("ok")
