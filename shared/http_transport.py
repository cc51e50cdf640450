"""An httpx transport over pyreqwest.

httpx's own pool rescans its connections on every request, which at 64 calls in flight costs a hundred times the CPU of
this one. Requests and responses stay httpx's, so whatever replaces an httpx transport in tests replaces this one.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

import httpx
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectError, PyreqwestError, RequestTimeoutError
from pyreqwest.response import Response

MAX_RESPONSE_BYTES = 16 * 1024 * 1024


class ResponseTooLargeError(httpx.DecodingError):
    """The answer was longer than this client reads; it was cut off."""


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests through a pooled pyreqwest client; redirects are not followed, answers are bounded.

    Args:
        connect_timeout: seconds that connecting may take.
        max_response_bytes: a longer answer raises `ResponseTooLargeError`; the cap counts decompressed bytes. A request
            may lower it by an extension of the same name.
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

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends one request. The whole exchange, body included, takes at most the request's read time-out.

        Raises:
            httpx.TimeoutException: it took longer.
            httpx.ConnectError: no connection.
            httpx.NetworkError: the connection broke.
            ResponseTooLargeError: the answer was too long.
        """
        max_bytes = min(self._max_bytes, request.extensions.get("max_response_bytes", self._max_bytes))
        timeout = request.extensions.get("timeout", {}).get("read")
        builder = self._client.request(request.method, str(request.url)).headers(request.headers.multi_items())
        if content := await request.aread():
            builder = builder.body_bytes(content)
        if timeout is not None:
            builder = builder.timeout(timedelta(seconds=timeout))
        try:
            async with builder.build_streamed() as response:
                chunks: list[bytes] = []
                size = 0
                reader = response.body_reader
                while (chunk := await reader.read_chunk()) is not None:
                    size += len(chunk)
                    if size > max_bytes:
                        raise ResponseTooLargeError(f"expected at most {max_bytes} bytes", request=request)
                    chunks.append(bytes(chunk))
                return httpx.Response(
                    response.status, headers=_headers_of(response), content=b"".join(chunks), request=request
                )
        except RequestTimeoutError as error:
            raise httpx.ReadTimeout("no complete answer in time", request=request) from error
        except ConnectError as error:
            raise httpx.ConnectError("no connection", request=request) from error
        except PyreqwestError as error:
            raise httpx.NetworkError(type(error).__name__, request=request) from error

    async def aclose(self) -> None:
        """Closes the pool."""
        await self._client.close()


def _headers_of(response: Response) -> list[tuple[str, str]]:
    """The headers that still hold of the body as it is here, without those that cannot be read as text."""
    headers: list[tuple[str, str]] = []
    for name in dict.fromkeys(response.headers):
        # The body is decompressed and whole by now.
        if name.lower() not in ("content-encoding", "content-length", "transfer-encoding"):
            with contextlib.suppress(ValueError):
                headers += [(name, value) for value in response.get_header_all(name)]
    return headers
