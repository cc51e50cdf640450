"""The other candidate: aiohttp."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from shared.post_client import HttpAnswer, HttpBodyError, HttpError, HttpTimeoutError

IDLE_SECONDS = 4.0


class AiohttpClient:
    """A `PostClient`; see `Connect`. It belongs to the event loop that makes the first call."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> None:
        self._url = url
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._connect_seconds = connect_seconds
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        """See `PostClient`."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, cookie_jar=aiohttp.DummyCookieJar()
            )
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._connect_seconds)
        try:
            async with self._session.post(
                self._url, data=content, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return await _read(response, max_bytes)
        except TimeoutError as error:
            is_connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise HttpTimeoutError(is_connecting=is_connecting) from None
        except aiohttp.ClientError as error:
            raise HttpError(type(error).__name__) from None


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> HttpAnswer:
    pieces: list[bytes] = []
    left = max_bytes
    try:
        async for piece in response.content.iter_any():
            left -= len(piece)
            if left < 0:
                return HttpAnswer(response.status, response.headers, unreadable=HttpBodyError("the body is too long"))
            pieces.append(piece)
    except aiohttp.ClientError as error:
        return HttpAnswer(response.status, response.headers, unreadable=HttpBodyError(type(error).__name__))
    return HttpAnswer(response.status, response.headers, b"".join(pieces))
