"""Callers without a token cannot fill the function's memory: heads without end, and bodies that nothing asked for."""

from __future__ import annotations

import asyncio
import contextlib

import psutil

from tests.integration.api.served import API, Served
from tests.integration.api.test_odd_requests import status_of

PIECE = b"X-Piece: " + b"a" * 4085 + b"\r\n"
ONE_MIB = 1024 * 1024
# What the kernel's buffers on both sides may hold beside the 64 KiB that the server takes.
MOST_SENT = 16 * ONE_MIB
MAX_GROWTH = 32 * ONE_MIB


def memory_of(served: Served) -> int:
    """The resident memory of the function's processes, in bytes."""
    assert served.function.pid is not None
    server = psutil.Process(served.function.pid)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


async def send_without_end(served: Served, start: bytes, piece: bytes, most: int) -> tuple[int, bytes]:
    """Sends until the connection is closed or `most` bytes are sent; returns how many were, and the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.function.port)
    sent = 0
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(start)
            while sent < most:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(65536), 60)
        return sent, answer
    finally:
        writer.close()


async def test_a_head_without_end_is_refused_and_takes_no_memory(served: Served) -> None:
    await served.call("GET", "/health", token="")
    before = memory_of(served)

    start = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    ended = await asyncio.gather(*(send_without_end(served, start, PIECE, 200 * ONE_MIB) for _ in range(8)))

    assert max(sent for sent, _ in ended) < MOST_SENT
    assert {status_of(answer) for _, answer in ended} <= {400, None}
    assert memory_of(served) - before < MAX_GROWTH
    # A head that stops half-way costs its connection's buffer, and holds up no other request.
    _, waiting = await asyncio.open_connection("127.0.0.1", served.function.port)
    waiting.write(start + PIECE)
    assert (await served.call("GET", "/health", token="")).status_code == 200
    waiting.close()


async def test_bodies_that_no_route_asks_for_are_answered_at_once_and_not_kept(served: Served) -> None:
    await served.call("GET", "/health", token="")
    before = memory_of(served)
    known = f"Authorization: Bearer {served.project.admin_token}\r\n".encode()
    for line, headers, status in (
        (b"GET /health", b"", 200),
        (b"POST /health", b"", 405),
        (b"POST /", b"", 401),
        (b"POST " + API.encode(), b"", 401),
        (b"PATCH " + API.encode(), known, 405),
    ):
        head = line + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n" + headers
        opened = [await asyncio.open_connection("127.0.0.1", served.function.port) for _ in range(40)]
        for _, writer in opened:
            # All but the last byte: the answer must not wait for it.
            writer.write(head + b"\r\n" + b" " * (ONE_MIB - 1))
        answers = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60) for reader, _ in opened]
        assert {status_of(answer) for answer in answers} == {status}, line
        assert memory_of(served) - before < MAX_GROWTH, line
        for _, writer in opened:
            writer.close()
    assert served.defects() == []
