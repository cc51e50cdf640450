"""A proxy before the Data API that loses answers: what was asked for has happened, unknown to the caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Self
from urllib.parse import urlsplit

from tests.emulator.ports import LOCALHOST


class LossyProxy:
    """Passes requests on to `upstream_url`; `async with` starts and stops it.

    Of each path in `losing` it loses so many answers: it waits for the whole answer, and resets the connection.
    """

    def __init__(self, upstream_url: str, losing: dict[str, int]) -> None:
        self._upstream = urlsplit(upstream_url)
        self._losing = Counter(losing)
        self._connections: set[asyncio.Task[None]] = set()
        self.lost: list[int] = []
        """The statuses of the lost answers."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOCALHOST, 0)
        self.url = f"http://{LOCALHOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection: the answer says so."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            path = lines[0].split()[1]
            answer = await self._exchange(lines, body)
            if self._losing[path] > 0:
                self._losing[path] -= 1
                self.lost.append(int(answer.split()[1]))
                writer.transport.abort()
                return
            writer.write(answer)
            await writer.drain()

    async def _exchange(self, lines: list[str], body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        with contextlib.closing(writer):
            kept = [line for line in lines[1:] if line and not line.lower().startswith(("host:", "connection:"))]
            head = [lines[0], f"Host: {self._upstream.netloc}", "Connection: close", *kept, "", ""]
            writer.write("\r\n".join(head).encode("latin-1") + body)
            return await reader.read()
