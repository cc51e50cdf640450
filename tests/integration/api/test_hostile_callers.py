"""Callers without a token cannot fill the function's memory: endless heads, and bodies that no route reads.

HEAD is answered as HTTP says.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

import psutil
import pytest

from functions.http.invocations import PREFIX
from tests.emulator.function import FunctionProcess
from tests.integration.scheduled_runs.harness import Harness

START = b"GET /health HTTP/1.1\r\nHost: x\r\n"
PIECE = b"X-Piece: " + b"a" * 4085 + b"\r\n"
ONE_MIB = 1024 * 1024
# The kernel's buffers on both sides may hold this much beside the 256 KiB that the server takes at most.
MAX_SENT = 16 * ONE_MIB
MAX_GROWTH = 32 * ONE_MIB


@pytest.fixture
async def function(harness: Harness) -> FunctionProcess:
    function = await harness.start_function()
    assert (await harness.http.get(f"{function.url}/health")).status_code == 200
    return function


def memory_of(function: FunctionProcess) -> int:
    """Returns the resident memory of the function's processes, in bytes."""
    assert function.pid is not None
    server = psutil.Process(function.pid)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


def status_of(answer: bytes) -> int | None:
    """Returns the status of the first final answer; None: the connection was closed without one."""
    found = re.search(rb"^HTTP/1\.1 ([2-5]\d\d) ", answer, re.MULTILINE)
    return int(found[1]) if found else None


async def send_endless_head(function: FunctionProcess) -> tuple[int, int | None]:
    """Sends until the connection is closed, or 200 MiB; returns the bytes sent and the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", function.port)
    sent, answer = 0, b""
    with contextlib.suppress(ConnectionError):
        writer.write(START)
        while sent < 200 * ONE_MIB:
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(65536), 60)
    writer.close()
    return sent, status_of(answer)


async def test_endless_heads_are_refused_and_take_no_memory(function: FunctionProcess) -> None:
    before = memory_of(function)
    ended = await asyncio.gather(*(send_endless_head(function) for _ in range(8)))
    assert max(sent for sent, _ in ended) < MAX_SENT
    assert {status for _, status in ended} <= {400, None}
    assert memory_of(function) - before < MAX_GROWTH


async def test_head_is_answered_without_a_body(function: FunctionProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", function.port)
    writer.write(b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    writer.close()
    assert (status_of(head), body) == (200, b"")


async def test_bodies_that_no_route_reads_are_not_kept(harness: Harness, function: FunctionProcess) -> None:
    """The answers come while the last byte of each body is still missing."""
    before = memory_of(function)
    known = f"Authorization: Bearer {harness.project.admin_token}\r\n".encode()
    for line, headers, status in (
        (b"GET /health", b"", 200),
        (b"POST /health", b"", 405),
        (b"POST /", b"", 401),
        (b"POST " + PREFIX.encode(), b"", 401),
        (b"PATCH " + PREFIX.encode(), known, 405),
    ):
        head = line + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n" + headers
        opened = [await asyncio.open_connection("127.0.0.1", function.port) for _ in range(40)]
        for _, writer in opened:
            writer.write(head + b"\r\n" + b" " * (ONE_MIB - 1))
        answers = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60) for reader, _ in opened]
        assert {status_of(answer) for answer in answers} == {status}, line
        assert memory_of(function) - before < MAX_GROWTH, line
        for _, writer in opened:
            writer.close()
