"""HTTP with pyreqwest, which is Rust's reqwest: the client of engine, webhook and Auth, and the Data API's transport.

No other module imports that library, so that it can be replaced here. It keeps no cookies. It repeats a request only if
the reused connection closed before a byte was sent, or an HTTP/2 server did not process it (RFC 9113, 8.7).
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import httpx
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport
from pyreqwest.exceptions import BuilderError, PyreqwestError, RequestError, RequestTimeoutError
from pyreqwest.http import Url

from shared.post_client import HttpBodyError, HttpError, HttpResponse, HttpTimeoutError
from shared.sanitize import sanitize

# Below common servers' idle time-outs: to use a connection that is about to be closed is the commonest cause of resets.
IDLE = timedelta(seconds=4)
# The library shares the time to connect among a name's addresses: with two, one that is dead costs half a second.
FIRST_CONNECT_SECONDS = 1.0
PING = timedelta(seconds=5)  # over HTTP/2, whose one connection carries all calls: its other end may be gone
# The library's thread needs the interpreter's lock to hand over an answer. A busy event loop releases it too briefly
# for the thread to wake up, and waits for answers that are there: a quarter of the time with 256 calls in flight.
MANY_CALLS = 50
CALLS_PER_HANDOVER = 8
HANDOVER_SECONDS = 0.0001
TRANSPORT_CONNECT_SECONDS = 5.0
TRANSPORT_ERROR = PyreqwestError  # what `httpx_transport` raises beside httpx's own, where an answer breaks off


def httpx_transport() -> httpx.AsyncBaseTransport:
    """Builds a transport of HTTP/1.1 for httpx, whose own costs a call three times as much CPU. It has a thread.

    Raises:
        TRANSPORT_ERROR: the system has no certificate authority.
    """
    return HttpxTransport(_builder(TRANSPORT_CONNECT_SECONDS).http1_only().build())


def cause_of(error: Exception) -> str:
    """Returns what ended an exchange over `httpx_transport`, in the library's words where it has some."""
    broken = error.__cause__ or error
    if isinstance(broken, RequestError | BuilderError):
        return str(_translated(broken, TRANSPORT_CONNECT_SECONDS))
    return type(error).__name__


def _builder(seconds: float) -> ClientBuilder:
    return ClientBuilder().follow_redirects(False).pool_idle_timeout(IDLE).connect_timeout(timedelta(seconds=seconds))


class HttpClient:
    """A `PostClient` with a pool of its own, for any number of event loops and calls in flight; see `Connect`."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> None:
        self._url = url
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._max_connect_seconds = connect_seconds
        self._connect_seconds = min(FIRST_CONNECT_SECONDS, connect_seconds)
        self._built: tuple[Client, Url, float] | None = None
        self._calls = self._in_flight = 0

    def _build(self) -> tuple[Client, Url, float]:
        builder = _builder(self._connect_seconds).default_headers(self._headers).http2_keep_alive_interval(PING)
        return builder.http2(True).http2_keep_alive_timeout(PING).build(), Url(self._url), self._connect_seconds

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        """See `PostClient`."""
        return await self._send("POST", content, headers, timeout_seconds, max_bytes)

    async def get(self, *, timeout_seconds: float, max_bytes: int) -> HttpResponse:
        """Sends a GET, under the same rules as `post`."""
        return await self._send("GET", b"", {}, timeout_seconds, max_bytes)

    async def _send(
        self, method: str, content: bytes, headers: Mapping[str, str], timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        try:  # not before the first call: the library's threads would not survive a fork
            built = client, url, connect_seconds = self._built = self._built or self._build()
        except BuilderError as error:  # a system without any certificate authority
            raise _translated(error, self._connect_seconds) from None
        request = client.request(method, url).headers(headers).body_bytes(content)
        # Without a buffer the head is handed over before the body is read, so that it counts whatever the body does.
        request = request.timeout(timedelta(seconds=timeout_seconds)).streamed_read_buffer_limit(0)
        self._calls += 1
        self._in_flight += 1
        if self._in_flight >= MANY_CALLS and self._calls % CALLS_PER_HANDOVER == 0:
            time.sleep(HANDOVER_SECONDS)  # noqa: ASYNC251 - all of this thread has to pause, not this call
        try:
            async with request.build_streamed() as response:
                status, answered = response.status, response.headers
                try:
                    body = await response.body_reader.read(max_bytes + 1) or b""
                except RequestError as error:
                    return HttpResponse(status, answered, unreadable=_translated(error, connect_seconds))
                if len(body) > max_bytes:
                    too_long = HttpBodyError(f"the body is longer than {max_bytes} bytes")
                    return HttpResponse(status, answered, unreadable=too_long)
                return HttpResponse(status, answered, bytes(body))
        except RequestError as error:
            failure = _translated(error, connect_seconds)
            if isinstance(failure, HttpTimeoutError) and failure.is_connecting and built is self._built:
                self._built, self._connect_seconds = None, self._max_connect_seconds  # it may just be far away
            raise failure from None  # its text holds the URL
        finally:
            self._in_flight -= 1


def _translated(error: RequestError | BuilderError, connect_seconds: float) -> HttpError:
    """Translates by the causes, the innermost last: the library's classes do not tell connecting from answering."""
    causes = [cause["message"] for cause in error.details["causes"] or () if " for url (" not in cause["message"]]
    said = sanitize(causes[-1] if causes else error.message, limit=160)  # the database keeps 300
    is_connecting = "client error (Connect)" in causes or isinstance(error, BuilderError)
    if isinstance(error, RequestTimeoutError):
        return HttpTimeoutError(connect_seconds if is_connecting else None)
    if said.endswith("UnknownIssuer"):
        said += ": no certificate authority that is trusted here signed it"
    if "CaUsedAsEndEntity" in said:
        said += ": it is self-signed as an authority; a server needs a certificate with CA:FALSE"
    if "UnknownIssuer" in said or isinstance(error, BuilderError):
        paths = ssl.get_default_verify_paths()  # those that exist; some systems have no file beside the folder
        bundle = Path(os.environ.get("SSL_CERT_FILE") or paths.cafile or paths.capath or "/nowhere")
        if not bundle.exists() or not bundle.stat().st_size:
            said += " (SSL_CERT_FILE names no file of certificates)"
    if "request or response body error" in causes and "error reading a body from connection" not in causes:
        return HttpBodyError(f"the body cannot be unpacked: {said}")
    return HttpError(f"no connection: {said}" if is_connecting else said, is_connecting=is_connecting)
