"""The engine's HTTP client with plain httpx and its own pool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property

import httpx

from shared.post_client import HttpAnswer, HttpBodyError, HttpError, HttpTimeoutError


class HttpxClient:
    """A `PostClient`; see `Connect`. One event loop uses it."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> None:
        self._url = httpx.URL(url)
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._connect_seconds = connect_seconds

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(None, connect=self._connect_seconds),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4),
        )

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._client.stream("POST", self._url, content=content, headers=headers) as response,
            ):
                body = b""
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > max_bytes:
                        too_long = HttpBodyError(f"the body is longer than {max_bytes} bytes")
                        return HttpAnswer(response.status_code, response.headers, unreadable=too_long)
                return HttpAnswer(response.status_code, response.headers, body)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise HttpTimeoutError(self._connect_seconds if isinstance(error, httpx.ConnectTimeout) else None) from None
        except httpx.HTTPError as error:
            raise HttpError(f"{type(error).__name__}: {error}") from None

    async def close(self) -> None:
        await self._client.aclose()
