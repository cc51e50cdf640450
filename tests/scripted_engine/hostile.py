"""Misbehaviour that is meant: rules like those of `rules`, whose answers wear out whoever reads them, or are none.

Each acts before it answers.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Collection

from .exchange import Call, Proceed, Reply, Rule
from .rules import with_body

# ---- bodies


def compressed_body(size: int) -> Rule:
    """So long once it is unpacked, and a thousand times shorter on the wire."""
    packed = gzip.compress(b'{"results": [' + b" " * (size - 15) + b"]}")

    async def rule(call: Call, proceed: Proceed) -> Reply:
        reply = await proceed(call)
        reply.body = packed
        reply.headers["content-encoding"] = "gzip"
        return reply

    return rule


def dripping_body(pause_seconds: float = 0.02) -> Rule:
    """A byte at a time, until the caller hangs up: never idle for long, never ready."""

    async def drops() -> AsyncIterator[bytes]:
        yield b'{"results": ['
        while True:
            await asyncio.sleep(pause_seconds)
            yield b" "

    return with_body(drops)


def speaking_for(users: Collection[str], scenario_type: str = "milestone_reached") -> Rule:
    """Adds failures of these users, as far as the call does not name them."""

    async def rule(call: Call, proceed: Proceed) -> Reply:
        reply = await proceed(call)
        reply.results += [
            {"user_id": user_id, "scenario_type": scenario_type, "outcome": "failed", "error": {"code": "forged"}}
            for user_id in users
            if user_id not in call.user_ids
        ]
        return reply

    return rule


# ---- below HTTP


def raw(*chunks: bytes) -> Rule:
    """These bytes in place of an answer."""

    async def once() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return _raw(once)


def endless_interim_answers(pause_seconds: float = 0.02) -> Rule:
    """Always about to answer (RFC 9110, 15.2), until the caller hangs up."""

    async def interim() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(pause_seconds)
            yield b"HTTP/1.1 102 Processing\r\n\r\n"

    return _raw(interim)


def longer_than_promised() -> Rule:
    """Cuts its own answer by a wrong Content-Length, and puts another one behind it."""
    forged = b'{"results": []}'
    promise = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return raw(promise % (len(forged) - 1) + forged, promise % len(forged) + forged)


def huge_headers(size: int = 4 * 1024 * 1024) -> Rule:
    return raw(b"HTTP/1.1 200 OK\r\nX-Huge: ", b"x" * size, b"\r\nContent-Length: 2\r\n\r\n{}")


def _raw(make: Callable[[], AsyncIterator[bytes]]) -> Rule:
    async def rule(call: Call, proceed: Proceed) -> Reply:
        reply = await proceed(call)
        reply.raw = make()
        return reply

    return rule
