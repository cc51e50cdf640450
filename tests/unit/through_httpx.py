"""Posts through any httpx transport, so that respx and httpx's MockTransport can stand at the engine's border."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from shared.http_connection import HttpAnswer


class ThroughHttpx:
    """A `PostTransport`.

    Args:
        transport: where the requests go.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def post(
        self, url: str, *, headers: Mapping[str, str], content: bytes, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        request = httpx.Request(
            "POST",
            url,
            headers=headers,
            content=content,
            extensions={"timeout": httpx.Timeout(timeout_seconds).as_dict(), "max_response_bytes": max_bytes},
        )
        response = await self._transport.handle_async_request(request)
        return HttpAnswer(response.status_code, await response.aread(), response.headers.raw)
