"""Requests that no client library sends: never an error of ours, and no way to fill the function's memory."""

from __future__ import annotations

import asyncio
import contextlib

import psutil

from tests.integration.api.served import API, ONE_MIB, Served, status_of

CLOSE = b"Host: x\r\nConnection: close\r\n"
BODY = b'{"dry_run": true}'
CHUNKED = b"Transfer-Encoding: chunked\r\n"


async def test_odd_requests_are_answered_or_refused_and_open_nothing(served: Served) -> None:
    known = f"Authorization: Bearer {served.night.project.admin_token}\r\n".encode()
    api = API.encode()
    for line, status in {
        b"GET http:///[::1 HTTP/1.1": 404,
        b"OPTIONS * HTTP/1.1": 404,
        b"get /health HTTP/1.1": 405,
        b"GET /\xff HTTP/1.1": 400,
        b"GET /%0d%0aX:%20y HTTP/1.1": 404,
        b"GET " + api + b"/%0a HTTP/1.1": 422,
        b"GET " + api + b"?%00=1 HTTP/1.1": 422,
        b"GET " + api + b"?limit=1&limit=2 HTTP/1.1": 422,
    }.items():
        assert await served.send_raw(line + b"\r\n" + known + CLOSE + b"\r\n") == status, line
    for headers, status in {
        b"Host: [::1/%00@\xff\r\nConnection: close\r\n": 200,
        CLOSE + b"traceparent: 00-\xff-\r\n": 200,
        CLOSE + b"X-Forwarded-For: \xff, [, 1.2.3.4.5\r\n": 200,
        CLOSE + b"X: a\0b\r\n": 400,
        # The server speaks WebSocket, as the Data API's client brings a package for it; nothing here does.
        b"Host: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n": 403,
    }.items():
        assert await served.send_raw(b"GET /health HTTP/1.1\r\n" + headers + b"\r\n") == status, headers

    # Bodies that are not as long as they say.
    head = b"POST " + api + b" HTTP/1.1\r\nContent-Type: application/json\r\n" + known + CLOSE
    assert await served.send_raw(head + b"Content-Length: 400\r\n\r\n" + BODY, then_leave=True) is None
    for rest, status in (
        (b"Content-Length: 17\r\nContent-Length: 18\r\n\r\n" + BODY, 400),
        (b"Content-Length: 99999999999\r\n\r\n" + b" " * (ONE_MIB + 1), 413),
        (CHUNKED + b"\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 17 + b"0\r\n\r\n", 413),
        (CHUNKED + b"\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
        (CHUNKED + b"Content-Length: 2\r\n\r\n1\r\n \r\n0\r\n\r\n", 400),
    ):
        assert await served.send_raw(head + rest) == status, rest[:100]
    assert await served.night.invocations() == []
    assert served.defects() == []


async def test_a_head_without_end_is_refused_and_not_kept(served: Served) -> None:
    await served.call("GET", "/health", token="")
    before = memory_of(served)

    ended = await asyncio.gather(*(send_without_end(served) for _ in range(8)))

    # What the kernel's buffers on both sides may hold beside the 64 KiB that the server takes.
    assert max(sent for sent, _ in ended) < 16 * ONE_MIB
    assert {status for _, status in ended} <= {400, None}
    assert memory_of(served) - before < 32 * ONE_MIB


def memory_of(served: Served) -> int:
    """The resident memory of the function's processes, in bytes."""
    server = psutil.Process(served.function.pid)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


async def send_without_end(served: Served) -> tuple[int, int | None]:
    """Sends header fields until the connection is closed; returns how many bytes were sent, and the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.function.port)
    piece = b"X-Piece: " + b"a" * 4085 + b"\r\n"
    sent, answer = 0, b""
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n")
            while sent < 200 * ONE_MIB:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(65536), 60)
    finally:
        writer.close()
    return sent, status_of(answer)
