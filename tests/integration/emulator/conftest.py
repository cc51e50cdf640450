"""What the emulator's own tests share: a web server to call, and a function that does nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

IDLE_FUNCTION = """
from starlette.responses import JSONResponse

async def handle_scheduled_invocation(request):
    return JSONResponse({"status": "idle"})
"""


class Sink:
    """An HTTP server that remembers the requests and answers when it is told to."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[bytes] = []
        self.slow_may_answer = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        self.requests.append(head + await reader.readexactly(length))
        if b"/slow" in head:
            await self.slow_may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    sink = Sink()
    server = await asyncio.start_server(sink.answer, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    async with server:
        yield sink
        sink.slow_may_answer.set()


@pytest.fixture
def idle_function(tmp_path: Path) -> Path:
    """A project root whose function answers everything and does nothing."""
    package = tmp_path / "root" / "functions"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(IDLE_FUNCTION)
    return package.parent
