"""An engine that costs as little as Python can: `python -m tests.benchmarks.fast_engine PORT LATENCY_SECONDS`.

Answers every pair `triggered` after a fixed delay, and 409 where it sees an idempotency key again, so that a contender
that evaluates anybody twice fails its run.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import ClassVar

from tests.emulator.ports import LOCALHOST


class Engine(asyncio.Protocol):
    """One keep-alive connection."""

    seen: ClassVar[set[str]] = set()
    latency = 0.0

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            if head.startswith(b"get "):
                self._buffer = self._buffer[end + 4 :]
                self._send(b"200 OK", b"{}")
                continue
            at = head.index(b"content-length:") + 15
            length = int(head[at:].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            asyncio.get_running_loop().call_later(self.latency, self._answer, body)

    def _answer(self, body: bytes) -> None:
        results = []
        for evaluation in json.loads(body)["evaluations"]:
            for scenario_type in evaluation["scenario_types"]:
                key = f"{evaluation['idempotency_key_prefix']}:{scenario_type}"
                if key in self.seen:
                    self._send(b"409 Conflict", b"{}")
                    return
                self.seen.add(key)
                results.append(
                    {
                        "user_id": evaluation["user_id"],
                        "scenario_type": scenario_type,
                        "outcome": "triggered",
                        "notification_id": "n",
                    }
                )
        self._send(b"200 OK", json.dumps({"results": results}).encode())

    def _send(self, status: bytes, body: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (status, len(body), body)
            )


async def serve(port: int, latency: float) -> None:
    """Serves until the process ends."""
    Engine.latency = latency
    server = await asyncio.get_running_loop().create_server(Engine, LOCALHOST, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
