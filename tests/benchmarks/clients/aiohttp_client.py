"""The engine's HTTP client with aiohttp, the other candidate; it does not translate errors or limit bodies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from shared.post_client import HttpResponse


class AiohttpClient:
    """A `PostClient`; see `Connect`. One event loop uses it."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> None:
        self._url = URL(url)
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._connect_seconds = connect_seconds

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            # Looked up once: with trust_env aiohttp does so for every request, which doubles what a call costs.
            proxy=None if proxy_bypass(self._url.host or "") else getproxies().get(self._url.scheme),
        )

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._connect_seconds)
        async with self._session.post(
            self._url, data=content, headers=headers, allow_redirects=False, timeout=timeout
        ) as response:
            return HttpResponse(response.status, response.headers, await response.read())

    async def close(self) -> None:
        await self._session.close()
