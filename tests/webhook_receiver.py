"""A receiver of alerts over real HTTP, which checks signatures with the standard's own library and may misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

SIGNING_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@dataclass(frozen=True)
class Delivery:
    """A request that arrived whole, and whose signature holds, if there is one."""

    path: str
    headers: dict[str, str]
    message: dict[str, Any]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def payload(self) -> dict[str, Any]:
        """The figures for programs."""
        payload: dict[str, Any] = self.message["metadata"]["event_payload"]
        return payload


@dataclass
class WebhookReceiver:
    """`async with`: it listens on loopback.

    Args:
        secret: None: messages are expected to be unsigned.
        answers: the status of each next answer; None: no answer at all, until the block ends. 200 when there are none.
        body: of every answer.
        headers: of every answer, in place of the body's length.
    """

    secret: str | None = SIGNING_SECRET
    answers: list[int | None] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    body: bytes = b"ok"
    headers: str | None = None

    async def __aenter__(self) -> Self:
        self._ending = asyncio.Event()
        self._news = asyncio.Event()
        self._refused: list[Exception] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        self._server.close()
        await self._server.wait_closed()
        if self._refused:
            raise ExceptionGroup("not what a receiver takes", self._refused)

    @property
    def url(self) -> str:
        """With something in it that must not be seen anywhere."""
        return f"http://127.0.0.1:{self._port}/services/T024BE7LD/B8K3M2Q1Z/hook-token-that-lets-you-post"

    async def until_delivered(self, times: int = 1) -> None:
        """Waits for so many deliveries."""
        async with asyncio.timeout(30):
            while len(self.deliveries) < times:
                self._news.clear()
                await self._news.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers["content-length"]))
            try:
                self._accept(head[0].split()[1], headers, body)
            except (WebhookVerificationError, AssertionError, ValueError) as error:
                self._refused.append(error)
            status = self.answers.pop(0) if self.answers else 200
            if status is None:
                await self._ending.wait()
            else:
                own = self.headers or f"Content-Length: {len(self.body)}"
                writer.write(f"HTTP/1.1 {status} X\r\n{own}\r\nConnection: close\r\n\r\n".encode() + self.body)
                await writer.drain()
        writer.close()

    def _accept(self, path: str, headers: dict[str, str], body: bytes) -> None:
        if self.secret is None:
            assert "webhook-signature" not in headers
            message = json.loads(body)
        else:
            message = Webhook(self.secret).verify(body, headers)
        self.deliveries.append(Delivery(path, headers, message))
        self._news.set()
