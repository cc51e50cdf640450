"""A pool of HTTP/1.1 connections: once as an httpx transport, and once without httpx's objects.

httpx's own pool rescans its connections on every request, and its requests and responses cost more than the exchange
itself; with 64 calls in flight that is a hundred times the CPU of this, which has to make a call for each user. Clients
whose sockets live in threads of their own, such as pyreqwest, cost three times as much as this one: each answer wakes
two threads that then wait for one interpreter lock.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

import httpx

from shared.http_connection import Connection, HttpAnswer

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
# Below the idle time-outs of common servers and load balancers: a connection that they are about to close is the
# commonest cause of a reset.
IDLE_SECONDS = 4.0
# Written by this client itself. No answer is asked to be packed: to unpack would cost more than the bytes it saves.
OWN_HEADERS = frozenset({b"host", b"connection", b"accept-encoding", b"content-length", b"transfer-encoding"})
# They speak of the bytes on the wire; the body is unpacked and whole by now.
WIRE_HEADERS = frozenset({b"content-encoding", b"content-length", b"transfer-encoding", b"connection"})


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
            max_bytes: of the answer's body, unpacked.

        Raises:
            httpx.TimeoutException: it took longer.
            httpx.ConnectError: no connection.
            httpx.NetworkError: the connection broke.
            ResponseTooLargeError: the answer was too long.
        """
        ...


class _Origin(NamedTuple):
    host: str
    port: int
    is_tls: bool


class HttpTransport(httpx.AsyncBaseTransport):
    """Sends requests over pooled connections; redirects are not followed, answers are bounded, nothing is retried.

    Args:
        connect_timeout: seconds that connecting may take.
        max_response_bytes: a longer answer raises `ResponseTooLargeError`; the cap counts unpacked bytes.
    """

    def __init__(self, *, connect_timeout: float = 5.0, max_response_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self._connect_timeout = connect_timeout
        self._max_bytes = max_response_bytes
        # The one that was used last is taken first, so that a pool which was large once shrinks.
        self._idle: defaultdict[_Origin, deque[Connection]] = defaultdict(deque)

    async def post(
        self, url: str, *, headers: Mapping[str, str], content: bytes, timeout_seconds: float, max_bytes: int
    ) -> HttpAnswer:
        """See `PostTransport`."""
        origin, target, host = _parse(url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError("expected headers of one line each")
        head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: {len(content)}\r\n\r\n"
        return await self._exchange(origin, head.encode() + content, timeout_seconds, min(self._max_bytes, max_bytes))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends one request. The whole exchange, body included, takes at most the request's read time-out.

        Raises:
            httpx.TimeoutException: it took longer.
            httpx.ConnectError: no connection.
            httpx.NetworkError: the connection broke.
            ResponseTooLargeError: the answer was too long.
        """
        content = await request.aread()
        own = [(b"Host", request.url.netloc)]
        if content or request.method not in ("GET", "HEAD"):
            own.append((b"Content-Length", b"%d" % len(content)))
        given = [(name, value) for name, value in request.headers.raw if name.lower() not in OWN_HEADERS]
        head = b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)
        head += b"".join(b"%b: %b\r\n" % header for header in own + given) + b"\r\n"
        timeout_seconds = request.extensions.get("timeout", {}).get("read")
        try:
            answer = await self._exchange(_origin_of(request.url), head + content, timeout_seconds, self._max_bytes)
        except httpx.RequestError as error:
            error.request = request
            raise
        headers = [(name, value) for name, value in answer.headers if name.lower() not in WIRE_HEADERS]
        return httpx.Response(answer.status, headers=headers, content=answer.content, request=request)

    async def aclose(self) -> None:
        """Closes the pool."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    async def _exchange(
        self, origin: _Origin, request: bytes, timeout_seconds: float | None, max_bytes: int
    ) -> HttpAnswer:
        connection = self._take_idle(origin)
        if connection is None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            connection = await self._connect(origin, timeout_seconds)
            if timeout_seconds is not None:
                timeout_seconds = max(0.0, timeout_seconds - (loop.time() - began))
        answer = await connection.exchange(request, timeout_seconds=timeout_seconds, max_bytes=max_bytes)
        if connection.is_open:
            self._idle[origin].append(connection)
        return answer

    def _take_idle(self, origin: _Origin) -> Connection | None:
        idle = self._idle[origin]
        while idle:
            connection = idle.pop()
            if not connection.is_open:
                continue
            if asyncio.get_running_loop().time() - connection.idle_since < IDLE_SECONDS:
                return connection
            # All the others have been idle for longer.
            idle.append(connection)
            while idle:
                idle.pop().close()
        return None

    async def _connect(self, origin: _Origin, timeout_seconds: float | None) -> Connection:
        loop = asyncio.get_running_loop()
        seconds = self._connect_timeout if timeout_seconds is None else min(self._connect_timeout, timeout_seconds)
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    Connection, origin.host, origin.port, ssl=self._tls if origin.is_tls else None
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx.ConnectError(f"no connection ({type(error).__name__})") from error
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """With the authorities that httpx trusts: the system's, or certifi's where SSL_CERT_FILE names none."""
        context: ssl.SSLContext = httpx.create_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
        return context


@lru_cache(maxsize=64)
def _parse(url: str) -> tuple[_Origin, str, str]:
    """Where to connect to, what to ask for there, and by what name."""
    parsed = httpx.URL(url)
    return _origin_of(parsed), parsed.raw_path.decode(), parsed.netloc.decode()


def _origin_of(url: httpx.URL) -> _Origin:
    is_tls = url.scheme == "https"
    return _Origin(url.host, url.port or (443 if is_tls else 80), is_tls)
