"""A function that only imports what any function on this stack imports: the least that a cold start takes."""

from __future__ import annotations

import fastapi  # noqa: F401
import supabase  # noqa: F401
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response


async def answer(request: Request) -> Response:
    return PlainTextResponse("ok")
