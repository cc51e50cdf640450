"""HTTP over pyreqwest, whose pool is written in Rust: once as an httpx transport, and once without httpx's objects.

httpx's own pool rescans its connections on every request, which at 64 calls in flight costs a hundred times the CPU of
this one. And httpx's requests and responses cost three times as much again as the exchange itself (measured: 179 us of
CPU a call against 44), which a client that makes a call for each user notices and the Data API's does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NamedTuple, Protocol

import httpx
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectError, PyreqwestError, RequestTimeoutError
from pyreqwest.request import RequestBuilder
from pyreqwest.response import Response

MAX_RESPONSE_BYTES = 16 * 1024 * 1024


class ResponseTooLargeError(httpx.DecodingError):
    """The answer was longer than this client reads; it was cut off."""


class HttpAnswer(NamedTuple):
    """An answer, read to its end.

    Args:
        header: the first value of a header by its name, in any case; None where there is none that is text.
    """

    status: int
    content: bytes
    header: Callable[[str], str | None]


class PostTransport(Protocol):
    """Whatever posts a body and reads the answer."""

    async def post(
        self, url: str, *, headers: Mapping[str, str], content: bytes, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        """Sends one request. The whole exchange, body included, takes at most `timeout_seconds`.

        Args:
            url: where to.
            headers: all but those that HTTP itself needs.
            content: the body.
            timeout_seconds: for all of it.
            max_bytes: of the answer's body, decompressed.

        Raises:
            httpx.TimeoutException: it took longer.
            httpx.ConnectError: no connection.
            httpx.NetworkError: the connection broke.
            ResponseTooLargeError: the answer was too long.
        """
        ...


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """Sends requests through a pooled pyreqwest client; redirects are not followed, answers are bounded.

    Args:
        connect_timeout: seconds that connecting may take.
        max_response_bytes: a longer answer raises `ResponseTooLargeError`; the cap counts decompressed bytes.
    """

    def __init__(self, *, connect_timeout: float = 5.0, max_response_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self._max_bytes = max_response_bytes
        self._client: Client = (
            ClientBuilder()
            .follow_redirects(False)
            .connect_timeout(timedelta(seconds=connect_timeout))
            # Below the idle time-outs of common servers and load balancers: a connection that they are about to close
            # is the commonest cause of a reset.
            .pool_idle_timeout(timedelta(seconds=4))
            .build()
        )

    async def post(
        self, url: str, *, headers: Mapping[str, str], content: bytes, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        """See `PostTransport`."""
        builder = self._client.post(url).headers(headers).body_bytes(content)
        builder = builder.timeout(timedelta(seconds=timeout_seconds))
        response, body = await _exchange(builder, min(self._max_bytes, max_bytes))

        def header(name: str) -> str | None:
            with contextlib.suppress(ValueError):
                return response.get_header(name)
            return None

        return HttpAnswer(response.status, body, header)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends one request. The whole exchange, body included, takes at most the request's read time-out.

        Raises:
            httpx.TimeoutException: it took longer.
            httpx.ConnectError: no connection.
            httpx.NetworkError: the connection broke.
            ResponseTooLargeError: the answer was too long.
        """
        timeout = request.extensions.get("timeout", {}).get("read")
        builder = self._client.request(request.method, str(request.url)).headers(request.headers.multi_items())
        if content := await request.aread():
            builder = builder.body_bytes(content)
        if timeout is not None:
            builder = builder.timeout(timedelta(seconds=timeout))
        try:
            response, body = await _exchange(builder, self._max_bytes)
        except httpx.RequestError as error:
            error.request = request
            raise
        return httpx.Response(response.status, headers=_headers_of(response), content=body, request=request)

    async def aclose(self) -> None:
        """Closes the pool."""
        await self._client.close()


async def _exchange(builder: RequestBuilder, max_bytes: int) -> tuple[Response, bytes]:
    """Sends what was built and reads the answer to its end; pyreqwest's errors become httpx's."""
    try:
        async with builder.build_streamed() as response:
            chunks: list[bytes] = []
            size = 0
            reader = response.body_reader
            while (chunk := await reader.read_chunk()) is not None:
                size += len(chunk)
                if size > max_bytes:
                    raise ResponseTooLargeError(f"expected at most {max_bytes} bytes")
                chunks.append(bytes(chunk))
            return response, b"".join(chunks)
    except RequestTimeoutError as error:
        raise httpx.ReadTimeout("no complete answer in time") from error
    except ConnectError as error:
        raise httpx.ConnectError("no connection") from error
    except PyreqwestError as error:
        raise httpx.NetworkError(type(error).__name__) from error


def _headers_of(response: Response) -> list[tuple[str, str]]:
    """The headers that still hold of the body as it is here, without those that cannot be read as text."""
    headers: list[tuple[str, str]] = []
    for name in dict.fromkeys(response.headers):
        # The body is decompressed and whole by now.
        if name.lower() not in ("content-encoding", "content-length", "transfer-encoding"):
            with contextlib.suppress(ValueError):
                headers += [(name, value) for value in response.get_header_all(name)]
    return headers
