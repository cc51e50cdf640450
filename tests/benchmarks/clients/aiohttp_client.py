"""The engine's HTTP client with aiohttp: the other candidate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from shared.post_client import HttpAnswer, HttpBodyError, HttpError, HttpTimeoutError


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
    ) -> HttpAnswer:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._connect_seconds)
        try:
            async with self._session.post(
                self._url, data=content, headers=headers, allow_redirects=False, timeout=timeout
            ) as response:
                body = b""
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > max_bytes:
                        response.close()
                        too_long = HttpBodyError(f"the body is longer than {max_bytes} bytes")
                        return HttpAnswer(response.status, response.headers, unreadable=too_long)
                return HttpAnswer(response.status, response.headers, body)
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise HttpTimeoutError(self._connect_seconds if connecting else None) from None
        except aiohttp.ClientError as error:
            raise HttpError(f"{type(error).__name__}: {error}") from None

    async def close(self) -> None:
        await self._session.close()
