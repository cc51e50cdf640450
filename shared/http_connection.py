"""One keep-alive HTTP/1.1 connection: one request at a time, and its answer read to a bounded end.

The bytes of answers are understood by httptools, which is llhttp, the parser of Node.js.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple, cast

import httptools
import httpx

RawHeaders = Sequence[tuple[bytes, bytes]]
# zlib's number for a gzip header and a window of any size.
GZIP = 31
# What common servers and clients allow for all headers of a message together.
MAX_HEAD_BYTES = 64 * 1024


class ResponseTooLargeError(httpx.DecodingError):
    """The answer was longer than this client reads; it was cut off."""


class HttpAnswer(NamedTuple):
    """An answer, read to its end and unpacked.

    Args:
        headers: as they came.
    """

    status: int
    content: bytes
    headers: RawHeaders

    def header(self, name: str) -> str | None:
        """The first value of a header, its name in any case; None where there is none that is ASCII."""
        wanted = name.lower().encode()
        for found, value in self.headers:
            if found.lower() == wanted and value.isascii():
                return value.decode()
        return None


class Connection(asyncio.Protocol):
    """A connection that is open, until it is closed by whichever side."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._awaited: asyncio.Future[HttpAnswer] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._max_bytes = 0
        self._is_in_head = True
        self._head_bytes = 0
        self._ends_with_connection = False
        self.idle_since = 0.0
        """When its last answer was complete, by the event loop's clock."""

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, *, timeout_seconds: float | None, max_bytes: int) -> HttpAnswer:
        """Sends one request and reads its answer.

        Args:
            request: head and body.
            timeout_seconds: for the whole answer; None: as long as it takes.
            max_bytes: of its body, as it came and unpacked.

        Raises:
            httpx.ReadTimeout: it took longer.
            httpx.NetworkError: the connection broke, or what came is no HTTP.
            ResponseTooLargeError: the answer was too long.
        """
        if self._transport is None:
            # It was closed as soon as it was open: nothing would ever come.
            raise httpx.ReadError("the connection broke before the request was sent")
        awaited: asyncio.Future[HttpAnswer] = self._loop.create_future()
        self._awaited = awaited
        self._max_bytes = max_bytes
        self._transport.write(request)
        timer = None if timeout_seconds is None else self._loop.call_later(timeout_seconds, self._time_out)
        try:
            return await awaited
        finally:
            if timer is not None:
                timer.cancel()
            if self._awaited is not None:
                # Failed or cancelled: the rest of this answer must not be taken for the next one's.
                self.close()

    def close(self) -> None:
        """Closes it; an answer that is still awaited fails."""
        if self._transport is not None:
            self._transport.abort()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._awaited is None:
            # Nobody asked: what follows an answer is none.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.ReadError(f"expected an HTTP answer: {type(error).__name__}"))
        if self._is_in_head:
            # The parser hands a header out when it is whole, and would gather one without an end for ever.
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(httpx.ReadError(f"expected at most {MAX_HEAD_BYTES} bytes of headers"))

    def eof_received(self) -> None:
        if self._ends_with_connection:
            self.on_message_complete()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(httpx.ReadError("the connection broke before the answer was whole"))

    # What the parser says.

    def on_message_begin(self) -> None:
        self._headers = []
        self._chunks = []
        self._size = 0
        self._is_in_head = True
        self._head_bytes = 0
        self._ends_with_connection = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        framing = {b"content-length", b"transfer-encoding"}
        self._ends_with_connection = self._parser.get_status_code() >= HTTPStatus.OK and framing.isdisjoint(
            name.lower() for name, _ in self._headers
        )

    def on_body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._max_bytes:
            self._fail(ResponseTooLargeError(f"expected at most {self._max_bytes} bytes"))
        else:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        awaited = self._awaited
        if awaited is None:
            self.close()  # a second answer to one request
            return
        if status < HTTPStatus.OK or awaited.done():
            return
        try:
            content = self._unpacked(b"".join(self._chunks))
        except httpx.HTTPError as error:
            self._fail(error)
            return
        self._awaited = None
        self.idle_since = self._loop.time()
        if self._ends_with_connection or not self._parser.should_keep_alive():
            self.close()
        awaited.set_result(HttpAnswer(status, content, self._headers))

    def _unpacked(self, content: bytes) -> bytes:
        """Nothing is asked to be packed, and some servers pack all the same."""
        coding = next((value for name, value in self._headers if name.lower() == b"content-encoding"), b"identity")
        if coding.lower() == b"identity":
            return content
        if coding.lower() != b"gzip":
            raise httpx.ReadError("expected an answer without a Content-Encoding, or gzip")
        try:
            unpacked = zlib.decompressobj(GZIP).decompress(content, self._max_bytes + 1)
        except zlib.error as error:
            raise httpx.ReadError("the answer cannot be unpacked") from error
        if len(unpacked) > self._max_bytes:
            raise ResponseTooLargeError(f"expected at most {self._max_bytes} bytes")
        return unpacked

    def _time_out(self) -> None:
        self._fail(httpx.ReadTimeout("no complete answer in time"))

    def _fail(self, error: httpx.HTTPError) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(error)
        self.close()
