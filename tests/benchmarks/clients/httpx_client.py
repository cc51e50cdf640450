"""httpx with its own pool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from shared.post_client import HttpAnswer, HttpBodyError, HttpError, HttpTimeoutError

IDLE_SECONDS = 4.0


class HttpxClient:
    """A `PostClient`; see `Connect`."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> None:
        self._url = httpx.URL(url)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS)
        self._client = httpx.AsyncClient(
            headers={**headers, "Accept-Encoding": "identity"},
            limits=limits,
            timeout=httpx.Timeout(None, connect=connect_seconds),
        )

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        """See `PostClient`."""
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._client.stream("POST", self._url, content=content, headers=headers) as response,
            ):
                return await _read(response, max_bytes)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise HttpTimeoutError(is_connecting=isinstance(error, httpx.ConnectTimeout)) from None
        except httpx.TransportError as error:
            raise HttpError(type(error).__name__) from None


async def _read(response: httpx.Response, max_bytes: int) -> HttpAnswer:
    body = bytearray()
    try:
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > max_bytes:
                return HttpAnswer(response.status_code, response.headers, unreadable=HttpBodyError("too long"))
    except httpx.DecodingError as error:
        return HttpAnswer(response.status_code, response.headers, unreadable=HttpBodyError(type(error).__name__))
    return HttpAnswer(response.status_code, response.headers, bytes(body))
