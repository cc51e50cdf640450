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
            proxy=_proxy_for(self._url),
        )

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        """See `PostClient`."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._connect_seconds)
        try:
            async with self._session.post(
                self._url, data=content, headers=headers, allow_redirects=False, timeout=timeout
            ) as response:
                try:
                    body = b""
                    async for piece in response.content.iter_any():
                        body += piece
                        if len(body) > max_bytes:
                            response.close()
                            too_long = HttpBodyError(f"the body is longer than {max_bytes} bytes")
                            return HttpAnswer(response.status, response.headers, unreadable=too_long)
                except (aiohttp.ClientError, TimeoutError) as error:
                    return HttpAnswer(
                        response.status, response.headers, unreadable=_translated(error, self._connect_seconds)
                    )
                return HttpAnswer(response.status, response.headers, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _translated(error, self._connect_seconds) from None

    async def close(self) -> None:
        await self._session.close()


def _proxy_for(url: URL) -> str | None:
    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)


def _translated(error: Exception, connect_seconds: float) -> HttpError:
    if isinstance(error, TimeoutError):
        is_connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
        return HttpTimeoutError(connect_seconds if is_connecting else None)
    if isinstance(error, aiohttp.ClientPayloadError):
        return HttpBodyError(str(error))
    return HttpError(f"{type(error).__name__}: {error}")
