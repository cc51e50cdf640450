"""The engine's HTTP client with plain httpx and its own pool; it does not translate errors or limit bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property

import httpx

from shared.post_client import HttpResponse


class HttpxClient:
    """A `PostClient`; see `Connect`. One event loop uses it."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> None:
        self._url = httpx.URL(url)
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._timeout = httpx.Timeout(None, connect=connect_seconds)

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4)
        return httpx.AsyncClient(headers=self._headers, timeout=self._timeout, limits=limits)

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        async with asyncio.timeout(timeout_seconds):
            response = await self._client.post(self._url, content=content, headers=headers)
        return HttpResponse(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        await self._client.aclose()
